"""Reading dead letters, without losing them or changing their order.

Letters are held unacknowledged while they are read, so that a concurrent reader would see fewer;
tools therefore lock the queue, see `queue_lock.py`.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Generic, TypeVar

from kombu import Connection

from services.ops.broker.hold import MOST, BusyError, QueueHold, hold
from services.ops.dead_letters.letter import Criteria, Letter, Line
from shared.bus.broker.kombu_connection import user_of
from shared.bus.contract import topology

PAGE = 100
_CHUNK = 500
_Shown = TypeVar("_Shown", Letter, Line)


class NoSuchQueueError(Exception):
    """No work queue has this name; the message lists the existing ones."""


@dataclass(frozen=True, slots=True)
class Page(Generic[_Shown]):
    """A page of a queue's letters, in queue order.

    Attributes:
        letters: the letters that match the criteria.
        total: the number of letters in the queue, matching or not.
        next: where the next page begins; None after the last letter that can be read.
        alone: false if another tool or consumer held letters, which are missing.
        unseen: the number of letters beyond `hold.MOST`, which cannot be read.
        looked_at: when the queue was read, if the page is from a `digest`.
        seen: the number of letters in the queue then.
    """

    letters: tuple[_Shown, ...]
    total: int
    next: int | None
    alone: bool = True
    unseen: int = 0
    looked_at: datetime | None = None
    seen: int = 0

    @property
    def has_changed(self) -> bool:
        """Whether the number of letters changed since the queue was read."""
        return self.looked_at is not None and self.seen != self.total

    @property
    def is_whole(self) -> bool:
        """Whether the search covered all letters, and no more match."""
        return self.alone and self.next is None and not self.unseen and not self.has_changed


@dataclass(slots=True)
class Group:
    """Letters that died of the same kind of reason.

    Attributes:
        kind: the reason without ids, addresses and numbers; a `Criteria.reason` that finds them.
        type: their type.
        count: their number.
        oldest: the first death.
        newest: the last death.
    """

    kind: str
    type: str
    count: int = 0
    oldest: datetime | None = None
    newest: datetime | None = None


@dataclass(frozen=True, slots=True)
class Summary:
    """A queue's letters, grouped by reason.

    Attributes:
        groups: the groups, the largest first.
        total: the number of letters in the queue.
        seen: how many of them were read; at most `hold.MOST`.
        alone: see `Page`.
        looked_at: see `Page`.
    """

    groups: tuple[Group, ...]
    total: int
    seen: int
    alone: bool = True
    looked_at: datetime | None = None

    @property
    def unseen(self) -> int:
        """See `Page`."""
        return self.total - self.seen


def work_queue(name: str) -> topology.Queue:
    """Return the work queue of a name, which may be that of its dead queue.

    Raises:
        NoSuchQueueError: there is none.
    """
    for queue in topology.WORK_QUEUES:
        if name in (queue.name, queue.dead):
            return queue
    names = ", ".join(queue.name for queue in topology.WORK_QUEUES)
    raise NoSuchQueueError(f"There is no work queue {name!r}. There are: {names}")


def browse(
    connection: Connection,
    queue: topology.Queue,
    criteria: Criteria = Criteria(),  # noqa: B008 - immutable
    *,
    start: int = 0,
    limit: int = PAGE,
) -> Page[Letter]:
    """Return a page of a queue's dead letters.

    Without criteria only the letters up to the page's end are fetched; with some, as many as it
    takes to fill the page.

    Args:
        connection: an open kombu connection.
        queue: the work queue.
        criteria: selects the letters.
        start: the position to begin at: 0, or `Page.next` of the page before.
        limit: the page's size.
    """
    now = datetime.now(UTC)
    found: list[Letter] = []
    position, user = 0, user_of(connection)
    most = start + limit if criteria.is_empty else MOST
    with hold(connection, queue.dead, most) as held:
        for message in _all(held, most):
            position += 1
            if position <= start:
                continue
            letter = Letter.of(queue, message, position - 1, user)
            if criteria.match(letter, now):
                found.append(letter)
            if len(found) == limit:
                break
        left = held.ready - position
        is_end = position >= MOST
        return Page(
            tuple(found),
            held.ready,
            position if left > 0 and not is_end else None,
            held.alone,
            left if is_end else 0,
        )


def find(connection: Connection, queue: topology.Queue, message_id: str) -> Letter | None:
    """Return the first letter with an id; None if there is none.

    Args:
        connection: an open kombu connection.
        queue: the work queue.
        message_id: the letter's id.

    Raises:
        BusyError: it was not found, and not all letters could be read.
    """
    wanted = Criteria(ids=frozenset({message_id}))
    page = browse(connection, queue, wanted, limit=1)
    if not page.letters and not page.is_whole:
        raise BusyError.beyond(queue.dead) if page.unseen else BusyError.of(queue.dead)
    return page.letters[0] if page.letters else None


def summarise(
    connection: Connection,
    queue: topology.Queue,
    criteria: Criteria = Criteria(),  # noqa: B008 - immutable
) -> Summary:
    """Group a queue's letters by the kind of their reason.

    Args:
        connection: an open kombu connection.
        queue: the work queue.
        criteria: selects the letters to count.
    """
    now = datetime.now(UTC)
    seen, user = 0, user_of(connection)
    with hold(connection, queue.dead) as held:

        def selected() -> Iterator[Letter]:
            nonlocal seen
            for message in _all(held, MOST):
                letter = Letter.of(queue, message, seen, user)
                seen += 1
                if criteria.match(letter, now):
                    yield letter

        groups = grouped(selected())
        return Summary(groups, held.ready, seen, held.alone)


def grouped(letters: Iterable[Letter | Line]) -> tuple[Group, ...]:
    """Group letters by the kind of their reason, the largest group first."""
    groups: dict[tuple[str, str], Group] = {}
    for letter in letters:
        kind = letter.kind
        group = groups.setdefault((kind, letter.type), Group(kind, letter.type))
        group.count += 1
        if (died := letter.died_at) is not None:
            group.oldest = min(group.oldest or died, died)
            group.newest = max(group.newest or died, died)
    return tuple(sorted(groups.values(), key=lambda group: -group.count))


def _all(held: QueueHold, most: int) -> Iterator[Any]:
    while messages := held.take(min(_CHUNK, most)):
        most -= len(messages)
        yield from messages
