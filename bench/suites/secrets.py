"""Webhook secrets: how soon a change is enforced everywhere, and what a hundred thousand cost.

A revocation is timed from the decision, also while the ingress has no bus or no database and while
its clock is wrong.
"""

import asyncio
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import quantiles
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import httpx
from amqp import Message as AmqpMessage
from kombu import Connection
from sqlalchemy import text

from bench.contest import Contender, Result, Series, alternate
from bench.ground import Ground, fetch, ground, until
from bench.load import orders, wrk
from bench.usage import resident
from shared.bus.contract.events import KycDecide
from shared.bus.contract.message import Message, message_for
from shared.ids import new_id
from shared.security import tokens, webhook_keys
from stack.servers.ports import Port
from tests.integration.gate import Gate

PATH = "/api/v1/webhooks/orders/"
FEW, MANY = "64 accounts", "100k accounts"
ACCOUNTS = 100_000
SENDING = 5_000  # of those, so many send in the run
ROTATIONS = 50  # a repeat
REVOCATIONS = 30  # a condition
CONDITIONS = {
    "everything there": 0.1,
    "without the bus": 2.0,
    "without the database": 2.0,
    "its clock 10 min ahead": 2.0,
    "its clock 10 min behind": 2.0,
}
"""What is wrong with the ingress, and the seconds within which it must refuse all the same."""
CONNECTIONS = 16  # among which both workers are for sure
SECONDS = 4
STARTS = 3
PAUSE = 0.005  # seconds, between two looks on a connection
CREATED = 201


def run(say: Callable[[str], None]) -> Result:
    """Measure."""
    result = Result("secrets")
    with ground(("wrk", "wrk"), ("faketime", "faketime")) as on:
        many = on.beside("many")
        many.keys = []
        many.add_senders(ACCOUNTS)
        many.vacuum()
        _enforced(on, result, say)
        _revoked(on, result, say)
        _start(on, many, result, say)
        contenders = [
            Contender(name, _load(where, where.keys[:SENDING], name))
            for name, where in ((FEW, on), (MANY, many))
        ]
        result.series += alternate(contenders, say)
    rate = {name: result.median(name, "orders/s") for name in (FEW, MANY)}
    result.at_least(f"{MANY} against {FEW}", 0.9, rate[MANY] / rate[FEW], "x")
    return result


def _load(on: Ground, keys: Sequence[str], name: str) -> Callable[[], Mapping[str, float]]:
    requests = on.folder / f"requests-{name.split()[0]}"
    orders.write(requests, keys, 20_000)
    url = on.start_ingress()[0] + PATH

    def measure() -> Mapping[str, float]:
        on.purge("orders.intake")
        wrk.run(url, requests, seconds=1)
        return {"orders/s": wrk.run(url, requests, seconds=SECONDS)["rate"]}

    return measure


def _start(on: Ground, many: Ground, result: Result, say: Callable[[str], None]) -> None:
    seconds, memory = [], []
    for _ in range(STARTS):
        empty = _once_started(on)[1]
        taken, full = _once_started(many)
        seconds.append(taken)
        memory.append((full - empty) / 1e6)
    result.series.append(Series(f"ingress start with {MANY}", "s", tuple(seconds)))
    result.series.append(Series(f"memory for {MANY}", "MB", tuple(memory)))
    say(f"  start with {MANY}: {max(seconds):.2f} s, {max(memory):.0f} MB over a worker with few")
    result.at_most(f"ready with {MANY}", 3, max(seconds), "s")
    result.at_most(f"memory for {MANY}", 120, max(memory), "MB over an empty worker")


def _once_started(on: Ground) -> tuple[float, float]:
    """Seconds from the start to readiness, and the bytes that master and worker have then."""
    begin = time.monotonic()
    _, process = on.start_ingress(look_every=0.01)
    seconds = time.monotonic() - begin
    memory = resident(process.pid)
    on.stop(process)
    return seconds, memory


def _enforced(on: Ground, result: Result, say: Callable[[str], None]) -> None:
    url, ingress = on.start_ingress(workers=2)
    relay, service = on.start_service("relay"), on.start_service("secrets")
    revoked, issued = [], []
    with httpx.Client(base_url=url, trust_env=False) as business:
        for turn in range(-1, STARTS):  # the first is to warm up
            waits: list[float] = []
            firsts: list[float] = []
            for number in range(ROTATIONS):  # of one business after the other: a day has a bound
                key = on.keys[number]
                bearer = f"Bearer {tokens.make(_account(on, key), 'access').text}"
                with _Probes(url, key) as probes:
                    answer = business.post(
                        "/api/v1/webhook/secret/",
                        json={"revoke_previous": True},
                        headers={"Authorization": bearer},
                    )
                    at = time.monotonic()
                    on.keys[number] = answer.json()["secret_key"]
                    firsts.append(_first_accepted(url, on.keys[number]) - at)
                waits.append(probes.last_accepted - at)
            if turn < 0:
                continue
            revoked.append(quantiles([1_000 * max(wait, 0) for wait in waits], n=100)[98])
            issued.append(quantiles([1_000 * wait for wait in firsts], n=100)[98])
            say(f"  {turn + 1}/{STARTS}  revoked to refused: p99 {revoked[-1]:.0f} ms; "
                f"issued to accepted: p99 {issued[-1]:.0f} ms")  # fmt: skip
    for process in (ingress, relay, service):
        on.stop(process)
    result.series.append(Series("revoked to refused everywhere", "ms p99", tuple(revoked)))
    result.series.append(Series("issued to accepted everywhere", "ms p99", tuple(issued)))
    result.at_most("revoked to refused in all workers, p99", 100, max(revoked), "ms")
    result.at_most("issued to accepted in all workers, p99", 100, max(issued), "ms")


