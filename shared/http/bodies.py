"""Reads raw request bodies, with limits per body, per sender and in total.

An incomplete body is kept in memory until its timeout. One connection keeps little, but a client
may open many.
"""

from types import TracebackType

from falcon.asgi import Request

from shared.http.callers import client_address
from shared.http.errors import ApiError, overloaded
from shared.http.lanes import SHARES
from shared.security.networks import network_of

UNCOUNTED_BYTES = 65_536
"""Bodies of known senders with a Content-Length up to this are not counted: uvicorn buffers as much
per connection before it is read (`HIGH_WATER_LIMIT`)."""

CYCLE = "fellow.cycle"
"""Key in the state of a chunked request: a weak reference to uvicorn's cycle, which knows whether
the body is complete."""
INCOMPLETE = (400, "incomplete_body", "The connection ended before the body did.")


class BodyBudget:
    """A memory limit for the bodies of a class of senders.

    As in a `Lane`, one sender may use all of it while at least half is free, and otherwise a share.

    Args:
        most: bytes.

    Attributes:
        held: bytes in use.
        held_by: bytes in use by sender, without those that have none.
    """

    __slots__ = ("held", "held_by", "most")

    def __init__(self, most: int) -> None:
        self.most, self.held = most, 0
        self.held_by: dict[str, int] = {}

    def take(self, sender: str, size: int) -> bool:
        """Add `size` bytes; return whether the sender is within the limits."""
        self.held += size
        self.held_by[sender] = theirs = self.held_by.get(sender, 0) + size
        is_crowded = self.held > self.most // 2
        has_share = theirs > self.most // SHARES
        return self.held <= self.most and not (is_crowded and has_share)

    def give_back(self, sender: str, size: int) -> None:
        """Subtract `size` bytes."""
        self.held -= size
        left = self.held_by.pop(sender) - size
        if left:
            self.held_by[sender] = left


STRANGERS = BodyBudget(64 * 1_048_576)
"""For unauthenticated requests; the sender is the client's network."""
SIGNED_IN = BodyBudget(64 * 1_048_576)
"""For requests of accounts and users; the sender is the account or user."""


async def read_body(req: Request, limit: int, sender: str) -> bytes:
    """Read the raw body of an authenticated sender.

    Args:
        req: the request.
        limit: most bytes.
        sender: the account or user.

    Raises:
        ApiError: see `CountedBody`.
    """
    length = req.content_length
    if length is not None and length <= min(limit, UNCOUNTED_BYTES):
        body: bytes = await req.stream.read(length)
        _require_complete(req, len(body), length)
        return body
    async with CountedBody(req, limit, sender) as body:
        return body


async def read_unvouched(req: Request, limit: int) -> bytes:
    """Read the raw body of an unauthenticated sender; its bytes count only while it is read."""
    async with CountedBody(req, limit) as body:
        return body


class CountedBody:
    """Reads the raw body of a request, whose bytes count until the context ends.

    When the limits are exceeded, incomplete bodies are refused. Bodies that arrived in one piece
    are accepted, so that senders of small requests are not affected.

    Args:
        req: the request.
        limit: most bytes.
        sender: the account or user; empty if unauthenticated, to count for the client's network.

    Raises:
        ApiError: 413 if it is too large, immediately if the length is declared; 400 if the
            connection ended before the body did; 503 if the limits are exceeded.
    """

    __slots__ = ("_budget", "_limit", "_req", "_sender", "_size")

    def __init__(self, req: Request, limit: int, sender: str = "") -> None:
        self._req, self._limit, self._size = req, limit, 0
        self._budget = SIGNED_IN if sender else STRANGERS
        self._sender = sender or network_of(client_address(req))

    async def __aenter__(self) -> bytes:
        length = self._req.content_length
        if length is not None and length > self._limit:
            raise _too_large(self._limit)
        try:
            return await self._read(length)
        except BaseException:
            self._release()
            raise

    async def _read(self, length: int | None) -> bytes:
        pieces: list[bytes] = []
        received = 0
        async for piece in self._req.stream:
            received += len(piece)
            if received <= self._limit:
                pieces.append(piece)
                self._size += len(piece)
                is_within = self._budget.take(self._sender, len(piece))
                if not (is_within or received == length):
                    raise overloaded()
            else:
                pieces.clear()
                self._release()
                # Closing with unread data resets the connection, and the client may lose the
                # response (RFC 9112, 9.6). So some more is read and discarded.
                if received > 2 * self._limit:
                    break
        if received > self._limit:
            raise _too_large(self._limit)
        _require_complete(self._req, received, length)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def __aexit__(
        self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None
    ) -> None:
        self._release()

    def _release(self) -> None:
        if self._size:
            self._budget.give_back(self._sender, self._size)
            self._size = 0


def _require_complete(req: Request, size: int, length: int | None) -> None:
    """Refuse an incomplete body, which must not be processed (RFC 9112, 8)."""
    if length is None:
        cycle = req.scope.get("state", {}).get(CYCLE, _no_cycle)()
        # uvicorn keeps but does not deliver what arrived before a disconnect.
        is_incomplete = cycle is not None and (cycle.more_body or bool(cycle.body))
    else:
        is_incomplete = size < length
    if is_incomplete:
        raise ApiError(*INCOMPLETE)


def _no_cycle() -> None:
    """Stands for the reference of a request without a body, or from a test client."""


def _too_large(limit: int) -> ApiError:
    return ApiError(413, "body_too_large", f"The body is larger than {limit} bytes.")
