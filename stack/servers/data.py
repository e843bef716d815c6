"""Where the servers of this checkout keep their data: on the disk what stays, else in memory.

Not in the checkout: PostgreSQL may have to run as another user, who cannot pass a home that is
closed to others, and RabbitMQ's scripts do not bear a space in a path.
"""

import contextlib
import functools
import hashlib
import json
import math
import os
import re
import secrets
import shutil
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from shared import lease
from stack.folders import ROOT, passable
from stack.processes import kill_leftover
from stack.servers.listening import DidNotStartError

DISK = Path("/var/tmp")
# A file costs a disk's file system much more than what is in it: to copy a database of three
# hundred takes 25 ms of CPU in memory, and 450 on one of ext4 (docs/decisions.md).
MEMORY = Path("/dev/shm")
LOOPBACK = {"localhost", "127.0.0.1", "::1"}
CGROUP = Path("/sys/fs/cgroup")
MARK = 12  # hexadecimal digits that tell checkouts apart
ROOM = 6 << 30  # bytes that must be free; a test run takes a sixth of it


class ForeignFolderError(Exception):
    """The folder for the data is somebody else's; the message says which."""


def owner() -> str:
    """What the folders and containers of this checkout and user are called."""
    mark = hashlib.sha256(f"{ROOT}\0{os.geteuid()}".encode()).hexdigest()[:MARK]
    return f"order-fellow-{mark}"


def docker_is_there() -> bool:
    """Whether it is worth asking for a Docker daemon.

    One of another machine publishes its ports there, where nobody here reaches them.
    """
    address = urlsplit(docker_host())
    if address.scheme == "unix":
        return Path(address.path).is_socket()
    return address.hostname in LOOPBACK


def docker_host() -> str:
    """The engine that `docker` talks to: by DOCKER_HOST, else the context that somebody has chosen.

    As Docker's SDK finds it (docs.docker.com, "Docker contexts"), which is slow to import.
    """
    default = "unix:///var/run/docker.sock"
    if os.environ.get("DOCKER_HOST"):
        return os.environ["DOCKER_HOST"]
    folder = Path(os.environ.get("DOCKER_CONFIG") or os.path.expanduser("~/.docker"))
    try:
        name = os.environ.get("DOCKER_CONTEXT") or _json(folder / "config.json")["currentContext"]
        mark = hashlib.sha256(str(name).encode()).hexdigest()
        found = _json(folder / "contexts" / "meta" / mark / "meta.json")
        return str(found["Endpoints"]["docker"]["Host"] or default)
    except (OSError, ValueError, LookupError, TypeError):  # none is chosen, or "default"
        return default


def _json(path: Path) -> Any:
    return json.loads(path.read_bytes())


def kept() -> Path:
    """The folder of what stays.

    Raises:
        ForeignFolderError: somebody else has made it.
    """
    older = DISK / owner() / "run"  # until 0040
    return passable(_own(DISK if older.exists() else _state()) / "run")


def password(path: Path, made: Path, given: str = "") -> str:
    """The password of a server's data, in a file of their owner's; made with them.

    Args:
        path: the file.
        made: is there once the data are, which no other password opens.
        given: what it is; something random otherwise.

    Raises:
        DidNotStartError: the data are there without it.
    """
    if not path.exists():
        if made.exists():
            raise DidNotStartError(
                f"{path} is gone, and what is beside it cannot be opened without: put it back, "
                "or have `make clean` remove the data"
            )
        path.touch(mode=0o600)
        path.write_text(given or secrets.token_hex(16))
    return path.read_text()


def throwaway(purpose: str, *, durable: bool = False) -> Path:
    """A new folder for data that nobody keeps; what killed runs have left of theirs is removed.

    Args:
        purpose: what its name begins with.
        durable: whether it must be on the disk.

    Raises:
        ForeignFolderError: somebody else has made the folder that it would be in.
    """
    remove_abandoned()
    root = DISK if durable or not _has_room(MEMORY) else MEMORY
    # Held until this process ends.
    return lease.make(passable(_own(root) / "throwaway"), f"{purpose}-", 0o711)[0]


