"""Folders that a process holds by a lock (flock), and that are removed after its end.

He holds a lock in it (flock(2)), which ends with him however he ends. A process id would not tell:
it is given to another, and means nothing in another container that shares the folder.
"""

import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path

LOCK = ".lease"


class LeasedError(Exception):
    """The folder is another's, who lives."""


def take(folder: Path) -> int:
    """Hold a folder until this process ends, or what it becomes by exec() if that inherits it.

    Returns:
        The file that holds it.

    Raises:
        LeasedError: another holds it.
    """
    lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise LeasedError(f"{folder} is in use by another process") from None
    return lock


def make(base: Path, prefix: str, mode: int = 0o700) -> tuple[Path, int]:
    """Make a folder that is held from its first moment under its name.

    Args:
        base: where.
        prefix: what its name begins with.
        mode: its rights.

    Returns:
        The folder and the file that holds it.
    """
    unfinished = Path(tempfile.mkdtemp(prefix=f".{prefix}", dir=base))
    lock = take(unfinished)
    unfinished.chmod(mode)
    folder = unfinished.with_name(unfinished.name.removeprefix("."))
    unfinished.rename(folder)
    return folder, lock


def remove_abandoned(
    base: Path, prefix: str = "", remove: Callable[[Path], object] | None = None
) -> None:
    """Remove the folders of this user that were held and are no more.

    Args:
        base: where they are.
        prefix: what their names begin with.
        remove: does it; by default the folder is deleted.
    """
    for folder in base.glob(f"{prefix}*"):
        try:
            found = folder.lstat()
            if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
                continue
            if not (folder / LOCK).exists():
                continue
            lock = take(folder)
        except (LeasedError, OSError):
            continue
        try:
            (remove or _delete)(folder)
        finally:
            os.close(lock)


def _delete(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
