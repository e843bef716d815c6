"""Folders leased by a process, which can be removed after it ended.

The lease is a file lock (flock(2)), which ends with the process however it ends. A process id would
not do: ids are reused, and mean nothing in another container that shares the folder.
"""

import fcntl
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

LOCK = ".lease"
ASKING_SECONDS = 0.05  # `is_held` keeps its shared lock for less


class LeasedError(Exception):
    """A running process holds the folder."""


def take(folder: Path) -> int:
    """Hold a folder until this process ends, or its successor by exec() that inherits the file.

    Returns:
        The file descriptor of the lock.

    Raises:
        LeasedError: another process holds it.
    """
    try:
        return _hold(folder / LOCK)
    except LeasedError:
        time.sleep(ASKING_SECONDS)
        return _hold(folder / LOCK)


def is_held(folder: Path) -> bool:
    """Return whether a running process holds a folder; safe for concurrent calls."""
    try:
        os.close(_hold(folder / LOCK, fcntl.LOCK_SH, os.O_RDWR))
    except (FileNotFoundError, NotADirectoryError):
        return False
    except LeasedError:
        return True
    return False


def make(base: Path, prefix: str, mode: int = 0o700) -> tuple[Path, int]:
    """Create a folder that is held as soon as its name exists.

    Args:
        base: parent folder.
        prefix: of its name.
        mode: permission bits.

    Returns:
        The folder and the file descriptor of its lock.
    """
    unfinished = Path(tempfile.mkdtemp(prefix=f".{prefix}", dir=base))
    # Locked before the rename, because `remove_abandoned` removes folders with an unlocked file.
    lock = _hold(unfinished / f"{LOCK}.new")
    (unfinished / f"{LOCK}.new").rename(unfinished / LOCK)
    unfinished.chmod(mode)
    folder = unfinished.with_name(unfinished.name.removeprefix("."))
    unfinished.rename(folder)
    return folder, lock


def remove_abandoned(
    base: Path, prefix: str = "", remove: Callable[[Path], object] | None = None
) -> None:
    """Remove this user's folders whose holders have ended.

    Args:
        base: parent folder.
        prefix: of their names.
        remove: removes one; by default the folder is deleted.
    """
    for folder in base.glob(f"{prefix}*"):
        try:
            found = folder.lstat()
            if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
                continue
            if not (folder / LOCK).exists():
                continue
            lock = _hold(folder / LOCK)
        except (LeasedError, OSError):
            continue
        try:
            (remove or _delete)(folder)
        finally:
            os.close(lock)


def _hold(file: Path, how: int = fcntl.LOCK_EX, access: int = os.O_RDWR | os.O_CREAT) -> int:
    lock = os.open(file, access | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, how | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise LeasedError(f"{file.parent} is in use by another process") from None
    return lock


def _delete(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
