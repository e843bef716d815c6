"""Signing and sending orders as a business does, many at a time, until each has its answer."""

import asyncio
import contextlib
import hashlib
import hmac
import json
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import httpx

from shared.intake.order_files import Line

PATH = "/api/v1/webhooks/orders/"
ANSWER_SECONDS = 30.0
TRIES = 10  # for an order, before it is given up
LONGEST_WAIT = 60.0  # seconds between two of them, whatever `Retry-After` says
# No further order can fare better after one of these.
FATAL = frozenset({"missing_authentication", "invalid_api_key", "invalid_signature",
                   "secret_expired"})  # fmt: skip
UNSENT, UNREACHABLE = "not_sent", "unreachable"


@dataclass(slots=True)
class Failure:
    """An order that was not accepted.

    Attributes:
        line: the order.
        code: the API's, or `not_json`, `unreachable` or `not_sent`.
        error: the API's sentence, or ours.
    """

    line: Line
    code: str
    error: str


@dataclass(slots=True)
class Summary:
    """What became of a file.

    Attributes:
        accepted: how many orders were answered 201.
        failures: the others.
        retries: how often an order was sent again.
        latencies: seconds from sending to the answer, of those accepted.
        seconds: all of it took.
    """

    accepted: int = 0
    failures: list[Failure] = field(default_factory=list)
    retries: int = 0
    latencies: list[float] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def refused(self) -> Counter[str]:
        """How many failed, by code."""
        return Counter(failure.code for failure in self.failures)

    def latency(self, share: float) -> float:
        """The latency, in seconds, that `share` of the accepted orders did not exceed."""
        ordered = sorted(self.latencies)
        return ordered[min(int(share * len(ordered)), len(ordered) - 1)] if ordered else 0.0


class Sender:
    """Sends the orders of one file.

    Args:
        url: of the API, without a path.
        secret: the whole `whsk_` string.
        connections: how many orders may be under way at once.
        rate: orders a second at most; 0 for no limit.
        progress: called after each order with what is known so far.
        transport: for tests.
    """

    def __init__(
        self,
        url: str,
        secret: str,
        *,
        connections: int = 8,
        rate: float = 0.0,
        progress: Callable[[Summary], None] = lambda _: None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._url = url.rstrip("/") + PATH
        self._secret = secret
        self._connections = connections
        self._pause = 1 / rate if rate else 0.0
        self._progress = progress
        self._transport = transport
        self._next_slot = 0.0
        self._last: dict[str, asyncio.Event] = {}  # of an order's lines, set once it has its answer
        self._stop_reason = ""
        self._stopping = asyncio.Event()
        self.summary = Summary()

    def stop(self, reason: str) -> None:
        """Send nothing more; what is under way gets its answer."""
        self._stop_reason = self._stop_reason or reason
        self._stopping.set()

    async def send(self, lines: Sequence[Line]) -> Summary:
        """Send them all, and return when each is accepted, refused or given up."""
        started = time.monotonic()
        waiting = iter(lines)
        limits = httpx.Limits(max_connections=self._connections)
        async with httpx.AsyncClient(
            limits=limits, timeout=ANSWER_SECONDS, transport=self._transport
        ) as client:
            await asyncio.gather(
                *(self._work(client, waiting) for _ in range(min(self._connections, len(lines))))
            )
        for line in waiting:
            self._fail(line, UNSENT, self._stop_reason)
        self.summary.failures.sort(key=lambda failure: failure.line.number)
        self.summary.seconds = time.monotonic() - started
        return self.summary

    async def _work(self, client: httpx.AsyncClient, waiting: Iterator[Line]) -> None:
        while not self._stop_reason:
            line = next(waiting, None)
            if line is None:
                return
            if line.problem:
                self._fail(line, "not_json", line.problem)
            else:
                await self._send_in_turn(client, line)
            self._progress(self.summary)

    async def _send_in_turn(self, client: httpx.AsyncClient, line: Line) -> None:
        """Send a line when those before it of the same order are done: the later update counts."""
        order = _order_of(line.body)
        before = self._last.get(order)
        done = asyncio.Event()
        if order:
            self._last[order] = done
        try:
            if before is not None:
                await before.wait()
            await self._send_one(client, line)
        finally:
            done.set()
            if self._last.get(order) is done:
                del self._last[order]

    async def _send_one(self, client: httpx.AsyncClient, line: Line) -> None:
        code, error = UNSENT, self._stop_reason
        for attempt in range(TRIES):
            await self._turn()
            if self._stop_reason:
                break
            self.summary.retries += attempt > 0
            began = time.monotonic()
            try:
                answer = await client.post(self._url, content=line.body, headers=self._sign(line))
            except httpx.TransportError as unreachable:
                code, error = UNREACHABLE, f"{type(unreachable).__name__}: {unreachable}"
                wait = min(2.0**attempt, LONGEST_WAIT)
            else:
                if answer.status_code == 201:
                    self.summary.accepted += 1
                    self.summary.latencies.append(time.monotonic() - began)
                    return
                code, error = _reason(answer)
                if answer.status_code not in (429, 503):
                    break
                wait = _retry_after(answer)
            if attempt + 1 < TRIES:
                await self._sleep(wait * random.uniform(1.0, 1.2))  # noqa: S311 - jitter
        if code in FATAL:
            self.stop(f"{code}: {error}")
        self._fail(line, code, error or self._stop_reason)

    async def _turn(self) -> None:
        """Wait for this order's turn, where there is a rate to keep."""
        if self._pause:
            slot = max(time.monotonic(), self._next_slot)
            self._next_slot = slot + self._pause
            await self._sleep(slot - time.monotonic())

    async def _sleep(self, seconds: float) -> None:
        """Sleep, but not on when all is to stop."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(seconds, 0.0)):
                await self._stopping.wait()

    def _sign(self, line: Line) -> dict[str, str]:
        signature = hmac.new(self._secret.encode(), line.body, hashlib.sha256).hexdigest()
        return {
            "Content-Type": "application/json",
            "X-API-Key": self._secret,
            "X-Webhook-Signature": signature,
            "Idempotency-Key": line.key,
        }

    def _fail(self, line: Line, code: str, error: str) -> None:
        self.summary.failures.append(Failure(line, code, error))


def _order_of(body: bytes) -> str:
    """What a line calls its order; empty where it has no name."""
    said = json.loads(body)
    if isinstance(said.get("type"), str) and isinstance(said.get("data"), dict):
        said = said["data"]
    return str(said.get("order_number") or said.get("order_id") or "").strip()


def _reason(answer: httpx.Response) -> tuple[str, str]:
    """Code and sentence of an error; something in between may answer in another form."""
    try:
        body = answer.json()
        return str(body["code"]), str(body["error"])
    except (ValueError, KeyError, TypeError):
        return f"http_{answer.status_code}", answer.reason_phrase


def _retry_after(answer: httpx.Response) -> float:
    """Seconds to wait (RFC 9110, 10.2.3; a date there, which we never send, counts as a second)."""
    given = answer.headers.get("Retry-After", "")
    return min(float(given), LONGEST_WAIT) if given.isdecimal() else 1.0
