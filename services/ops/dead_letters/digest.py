"""Digests of long dead queues, kept for pages that would take seconds to read the queue.

A quorum queue has no index: to find one letter, a tool fetches every letter before it and returns
them. The console therefore reads a long queue in the background, and its pages show that digest and
its time. An action on a letter works on the queue itself, with the letters that are there then.
Short queues are read directly.

A digest keeps no personal data that an erasure would have to remove: no bodies, reasons without
their addresses, and customers' addresses only as hashes under a key that this process alone has.
"""

import hmac
import secrets
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import msgspec
from kombu import Connection

from services.ops.broker.hold import ANSWER_SECONDS, hold
from services.ops.broker.queue_lock import locked
from services.ops.dead_letters import search
from services.ops.dead_letters.letter import Criteria, Letter, Line
from services.ops.dead_letters.search import PAGE, Page, Summary
from shared.bus.broker import queue_counts
from shared.bus.broker.kombu_connection import user_of
from shared.bus.broker.queue_counts import Count
from shared.bus.contract import topology
from shared.validation.email_addresses import compared

FEW = 500
"""Up to so many letters a queue is read while the user waits."""
MOST = 20_000
"""Letters kept of a queue: about 15 MB."""
REASON_CHARACTERS = 1_000
CHANGED_SECONDS, ASKED_SECONDS, UNASKED_SECONDS = 10.0, 60.0, 300.0
"""Age at which a digest is renewed: if the number of letters changed, if it did not, and if no page
used the digest within `ASKED_LATELY`."""
REST = 10.0
"""Pause between two reads of a queue, as a multiple of the last read's duration."""
READ_SECONDS = 4.0
"""Limit of one read, below `queue_lock.LOCK_TIMEOUT`, so that no other tool times out on its lock.
Of a slower queue the first letters are kept."""
ASKED_LATELY = 600.0
USED_SECONDS = 900.0
"""Age beyond which a digest is no longer used."""
_CHUNK = 500


@dataclass(frozen=True, slots=True)
class Digest:
    """The contents of a dead queue at one time.

    Attributes:
        lines: its letters, in queue order.
        total: the number of letters in the queue.
        at: the time of the read.
        customers: hashes of the customer addresses in the letters.
        hidden: the reasons in `lines` that are redacted or cut.
        since: the same time as `at`, by the monotonic clock.
    """

    lines: tuple[Line, ...]
    total: int
    at: datetime
    customers: frozenset[bytes]
    hidden: frozenset[str]
    since: float


