"""The folder of the checkout, and folders that other users may pass.

As root, PostgreSQL runs as a user of its own.
"""

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def passable(folder: Path) -> Path:
    """Make a folder that others may pass and not look into, whatever the umask; returns it.

    Args:
        folder: may be there already; what is above it must be.
    """
    folder.mkdir(exist_ok=True)
    folder.chmod(0o711)
    return folder