def remove_abandoned() -> None:
    """Remove what killed runs of this user have left, of checkouts that are gone too.

    What is in memory would stay there until the machine starts anew.

    Raises:
        ForeignFolderError: somebody else has made a folder of this checkout's.
    """
    folders = set(throwaways())
    for root in (DISK, MEMORY):
        for made in root.glob(f"order-fellow-{'?' * MARK}"):
            with contextlib.suppress(ForeignFolderError, FileNotFoundError):
                folders.add(_checked(made) / "throwaway")
    for folder in folders:
        lease.remove_abandoned(folder, remove=clear)


def throwaways() -> list[Path]:
    """The folders of what nobody keeps.

    Raises:
        ForeignFolderError: somebody else has made one that they would be in.
    """
    folders = (folder / "throwaway" for folder in _made())
    return [folder for folder in folders if folder.is_dir()]


def clear(folder: Path) -> None:
    """Stop what still runs on a data folder, and remove it."""
    node = folder / "rabbitmq"
    kill_leftover(node / "node.pid", str(node))
    cluster = folder / "postgres" / "cluster"
    kill_leftover(cluster / "postmaster.pid", str(cluster))
    shutil.rmtree(folder, ignore_errors=True)


def in_use() -> list[Path]:
    """The folders of this checkout that somebody who lives holds.

    Raises:
        ForeignFolderError: somebody else has made one of its folders.
    """
    folders = [folder / "run" for folder in _made()]
    folders += [one for folder in throwaways() for one in folder.iterdir()]
    return [folder for folder in folders if lease.is_held(folder)]


def clear_all() -> None:
    """Stop and remove everything of this checkout.

    Raises:
        ForeignFolderError: somebody else has made one of its folders.
    """
    made = _made()
    for folder in made:
        clear(folder / "run")
    for folder in throwaways():
        for each in folder.iterdir():
            clear(each)
    for folder in made:
        shutil.rmtree(folder, ignore_errors=True)


def _state() -> Path:
    """Where what stays is: what is old in /var/tmp is removed, after 30 days (tmpfiles.d(5))."""
    if os.geteuid() == 0:
        folder = Path("/var/lib")  # PostgreSQL's own user does not pass root's home
    else:
        # XDG Base Directory Specification: one that is not absolute is to be ignored.
        given = Path(os.environ.get("XDG_STATE_HOME", ""))
        # A user without a home (a container's) has "~" there, which is not absolute either.
        home = Path(os.path.expanduser("~/.local/state"))
        folder = next((path for path in (given, home) if path.is_absolute()), DISK)
        with contextlib.suppress(OSError):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    is_plain = re.fullmatch(r"[\w./+-]+", str(folder), re.ASCII)
    return folder if is_plain and os.access(folder, os.W_OK) else DISK


def _own(root: Path) -> Path:
    folder = root / owner()
    folder.mkdir(exist_ok=True)
    return passable(_checked(folder))


def _made() -> list[Path]:
    """This checkout's folders that are there."""
    folders = (root / owner() for root in {DISK, MEMORY, _state()})
    return [_checked(folder) for folder in folders if os.path.lexists(folder)]


def _checked(folder: Path) -> Path:
    """Where everybody may make folders somebody can have made it first, with links in it."""
    if folder.is_symlink() or folder.stat().st_uid != os.geteuid():
        raise ForeignFolderError(f"{folder} belongs to somebody else: remove it")
    return folder


@functools.cache
def _has_room(memory: Path) -> bool:
    """Whether much can be put there without leaving other programs too little.

    A container has 64 MB there unless somebody has asked for more, and what is written there counts
    towards its limit (cgroups(7)), of which /proc/meminfo knows nothing.
    """
    try:
        found = os.statvfs(memory)
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return False
    available = next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvail"))
    free = min(found.f_bavail * found.f_frsize, available, _below_limit())
    return free >= ROOM and os.access(memory, os.W_OK)


def _below_limit() -> float:
    """The bytes that this container may still use; on a machine itself there is no such file."""
    for most, used, found, cache in (
        ("memory.max", "memory.current", "memory.stat", "inactive_file"),
        (
            "memory/memory.limit_in_bytes",
            "memory/memory.usage_in_bytes",
            "memory/memory.stat",
            "total_inactive_file",
        ),
    ):
        with contextlib.suppress(OSError, ValueError):  # "max": there is no limit
            taken = int((CGROUP / used).read_text())
            kinds = dict(line.split() for line in (CGROUP / found).read_text().splitlines())
            # What was read from files once, and is given up as soon as somebody needs memory.
            return int((CGROUP / most).read_text()) - taken + int(kinds.get(cache, 0))
    return math.inf
