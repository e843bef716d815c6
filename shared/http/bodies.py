"""The raw bodies of requests: bounded one by one, and those of strangers in sum.

A body that does not end is kept until its time is over. What one sender may keep so is small; of
senders whom nobody has vouched for yet there are as many as there are connections.
"""

from types import TracebackType

from falcon.asgi import Request

from shared.http.errors import ApiError, overloaded

MOST_UNVOUCHED_BYTES = 64 * 1_048_576
"""Of bodies that a process keeps of requests that nobody has vouched for."""

CYCLE = "fellow.cycle"
"""In the state of a request in chunks: refers to the server's cycle, which knows if they ended."""
INCOMPLETE = (400, "incomplete_body", "The connection ended before the body did.")


async def read_body(req: Request, limit: int) -> bytes:
    """The raw body of a sender who is known, of at most `limit` bytes, however it is sent.

    Raises:
        ApiError: 413, before anything is read where the length is declared; 400, when the
            connection ended before the body did.
    """
    length = req.content_length
    if (length or 0) <= limit:
        body: bytes = await req.stream.read(limit + 1)
        if len(body) <= limit:
            _require_whole(req, len(body), length)
            return body
        # What nobody has read resets the connection, and the answer goes with it (RFC 9112, 9.6).
        await req.stream.read(limit)
    raise _too_large(limit)


async def read_unvouched(req: Request, limit: int) -> bytes:
    """As `read_body`, of anybody; for what is bounded elsewhere once it is whole.

    Raises:
        ApiError: 413; 400, when it did not come whole; 503, when too much of the kind is kept
            already.
    """
    async with Unvouched(req, limit) as body:
        return body


class Unvouched:
    """The raw body of a request that nobody has vouched for; counted until the context ends.

    Beyond `MOST_UNVOUCHED_BYTES` what is not whole yet is refused. What came whole waits for
    nobody, so it is let through: who sends small requests does not notice.

    Args:
        req: the request.
        limit: how many bytes it may have.

    Raises:
        ApiError: 413, before anything is read where the length is declared; 400, when the
            connection ended before the body did; 503.
    """

    __slots__ = ("_limit", "_req", "_size")
    held = 0
    """How many bytes the process keeps now."""

    def __init__(self, req: Request, limit: int) -> None:
        self._req, self._limit, self._size = req, limit, 0

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
                Unvouched.held += len(piece)
                is_whole = came == self._req.content_length
                if Unvouched.held > MOST_UNVOUCHED_BYTES and not is_whole:
                    raise overloaded()
            else:
                pieces.clear()
                self._let_go()
                if came > 2 * self._limit:  # as `read_body`
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
        Unvouched.held -= self._size
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
