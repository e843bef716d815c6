"""The folder of the checkout, who is at work in it, and folders that other users may pass.

As root, PostgreSQL runs as a user of its own.
"""

import contextlib
import fcntl
import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV_LOCK = ROOT / ".venv.lock"


def hold_venv() -> None:
    """Have no setup make `.venv` anew, and nobody clean, until this process ends.

    What it starts later would find no library any more. A lock and no process id: also root cleans.
    """
    with contextlib.suppress(OSError):  # a folder that cannot be written is not set up, either
        lock = os.open(VENV_LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        fcntl.flock(lock, fcntl.LOCK_SH)


def is_venv_held() -> bool:
    """Whether somebody, whoever it is, works with `.venv`, or makes it."""
    try:
        with VENV_LOCK.open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # none is there, or its file system has it locked by writers alone
        return False
    return False


def passable(folder: Path) -> Path:
    """Make a folder that others may pass and not look into, whatever the umask; returns it.

    Args:
        folder: may be there already; what is above it must be.
    """
    folder.mkdir(exist_ok=True)
    folder.chmod(0o711)
    return folder
