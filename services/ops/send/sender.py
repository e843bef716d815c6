"""Signs and sends orders as a business does, concurrently, with retries."""

import asyncio
import contextlib
import json
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import httpx

from shared.intake.order_files import Line
from shared.security.networks import is_this_machine
from shared.security.sender_signing import api_key_headers

PATH = "/api/v1/webhooks/orders/"
ANSWER_SECONDS = 30.0
TRIES = 10  # per order
LONGEST_WAIT = 60.0  # seconds between two tries, whatever `Retry-After` says
# After one of these codes every further order would fail too.
FATAL = frozenset({"missing_authentication", "invalid_api_key", "invalid_signature",
                   "secret_expired"})  # fmt: skip
UNSENT, UNREACHABLE = "not_sent", "unreachable"


class ProxyError(Exception):
    """The proxy that the environment names cannot be used; the message says why."""


@dataclass(slots=True)
class Failure:
    """An order that was not accepted.

    Attributes:
        line: the order.
        code: the API's error code, or `not_json`, `unreachable` or `not_sent`.
        error: the API's message, or this program's.
    """

    line: Line
    code: str
    error: str


@dataclass(slots=True)
class Summary:
    """The result of sending a file.

    Attributes:
        accepted: the number of orders that were answered 201.
        failures: the other orders.
        warned: the API's warnings about accepted orders, with the number of orders of each.
        retries: the number of repeated requests.
        latencies: the response times of accepted orders, in seconds.
        seconds: the total duration.
    """

    accepted: int = 0
    failures: list[Failure] = field(default_factory=list)
    warned: Counter[str] = field(default_factory=Counter)
    retries: int = 0
    latencies: list[float] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def refused(self) -> Counter[str]:
        """The number of failures by code."""
        return Counter(failure.code for failure in self.failures)

    def latency(self, share: float) -> float:
        """Return the response time, in seconds, of a percentile (`share`, 0 to 1)."""
        ordered = sorted(self.latencies)
        return ordered[min(int(share * len(ordered)), len(ordered) - 1)] if ordered else 0.0


class Sender:
    """Sends the orders of one file.

    Args:
        url: the API's address, without a path.
        secret: the whole `whsk_` string.
        connections: the number of concurrent requests.
        rate: the limit of orders per second; 0 for none.
        progress: called after each order with the summary so far.
        transport: replaces the network in tests.

    Raises:
        ProxyError: the proxy that the environment names cannot be used.
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
        self._client = _client(httpx.URL(url), connections, transport)
        self._pause = 1 / rate if rate else 0.0
        self._progress = progress
        self._next_slot = 0.0
        self._last: dict[str, asyncio.Event] = {}  # by order: set once its last line is answered
        self._stop_reason = ""
        self._stopping = asyncio.Event()
        self.summary = Summary()

    def stop(self, reason: str) -> None:
        """Send no further requests; those in progress are completed."""
        self._stop_reason = self._stop_reason or reason
        self._stopping.set()

    async def send(self, lines: Sequence[Line]) -> Summary:
        """Send all lines; returns when each is accepted, refused or given up."""
        started = time.monotonic()
        waiting = iter(lines)
        async with self._client as client:
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
                await self._send_in_order(client, line)
            self._progress(self.summary)

    async def _send_in_order(self, client: httpx.AsyncClient, line: Line) -> None:
        """Send a line after the earlier lines of its order, since the last update wins."""
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
            await self._wait_for_slot()
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
                    self.summary.warned.update(_warnings(answer))
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

    async def _wait_for_slot(self) -> None:
        """Wait for the next slot of the rate limit."""
        if self._pause:
            slot = max(time.monotonic(), self._next_slot)
            self._next_slot = slot + self._pause
            await self._sleep(slot - time.monotonic())

    async def _sleep(self, seconds: float) -> None:
        """Sleep until the time is over, or sending is stopped."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(seconds, 0.0)):
                await self._stopping.wait()

    def _sign(self, line: Line) -> dict[str, str]:
        return {
            "Content-Type": "application/json",
            "Idempotency-Key": line.key,
            **api_key_headers(self._secret, line.body),
        }

    def _fail(self, line: Line, code: str, error: str) -> None:
        self.summary.failures.append(Failure(line, code, error))


def _client(
    url: httpx.URL, connections: int, transport: httpx.AsyncBaseTransport | None
) -> httpx.AsyncClient:
    """Return a client that uses a proxy only with TLS, which hides the secret from it."""
    limits = httpx.Limits(max_connections=connections)
    may_use_proxy = url.scheme == "https" and not is_this_machine(url.host)
    if not may_use_proxy:
        # A client with a transport ignores proxies, but still reads SSL_CERT_FILE.
        transport = transport or httpx.AsyncHTTPTransport(limits=limits)
    try:
        return httpx.AsyncClient(
            limits=limits, timeout=ANSWER_SECONDS, transport=transport, trust_env=may_use_proxy
        )
    except (ImportError, ValueError, httpx.InvalidURL) as error:
        raise ProxyError(str(error)) from None


def _order_of(body: bytes) -> str:
    """Return the identifier of a line's order; empty if it has none."""
    fields = json.loads(body)
    if isinstance(fields.get("type"), str) and isinstance(fields.get("data"), dict):
        fields = fields["data"]
    return str(fields.get("order_number") or fields.get("order_id") or "").strip()


def _warnings(answer: httpx.Response) -> list[str]:
    """Return the API's warnings; none if a proxy answered in another form."""
    try:
        return [str(sentence) for sentence in answer.json().get("warnings", ())]
    except (ValueError, AttributeError, TypeError):
        return []


def _reason(answer: httpx.Response) -> tuple[str, str]:
    """Return an error's code and message; the status if a proxy answered in another form."""
    try:
        body = answer.json()
        return str(body["code"]), str(body["error"])
    except (ValueError, KeyError, TypeError):
        return f"http_{answer.status_code}", answer.reason_phrase


def _retry_after(answer: httpx.Response) -> float:
    """Return the seconds to wait (RFC 9110, 10.2.3); 1 for a date, which the API never sends."""
    given = answer.headers.get("Retry-After", "")
    return min(float(given), LONGEST_WAIT) if given.isdecimal() else 1.0
