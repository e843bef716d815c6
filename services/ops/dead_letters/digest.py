"""What the last look at a long dead queue saw, for pages that would take seconds to look again.

A quorum queue has no index: to find one letter, every one before it is fetched and given back. So
the console looks through a long queue in the background, and pages ask what that saw, and say when
it was. What is done to a letter is done at the queue, to the letter that is there then. A short
queue is looked through itself.

Nothing of a person is kept that would have to be erased: no body, a reason without its addresses,
and of a customer's address a hash under a key that this process alone has.
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
from services.ops.broker.queue_lock import turn
from services.ops.dead_letters import search
from services.ops.dead_letters.letter import Criteria, Letter, Line
from services.ops.dead_letters.search import PAGE, Page, Summary
from shared.bus.broker import queue_counts
from shared.bus.broker.kombu_connection import user_of
from shared.bus.broker.queue_counts import Count
from shared.bus.contract import topology
from shared.validation.email_addresses import compared

FEW = 500
"""Letters that are looked through while somebody waits."""
MOST = 20_000
"""Lines of a queue that are kept: about 15 MB."""
REASON_CHARACTERS = 1_000
CHANGED_SECONDS, ASKED_SECONDS, UNASKED_SECONDS = 10.0, 60.0, 300.0
"""From one look to the next: where the number of letters is another, where it is the same, and
where nobody asks."""
REST = 10.0
"""Between two looks at a queue, so many times as long as the last one took."""
LOOK_SECONDS = 4.0
"""For one look, which nobody who waits for the turn need wait out (`queue_lock.PATIENCE`): of a
queue that takes longer the first letters are kept."""
ASKED_LATELY = 600.0
USED_SECONDS = 900.0
"""What is older is not shown: nobody could look for so long."""
_CHUNK = 500


@dataclass(frozen=True, slots=True)
class Digest:
    """What was seen of a queue.

    Attributes:
        lines: of its letters, in their order.
        total: how many letters there were.
        at: when it was looked through.
        customers: of the addresses of customers in them, hashes.
        hidden: the reasons in `lines` of which something is left out.
        since: the same as `at`, by the monotonic clock.
    """

    lines: tuple[Line, ...]
    total: int
    at: datetime
    customers: frozenset[bytes]
    hidden: frozenset[str]
    since: float


class Digests:
    """The newest digest of each long dead queue; for several threads.

    Args:
        broker: a connection to the broker, for as long as its context lasts.
        hides: makes of a reason one without addresses.
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
        self._looks: dict[str, tuple[float, float]] = {}
        """Of each queue the last look: since when, by the monotonic clock, and how long it took."""
        self._key = secrets.token_bytes(32)
        self._stopping = threading.Event()

    def stop(self) -> None:
        """End the look that is under way."""
        self._stopping.set()

    def keep(self, counts: Mapping[str, Count]) -> None:
        """Look through each queue whose digest is too old; one after the other.

        Args:
            counts: what is in each queue, as far as that is known.
        """
        for queue in topology.WORK_QUEUES:
            found = counts.get(queue.dead)
            if found is None or found.consumers:
                continue  # what somebody has in hand is counted by nobody
            if found.ready <= FEW:
                self._kept.pop(queue.name, None)
            elif self._is_due(queue, found.ready):
                with self._broker() as connection:
                    self.look(connection, queue)

    def look(self, connection: Connection, queue: topology.Queue) -> None:
        """Look through a queue now, unless somebody else is at work there.

        Args:
            connection: an open kombu connection.
            queue: the work queue.
        """
        began, at = time.monotonic(), datetime.now(UTC)
        lines: list[Line] = []
        customers: set[bytes] = set()
        hidden: set[str] = set()
        user = user_of(connection)
        with turn(queue.dead, 0.0) as is_free:
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
                    if time.monotonic() - began > LOOK_SECONDS:
                        break
                total, alone = held.ready, held.alone
        self._looks[queue.name] = (began, time.monotonic() - began)
        if alone:
            self._kept[queue.name] = Digest(
                tuple(lines), total, at, frozenset(customers), frozenset(hidden), began
            )

    def forget(self, queue: topology.Queue) -> None:
        """Forget what was seen of a queue, since its letters were dealt with."""
        self._kept.pop(queue.name, None)
        self._looks.pop(queue.name, None)

    def browse(
        self,
        connection: Connection,
        queue: topology.Queue,
        criteria: Criteria = Criteria(),  # noqa: B008 - immutable
        *,
        start: int = 0,
        limit: int = PAGE,
    ) -> Page[Line] | Page[Letter]:
        """A page of a queue's dead letters, of its digest where that can tell.

        Args:
            connection: an open kombu connection.
            queue: the work queue.
            criteria: which of them.
            start: the position to begin at.
            limit: how many letters at most.
        """
        now = datetime.now(UTC)
        count, digest = self._of(connection, queue)
        if digest is None or not _tells(digest, criteria, now):
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
        """What the letters of a queue died of, by its digest where it has one.

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
        """The first letter with an id, by its queue's digest; None where that has none.

        Args:
            connection: an open kombu connection.
            queue: the work queue.
            message_id: of the letter.
        """
        _, digest = self._of(connection, queue)
        lines = digest.lines if digest else ()
        return next((line for line in lines if line.message_id == message_id), None)

    def seen_without(
        self, connection: Connection, queue: topology.Queue, address: str
    ) -> datetime | None:
        """When no letter of a queue was about a customer; None where that is to be looked for.

        Args:
            connection: an open kombu connection.
            queue: the work queue.
            address: the customer's, in whatever case.
        """
        count, digest = self._of(connection, queue)
        if digest is None or not len(digest.lines) == digest.total == count.ready:
            return None
        return None if self._hash(compared(address)) in digest.customers else digest.at

    def _of(self, connection: Connection, queue: topology.Queue) -> tuple[Count, Digest | None]:
        """What is in a dead queue, and its digest where it has one to go by."""
        with connection.channel() as channel:
            count = queue_counts.of(channel, queue.dead, ANSWER_SECONDS)
        now = time.monotonic()
        self._asked[queue.name] = now
        digest = self._kept.get(queue.name)
        is_old = digest is None or now - digest.since > USED_SECONDS
        # Of a queue that somebody holds nobody else sees how long it is.
        is_short = count.ready <= FEW and not count.consumers
        return count, None if is_short or is_old else digest

    def _is_due(self, queue: topology.Queue, letters: int) -> bool:
        if queue.name not in self._looks:
            return True
        now, digest = time.monotonic(), self._kept.get(queue.name)
        if digest is not None and now - self._asked.get(queue.name, float("-inf")) > ASKED_LATELY:
            wait = UNASKED_SECONDS
        elif digest is None or letters != digest.total:
            wait = CHANGED_SECONDS
        else:
            wait = ASKED_SECONDS
        since, took = self._looks[queue.name]
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


def _tells(digest: Digest, criteria: Criteria, now: datetime) -> bool:
    """Whether what is left out of reasons changes nothing: the words may have been in it."""
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
    """The address of the customer that a body is about; None where it is about none."""
    try:
        about = _ABOUT.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return compared(about.customer_details.email) if about.customer_details else None
