"""Writes several files together: all get their new text, or all keep the old one.

Files are overwritten in place: a container has each one mounted separately, and would keep the old
file if it were replaced. A complete copy of the old text is therefore on the disk beside a file
while it is overwritten, so that one of the two survives any interruption.
"""

import os
from collections.abc import Mapping
from pathlib import Path

BEFORE = ".before"
# Containers run as other users; the folder's mode keeps everyone else out.
READABLE = 0o444


class BrokenOffError(Exception):
    """An earlier change was interrupted; the message says what to do."""


def put(folder: Path, texts: Mapping[str, str]) -> None:
    """Write files, existing or new, of one line each.

    Args:
        folder: their folder.
        texts: the new texts, by file name.

    Raises:
        BrokenOffError: a copy of an old text exists, from an interrupted change, or from this one
            if the old text could not be restored.
        OSError: the files cannot be written, and all are unchanged.
    """
    left = [name for name in texts if (folder / f"{name}{BEFORE}").exists()]
    if left:
        raise BrokenOffError(_broken_off(folder, left))
    held = {name: (folder / name).read_bytes() for name in texts if (folder / name).exists()}
    try:
        for name, content in held.items():
            _make(folder / f"{name}{BEFORE}", content, READABLE)
        _sync(folder)
        for name, text in texts.items():
            content = f"{text}\n".encode()
            if name in held:
                _overwrite(folder / name, content)
            else:
                _make(folder / name, content, READABLE)
        _sync(folder)
    except BaseException:
        _put_back(folder, texts, held)
        raise
    for name in held:
        (folder / f"{name}{BEFORE}").unlink()


def _put_back(folder: Path, texts: Mapping[str, str], held: Mapping[str, bytes]) -> None:
    damaged = []
    for name in texts:
        try:
            if name not in held:
                (folder / name).unlink(missing_ok=True)
            elif (folder / name).read_bytes() != held[name]:
                _overwrite(folder / name, held[name])
            (folder / f"{name}{BEFORE}").unlink(missing_ok=True)
        except OSError:
            damaged.append(name)
    if damaged:
        raise BrokenOffError(_broken_off(folder, damaged))


def _broken_off(folder: Path, names: list[str]) -> str:
    sentences = (
        f"{folder / name}{BEFORE} has what {name} held before a change that was broken off."
        for name in names
    )
    return f"{' '.join(sentences)} Keep of each two the one that is right, under the shorter name."


def _make(path: Path, content: bytes, mode: int) -> None:
    unfinished = path.with_name(f".{path.name}")
    unfinished.unlink(missing_ok=True)
    file = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        _write(file, content)
        os.fchmod(file, mode)
        os.fsync(file)
    except BaseException:
        unfinished.unlink()
        raise
    finally:
        os.close(file)
    unfinished.replace(path)


def _overwrite(path: Path, content: bytes) -> None:
    path.chmod(0o644)
    try:
        file = os.open(path, os.O_WRONLY | os.O_NOFOLLOW)
        try:
            # Not truncated first, but padded to the old length: a process that dies between two
            # steps leaves no half of either text.
            _write(file, content.ljust(os.fstat(file).st_size, b"\n"))
            os.ftruncate(file, len(content))
            os.fsync(file)
        finally:
            os.close(file)
    finally:
        path.chmod(READABLE)


def _write(file: int, content: bytes) -> None:
    while content:
        content = content[os.write(file, content) :]


def _sync(folder: Path) -> None:
    file = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(file)
    finally:
        os.close(file)