class Digests:
    """The newest digest of each long dead queue; thread-safe.

    Args:
        broker: opens a connection to the broker, for the duration of the context.
        hides: removes the addresses from a reason.
    """

    def __init__(
        self,
        broker: Callable[[], AbstractContextManager[Connection]],
        hides: Callable[[str], str],
    ) -> None:
        self._broker = broker
        self._hides = hides
        self._kept: dict[str, Digest] = {}
        self._asked: dict[str, float] = {}
        self._reads: dict[str, tuple[float, float]] = {}
        """The start, by the monotonic clock, and duration of each queue's last read."""
        self._key = secrets.token_bytes(32)
        self._stopping = threading.Event()

    def stop(self) -> None:
        """Abort the current read."""
        self._stopping.set()

    def keep(self, counts: Mapping[str, Count]) -> None:
        """Renew, one after the other, the digests that are too old.

        Args:
            counts: the counts of the queues, as far as they are known.
        """
        for queue in topology.WORK_QUEUES:
            found = counts.get(queue.dead)
            if found is None or found.consumers:
                continue  # the count lacks what a consumer holds
            if found.ready <= FEW:
                self._kept.pop(queue.name, None)
            elif self._is_due(queue, found.ready):
                with self._broker() as connection:
                    self.read(connection, queue)

    def read(self, connection: Connection, queue: topology.Queue) -> None:
        """Make a queue's digest now, unless another tool has the queue's lock.

        Args:
            connection: an open kombu connection.
            queue: the work queue.
        """
        began, at = time.monotonic(), datetime.now(UTC)
        lines: list[Line] = []
        customers: set[bytes] = set()
        hidden: set[str] = set()
        user = user_of(connection)
        with locked(queue.dead, 0.0) as is_free:
            if not is_free:
                return
            with hold(connection, queue.dead, MOST) as held:
                while messages := held.take(_CHUNK):
                    if self._stopping.is_set():
                        return
                    for message in messages:
                        letter = Letter.of(queue, message, len(lines), user)
                        lines.append(line := self._line(letter))
                        if line.reason != letter.reason:
                            hidden.add(line.reason)
                        if (address := _customer(letter.incoming.body)) is not None:
                            customers.add(self._hash(address))
                    if time.monotonic() - began > READ_SECONDS:
                        break
                total, alone = held.ready, held.alone
        self._reads[queue.name] = (began, time.monotonic() - began)
        if alone:
            self._kept[queue.name] = Digest(
                tuple(lines), total, at, frozenset(customers), frozenset(hidden), began
            )

    def forget(self, queue: topology.Queue) -> None:
        """Drop a queue's digest, after an action on its letters."""
        self._kept.pop(queue.name, None)
        self._reads.pop(queue.name, None)

    def browse(
        self,
        connection: Connection,
        queue: topology.Queue,
        criteria: Criteria = Criteria(),  # noqa: B008 - immutable
        *,
        start: int = 0,
        limit: int = PAGE,
    ) -> Page[Line] | Page[Letter]:
        """Return a page of a queue's dead letters, from its digest if that can answer.

        Args:
            connection: an open kombu connection.
            queue: the work queue.
            criteria: selects the letters.
            start: the position to begin at.
            limit: the page's size.
        """
        now = datetime.now(UTC)
        count, digest = self._of(connection, queue)
        if digest is None or not _can_answer(digest, criteria, now):
            return search.browse(connection, queue, criteria, start=start, limit=limit)
        found: list[Line] = []
        position = start
        for line in digest.lines[start:]:
            position += 1
            if criteria.match(line, now):
                found.append(line)
            if len(found) == limit:
                break
        is_end = position >= len(digest.lines)
        return Page(
            tuple(found),
            digest.total if count.consumers else count.ready,
            None if is_end else position,
            alone=not count.consumers,
            unseen=digest.total - len(digest.lines) if is_end else 0,
            looked_at=digest.at,
            seen=digest.total,
        )

    def summarise(self, connection: Connection, queue: topology.Queue) -> Summary:
        """Group a queue's letters by reason, from its digest if it has one.

        Args:
            connection: an open kombu connection.
            queue: the work queue.
        """
        count, digest = self._of(connection, queue)
        if digest is None:
            return search.summarise(connection, queue)
        return Summary(
            search.grouped(digest.lines),
            digest.total,
            len(digest.lines),
            alone=not count.consumers,
            looked_at=digest.at,
        )

    def find(self, connection: Connection, queue: topology.Queue, message_id: str) -> Line | None:
        """Return the first letter with an id in a queue's digest; None if there is none.

        Args:
            connection: an open kombu connection.
            queue: the work queue.
            message_id: the letter's id.
        """
        _, digest = self._of(connection, queue)
        lines = digest.lines if digest else ()
        return next((line for line in lines if line.message_id == message_id), None)

    def seen_without(
        self, connection: Connection, queue: topology.Queue, address: str
    ) -> datetime | None:
        """Return when a queue held no letter about a customer; None if that must be searched.

        Args:
            connection: an open kombu connection.
            queue: the work queue.
            address: the customer's, in any case.
        """
        count, digest = self._of(connection, queue)
        if digest is None or not len(digest.lines) == digest.total == count.ready:
            return None
        return None if self._hash(compared(address)) in digest.customers else digest.at

    def _of(self, connection: Connection, queue: topology.Queue) -> tuple[Count, Digest | None]:
        """Return the counts of a dead queue, and its digest if a usable one exists."""
        with connection.channel() as channel:
            count = queue_counts.of(channel, queue.dead, ANSWER_SECONDS)
        self._asked[queue.name] = time.monotonic()
        if count.consumers:  # its length is unknown, and a digest made now would not be kept
            return count, self._newest(queue)
        if count.ready <= FEW:
            return count, None
        if self._newest(queue) is None:
            # Concurrent requests wait here for one read, instead of each reading the queue.
            with locked(queue.dead) as is_free:
                if is_free and self._newest(queue) is None:
                    self.read(connection, queue)
        return count, self._newest(queue)

    def _newest(self, queue: topology.Queue) -> Digest | None:
        digest = self._kept.get(queue.name)
        is_old = digest is None or time.monotonic() - digest.since > USED_SECONDS
        return None if is_old else digest

    def _is_due(self, queue: topology.Queue, letters: int) -> bool:
        if queue.name not in self._reads:
            return True
        now, digest = time.monotonic(), self._kept.get(queue.name)
        if digest is not None and now - self._asked.get(queue.name, float("-inf")) > ASKED_LATELY:
            wait = UNASKED_SECONDS
        elif digest is None or letters != digest.total:
            wait = CHANGED_SECONDS
        else:
            wait = ASKED_SECONDS
        since, took = self._reads[queue.name]
        return now - since > max(wait, REST * took)

    def _line(self, letter: Letter) -> Line:
        return Line(
            position=letter.position,
            message_id=letter.message_id,
            type=sys.intern(letter.type),
            reason=sys.intern(self._hides(letter.reason)[:REASON_CHARACTERS]),
            kind=sys.intern(letter.kind[:REASON_CHARACTERS]),
            attempts=letter.attempts,
            failed_at=letter.failed_at,
            died_at=letter.died_at,
            correlation_id=letter.correlation_id,
        )

    def _hash(self, address: str) -> bytes:
        return hmac.digest(self._key, address.encode(errors="surrogatepass"), "sha256")[:12]


def _can_answer(digest: Digest, criteria: Criteria, now: datetime) -> bool:
    """Return whether the search finds the same letters despite the redacted and cut reasons."""
    if not criteria.reason or "…" in criteria.reason:  # a kind has no addresses anyway
        return True
    others = replace(criteria, reason="")
    reads_all = criteria.reads is str
    return not any(
        (line.reason in digest.hidden if reads_all else len(line.reason) >= REASON_CHARACTERS)
        and others.match(line, now)
        and not criteria.match(line, now)
        for line in digest.lines
    )


class _Customer(msgspec.Struct):
    email: str = ""


class _About(msgspec.Struct):
    customer_details: _Customer | None = None


_ABOUT: msgspec.json.Decoder[Any] = msgspec.json.Decoder(_About)


def _customer(body: bytes) -> str | None:
    """Return the customer's address in a body; None if it has none."""
    try:
        about = _ABOUT.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return compared(about.customer_details.email) if about.customer_details else None
