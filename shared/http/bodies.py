"""The raw bodies of requests: bounded one by one, in sum, and for each who sends them.

A body that does not end is kept until its time is over. What one connection may keep so is small;
there are as many as anybody opens.
"""

from collections import Counter
from types import TracebackType

from falcon.asgi import Request

from shared.http.callers import client_address
from shared.http.errors import ApiError, overloaded
from shared.http.lanes import SHARES
from shared.security.networks import network_of

UNCOUNTED_BYTES = 65_536
"""Of a known sender's body that says how long it is: as much a connection has of whatever is sent
before anybody reads it (uvicorn's `HIGH_WATER_LIMIT`)."""

CYCLE = "fellow.cycle"
"""In the state of a request in chunks: refers to the server's cycle, which knows if they ended."""
INCOMPLETE = (400, "incomplete_body", "The connection ended before the body did.")


class Room:
    """What a process may keep of the bodies of some senders.

    As in a `Lane`, one of them takes as much as there is while half of it is free, and beyond that
    a share.

    Args:
        most: bytes.

    Attributes:
        held: how many bytes are kept now.
        held_by: of them, how many each sender has, of those that have any.
    """

    __slots__ = ("held", "held_by", "most")

    def __init__(self, most: int) -> None:
        self.most, self.held = most, 0
        self.held_by: Counter[str] = Counter()

    def take(self, sender: str, size: int) -> bool:
        """Count some; returns whether there was room for it."""
        self.held += size
        self.held_by[sender] += size
        is_crowded = self.held > self.most // 2
        has_share = self.held_by[sender] > self.most // SHARES
        return self.held <= self.most and not (is_crowded and has_share)

    def give_back(self, sender: str, size: int) -> None:
        """Count some no longer."""
        self.held -= size
        self.held_by[sender] -= size
        if not self.held_by[sender]:
            del self.held_by[sender]


STRANGERS = Room(64 * 1_048_576)
"""For requests that nobody has vouched for; each network is a sender."""
SIGNED_IN = Room(64 * 1_048_576)
"""For those of accounts and users; each of them is a sender."""


async def read_body(req: Request, limit: int, sender: str) -> bytes:
    """The raw body of a sender who is known, however it is sent.

    Args:
        req: the request.
        limit: how many bytes it may have.
        sender: who; see `Kept`.

    Raises:
        ApiError: as `Kept`.
    """
    length = req.content_length
    if length is not None and length <= min(limit, UNCOUNTED_BYTES):
        body: bytes = await req.stream.read(length)
        _require_whole(req, len(body), length)
        return body
    async with Kept(req, limit, sender) as body:
        return body


async def read_unvouched(req: Request, limit: int) -> bytes:
    """As `read_body`, of anybody; for what is bounded elsewhere once it is whole."""
    async with Kept(req, limit) as body:
        return body


class Kept:
    """The raw body of a request, counted until the context ends.

    Where there is no room, what is not whole yet is refused. What came whole waits for nobody, so
    it is let through: who sends small requests does not notice.

    Args:
        req: the request.
        limit: how many bytes it may have.
        sender: the account or user whose it is; empty where nobody has vouched for it, which
            counts for the client's network.

    Raises:
        ApiError: 413, before anything is read where the length is declared; 400, when the
            connection ended before the body did; 503, when too much is kept already.
    """

    __slots__ = ("_limit", "_req", "_room", "_sender", "_size")

    def __init__(self, req: Request, limit: int, sender: str = "") -> None:
        self._req, self._limit, self._size = req, limit, 0
        self._room = SIGNED_IN if sender else STRANGERS
        self._sender = sender or network_of(client_address(req))

    async def __aenter__(self) -> bytes:
        if (self._req.content_length or 0) > self._limit:
            raise _too_large(self._limit)
        try:
            return await self._read()
        except BaseException:
            self._let_go()
            raise

    async def _read(self) -> bytes:
        pieces: list[bytes] = []
        came = 0
        async for piece in self._req.stream:
            came += len(piece)
            if came <= self._limit:
                pieces.append(piece)
                self._size += len(piece)
                has_room = self._room.take(self._sender, len(piece))
                is_whole = came == self._req.content_length
                if not (has_room or is_whole):
                    raise overloaded()
            else:
                pieces.clear()
                self._let_go()
                # What nobody has read resets the connection, and the answer goes with it (RFC
                # 9112, 9.6).
                if came > 2 * self._limit:
                    break
        if came > self._limit:
            raise _too_large(self._limit)
        _require_whole(self._req, came, self._req.content_length)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def __aexit__(
        self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None
    ) -> None:
        self._let_go()

    def _let_go(self) -> None:
        if self._size:
            self._room.give_back(self._sender, self._size)
            self._size = 0


def _require_whole(req: Request, size: int, length: int | None) -> None:
    """Refuse a body that was cut: it is not to be processed (RFC 9112, 8)."""
    if length is None:
        cycle = req.scope.get("state", {}).get(CYCLE, _no_cycle)()
        # What came after a sender had gone is there, and is given to nobody.
        is_cut = cycle is not None and (cycle.more_body or bool(cycle.body))
    else:
        is_cut = size < length
    if is_cut:
        raise ApiError(*INCOMPLETE)


def _no_cycle() -> None:
    """Of a request that has no body, or did not come by a connection of ours."""


def _too_large(limit: int) -> ApiError:
    return ApiError(413, "body_too_large", f"The body is larger than {limit} bytes.")
