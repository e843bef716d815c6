"""Requests at a steady rate, whatever the answers do (an open loop).

A request's latency counts from when it was due, and not from when a connection was free for it: a
stall is felt by all who were due meanwhile, as it would be outside (no coordinated omission).

`python -m bench.load.steady` is the process that does it, so that it shares no interpreter.
"""

import asyncio
import json
import subprocess
import sys
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httptools
import uvloop

from bench.load import orders

CREATED = 201
PATIENCE = 10.0  # seconds for the last answers


def run(
    url: str, requests: Path, *, rate: float, seconds: float, connections: int = 256
) -> dict[str, Any]:
    """Load `url` at a rate and return what was measured.

    Args:
        url: where every request goes.
        requests: a file of signed requests; see `orders.write`. They are sent in turn.
        rate: requests a second.
        seconds: for how long.
        connections: at most so many requests are under way; further ones wait, and that counts.

    Returns:
        `p50`, `p99` and `max` in milliseconds; `began_at` and, by request, `answered_at`, in
        seconds since 1970; 0 is a request that had no 201.

    Raises:
        RuntimeError: a request was refused or had no answer.
    """
    found = attempt(url, requests, rate=rate, seconds=seconds, connections=connections)
    if found["problem"]:
        raise RuntimeError(f"the steady load ended early: {found['problem']}")
    return found


def attempt(
    url: str, requests: Path, *, rate: float, seconds: float, connections: int = 256
) -> dict[str, Any]:
    """What `run` does, where a refusal is something to be told and not an error.

    Returns:
        The same, and `problem`: in words, empty when each request was answered 201.

    Raises:
        RuntimeError: the load could not be made.
    """
    command = (sys.executable, "-m", "bench.load.steady", url, str(requests),
               str(rate), str(seconds), str(connections))  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"there was no steady load: {done.stderr.strip()[-500:]}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


class _Connection(asyncio.Protocol):
    """One kept connection: a request at a time."""

    def __init__(self, load: "_Load") -> None:
        self._load = load
        self._transport: Any = None
        self._parser = httptools.HttpResponseParser(self)
        self._number = 0

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def connection_lost(self, _: Exception | None) -> None:
        self._load.broken.append("a connection was closed")

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def send(self, number: int, content: bytes) -> None:
        self._number = number
        self._transport.write(content)

    def on_message_complete(self) -> None:
        """Called by httptools."""
        status = self._parser.get_status_code()
        self._parser = httptools.HttpResponseParser(self)
        self._load.answered(self, self._number, status)

    def close(self) -> None:
        self._transport.abort()


class _Load:
    def __init__(self, contents: Sequence[bytes], rate: float, count: int) -> None:
        self._contents = contents
        self._rate = rate
        self._count = count
        self._idle: list[_Connection] = []
        self._waiting: deque[int] = deque()
        self._under_way = 0
        self._begin = 0.0
        self.began_at = 0.0
        self.latencies: list[float] = []
        self.answered_at = [0.0] * count
        self.broken: list[str] = []
        self.problem = ""

    async def run(self, host: str, port: int, connections: int) -> None:
        loop = asyncio.get_running_loop()
        for _ in range(connections):
            _, made = await loop.create_connection(lambda: _Connection(self), host, port)
            self._idle.append(made)
        everyone = list(self._idle)
        self._begin, self.began_at = time.perf_counter(), time.time()
        due = 0
        while due < self._count and not self.broken:
            now = min(int((time.perf_counter() - self._begin) * self._rate) + 1, self._count)
            self._waiting.extend(range(due, now))
            due = now
            self._send()
            await asyncio.sleep(0.001)
        # The first refusal ends the load; what is under way has its answer all the same.
        deadline = time.monotonic() + PATIENCE
        while self._under_way and time.monotonic() < deadline:  # noqa: ASYNC110 - of many ends
            await asyncio.sleep(0.001)
        if self._under_way:
            self.broken.append(f"{self._under_way} requests had no answer in {PATIENCE:g} s")
        self.problem = self.broken[0] if self.broken else ""
        for connection in everyone:
            connection.close()

    def answered(self, connection: _Connection, number: int, status: int) -> None:
        self._under_way -= 1
        if status == CREATED:
            self.latencies.append(time.perf_counter() - self._begin - number / self._rate)
            self.answered_at[number] = time.time()
        else:
            self.broken.append(f"a request was answered {status}")
        self._idle.append(connection)
        self._send()

    def _send(self) -> None:
        while self._waiting and self._idle and not self.broken:
            number = self._waiting.popleft()
            self._under_way += 1
            # The one that has rested longest: all are used in turn, and so all workers.
            self._idle.pop(0).send(number, self._contents[number % len(self._contents)])


def _contents(requests: Path, url: str) -> list[bytes]:
    """Every request as it travels."""
    return [orders.as_sent(url, signed) for signed in orders.read(requests)]


async def _run(url: str, requests: Path, rate: float, seconds: float, connections: int) -> None:
    parts = urlsplit(url)
    load = _Load(_contents(requests, url), rate, int(rate * seconds))
    await load.run(parts.hostname or "", parts.port or 80, connections)
    ordered = sorted(load.latencies) or [0.0]
    found: dict[str, Any] = {
        name: ordered[min(int(len(ordered) * share), len(ordered) - 1)] * 1_000
        for name, share in (("p50", 0.5), ("p99", 0.99), ("max", 1.0))
    }
    found |= {"began_at": load.began_at, "answered_at": load.answered_at, "problem": load.problem}
    print(json.dumps(found))


if __name__ == "__main__":
    uvloop.run(
        _run(sys.argv[1], Path(sys.argv[2]), float(sys.argv[3]), float(sys.argv[4]),
             int(sys.argv[5]))
    )  # fmt: skip
