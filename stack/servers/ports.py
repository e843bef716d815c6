"""TCP ports that are held from the moment they are chosen until whoever listens there has ended.

A port is held by the kernel: a socket that is bound to it and does not listen. Nobody is handed it
as a port that is free, neither an outgoing connection nor one who binds to port 0, and a server
that sets SO_REUSEADDR, as servers do, can listen there all the same. Two holders set it as well, so
what keeps them apart is a name among the abstract sockets (unix(7)), which like ports belong to the
network namespace, whoever's they are. Both end with the process that holds them.

A program that sets SO_REUSEADDR and listens on any port that it likes can still take one that is
held: then a server does not start, and `stack.servers.listening` starts it again on others.
"""

import errno
import random
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

EVERYWHERE = ""  # the address of all interfaces
LOWEST, HIGHEST = 10_000, 65_535
FEW = 1_000  # a range outside the ephemeral one that is smaller than this is too small to choose in
ATTEMPTS = 1_000
_EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")
_CHOICE = random.SystemRandom()
_FAMILIES = (socket.AF_INET, socket.AF_INET6)
_LISTEN = 10  # TCP_LISTEN (linux/tcp.h)
# linux/netlink.h, linux/sock_diag.h
_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_NLMSG_DONE = 3
_NLM_F_REQUEST, _NLM_F_DUMP = 0x001, 0x300
_ANSWER_BYTES = 65_536


class Listener(NamedTuple):
    """A socket that listens.

    Attributes:
        port: where.
        user: whose it is, a uid.
        inode: which it is, as in `/proc/pid/fd`.
    """

    port: int
    user: int
    inode: int


class PortTakenError(Exception):
    """A port that was named is somebody else's; the message says which."""


class Port:
    """A port that is held for as long as this object lives, or until it is released.

    `str()` gives the number of the moment, so that it can stand in the command or the environment
    of a server that is started again after a `move`.

    Args:
        preferred: is taken if it can be had, else another.
        named: somebody has said that it must be this one.
        address: where the server will listen.

    Attributes:
        number: the port.
        moves: how often it was exchanged for another.

    Raises:
        PortTakenError: `named` is not to be had.
    """

    def __init__(
        self, preferred: int | None = None, *, named: int | None = None, address: str = EVERYWHERE
    ) -> None:
        self._named, self._address = named, address
        self._held: tuple[socket.socket, ...] = ()
        self.moves = 0
        self.number = 0
        wanted = named or preferred
        if wanted is not None and self._take(wanted):
            return
        if named is not None:
            raise PortTakenError(f"port {named} is taken")
        self._choose()

    def __str__(self) -> str:
        return str(self.number)

    def __enter__(self) -> "Port":
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def __del__(self) -> None:
        self.release()

    def move(self) -> None:
        """Exchange it for another: somebody listens on this one.

        Raises:
            PortTakenError: somebody has said that it must be this one.
        """
        if self._named is not None:
            raise PortTakenError(f"port {self._named} is taken")
        before = self._held
        self._choose()
        for held in before:
            held.close()
        self.moves += 1

    def release(self) -> None:
        """Let others have it."""
        for held in self._held:
            held.close()
        self._held = ()

    def _choose(self) -> None:
        below, above = _outside_ephemeral()
        for _ in range(ATTEMPTS):
            index = _CHOICE.randrange(len(below) + len(above))
            if self._take(below[index] if index < len(below) else above[index - len(below)]):
                return
        raise OSError(errno.EADDRINUSE, "no TCP port can be had: everything tried is taken")

    def _take(self, number: int) -> bool:
        mark = socket.socket(socket.AF_UNIX)
        holder = socket.socket()
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            mark.bind(f"\0order-fellow-port-{number}")
            holder.bind((self._address, number))
        except OSError as error:
            mark.close()
            holder.close()
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                return False
            raise
        self.number, self._held = number, (mark, holder)
        return True


class Address:
    """The address of a port of loopback; `str()` gives the one of the moment.

    Args:
        port: it may move.
        form: with `{}` where the port stands.
    """

    def __init__(self, port: Port, form: str = "http://127.0.0.1:{}") -> None:
        self._port, self._form = port, form

    def __str__(self) -> str:
        return self._form.format(self._port)


def listeners() -> list[Listener]:
    """All sockets that listen for TCP here, at whatever address.

    The kernel is asked for just these (sock_diag(7)): `/proc/net/tcp` walks through its table of
    connections, which takes 30 ms on some machines however few there are. That is read where the
    kernel cannot be asked, as `ss` does.
    """
    try:
        return [found for family in _FAMILIES for found in _ask_kernel(family)]
    except OSError:
        return [found for table in ("tcp", "tcp6") for found in _read_table(table)]


def _ask_kernel(family: int) -> Iterator[Listener]:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG) as kernel:
        # struct inet_diag_req_v2, whose address part is of no interest.
        wanted = struct.pack("=BBxxI48x", family, socket.IPPROTO_TCP, 1 << _LISTEN)
        header = struct.pack(
            "=IHHII", 16 + len(wanted), _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST | _NLM_F_DUMP, 1, 0
        )
        kernel.send(header + wanted)
        while True:
            answer = kernel.recv(_ANSWER_BYTES)
            at = 0
            while at < len(answer):
                length, kind = struct.unpack_from("=IH", answer, at)
                if kind == _NLMSG_DONE:
                    return
                if kind != _SOCK_DIAG_BY_FAMILY:
                    raise OSError("the kernel does not answer about TCP sockets")
                # struct inet_diag_msg, after a header of 16 bytes: the port, the user, the inode.
                (port,) = struct.unpack_from("!H", answer, at + 20)
                user, inode = struct.unpack_from("=II", answer, at + 80)
                yield Listener(port, user, inode)
                at += length + 3 & ~3


def _read_table(table: str) -> Iterator[Listener]:
    try:
        lines = Path(f"/proc/net/{table}").read_text().splitlines()[1:]
    except FileNotFoundError:  # no IPv6 here
        return
    for fields in map(str.split, lines):
        if int(fields[3], 16) == _LISTEN:
            port = int(fields[1].rpartition(":")[2], 16)
            yield Listener(port, int(fields[7]), int(fields[9]))


def _outside_ephemeral() -> tuple[range, range]:
    """The ports below and above the range that outgoing connections take theirs from."""
    try:
        low, high = map(int, _EPHEMERAL.read_text().split())
    except OSError:  # some sandboxes hide it
        low, high = LOWEST, HIGHEST
    below, above = range(LOWEST, low), range(max(high + 1, LOWEST), HIGHEST + 1)
    if len(below) + len(above) < FEW:
        return range(LOWEST, HIGHEST + 1), range(0)
    return below, above