def _revoked(on: Ground, result: Result, say: Callable[[str], None]) -> None:
    """From an operator's decision to the last order that was accepted anywhere."""
    kept = len(on.keys)
    on.add_senders(REVOCATIONS * len(CONDITIONS))
    keys = on.keys[kept:]
    del on.keys[kept:]
    services = [on.start_service(name) for name in ("kyc", "secrets", "relay")]
    for place, (name, seconds) in enumerate(CONDITIONS.items()):
        waits = []
        with _ingress_with(on, name) as (url, cut):
            theirs = keys[place * REVOCATIONS : (place + 1) * REVOCATIONS]
            for key in theirs:
                _first_accepted(url, key)
            cut()
            for key in theirs:
                decision = KycDecide(
                    decision="revoke", account_id=_account(on, key), reason="A measurement."
                )
                message = message_for(decision, source="bench", correlation_id=new_id())
                with _Probes(url, key) as probes:
                    at = time.monotonic()
                    _decide(on.servers.amqp_url, message)
                waits.append(1_000 * max(probes.last_accepted - at, 0))
        slowest = quantiles(waits, n=100)[98]
        say(f"  decided to refused, {name}: p99 {slowest:.0f} ms")
        result.series.append(Series(f"decided to refused, {name}", "ms", tuple(waits)))
        result.at_most(f"decided to refused, {name}, p99", 1_000 * seconds, slowest, "ms")
    for process in services:
        on.stop(process)


@contextmanager
def _ingress_with(on: Ground, condition: str) -> Iterator[tuple[str, Callable[[], None]]]:
    """An ingress, and what brings the condition about once it knows its secrets."""
    with ExitStack() as stack:
        bus = stack.enter_context(Gate(on.servers.amqp_url))
        database = stack.enter_context(Gate(on.servers.database_url))
        gated = replace(on.servers, amqp_url=bus.url, database_url=database.url)
        environment = gated.for_service("ingress")
        clock = on.folder / "clock"
        clock.write_text("+0")
        port = Port()
        if "clock" in condition:
            # gunicorn's time.sleep does not bear libfaketime, so it is one worker without it.
            metrics = tempfile.mkdtemp(dir=on.folder)
            library = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))
            process = on.start(
                *("-m", "uvicorn", "--factory", "services.ingress.app:create_app"),
                *("--port", str(port)),
                environment=environment
                | {
                    "PROMETHEUS_MULTIPROC_DIR": metrics,
                    "LD_PRELOAD": str(library),
                    "FAKETIME_TIMESTAMP_FILE": str(clock),
                    "FAKETIME_NO_CACHE": "1",
                    "FAKETIME_DONT_FAKE_MONOTONIC": "1",
                },
            )
        else:
            process = on.start(
                "-m",
                "services.ingress",
                environment=environment | {"PORT": str(port), "WEB_CONCURRENCY": "2"},
            )
        url = f"http://127.0.0.1:{port}"
        until(lambda: b'"ready"' in fetch(f"{url}/readyz"), "the ingress is ready")
        cut: dict[str, Callable[[], object]] = {
            "without the bus": bus.cut,
            "without the database": database.cut,
            "its clock 10 min ahead": lambda: clock.write_text("+600"),
            "its clock 10 min behind": lambda: clock.write_text("-600"),
        }
        yield url, lambda: cut.get(condition, lambda: None)()
        on.stop(process)


def _decide(amqp_url: str, message: Message) -> None:
    with Connection(amqp_url) as connection:
        channel: Any = connection.default_channel
        channel.basic_publish_confirm(
            AmqpMessage(message.body, message_id=message.message_id, type=message.type),
            exchange=message.exchange,
            routing_key=message.routing_key,
        )


def _account(on: Ground, key: str) -> UUID:
    with on.engine.connect() as connection:
        found: UUID = connection.execute(
            text("SELECT account_id FROM webhook_secrets WHERE key_hash = :hash"),
            {"hash": webhook_keys.key_hash(key.encode())},
        ).scalar_one()
        return found


class _Probes:
    """Connections that send signed orders, again and again, until each was refused."""

    def __init__(self, url: str, key: str) -> None:
        self._content = _request(url, key)
        self._address = _address(url)
        self._accepted = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)
        self.last_accepted = 0.0
        """When the last one that was accepted was sent, on the monotonic clock."""

    def __enter__(self) -> "_Probes":
        self._thread.start()
        self._accepted.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join()

    async def _run(self) -> None:
        await asyncio.gather(*(self._probe() for _ in range(CONNECTIONS)))

    async def _probe(self) -> None:
        streams = await asyncio.open_connection(*self._address)
        while True:
            sent = time.monotonic()
            if await _status(*streams, self._content) != CREATED:
                break
            self.last_accepted = max(self.last_accepted, sent)
            self._accepted.set()
            await asyncio.sleep(PAUSE)
        streams[1].close()


def _first_accepted(url: str, key: str) -> float:
    """When a new secret was accepted on every connection, on the monotonic clock."""

    async def probe() -> None:
        streams = await asyncio.open_connection(*_address(url))
        while await _status(*streams, _request(url, key)) != CREATED:
            pass
        streams[1].close()

    async def all_of_them() -> None:
        await asyncio.gather(*(probe() for _ in range(CONNECTIONS)))

    asyncio.run(all_of_them())
    return time.monotonic()


async def _status(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, content: bytes
) -> int:
    writer.write(content)
    head = await reader.readuntil(b"\r\n\r\n")
    length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
    await reader.readexactly(int(length))
    return int(head.split()[1])


def _request(url: str, key: str) -> bytes:
    content = orders.body(0)
    return orders.as_sent(url + PATH, orders.signed(key, content))


def _address(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    return parts.hostname or "", parts.port or 80
