"""Looking through dead letters. Nothing is lost by it, and nothing changes its place.

What is looked at is held unacknowledged for that time, so that somebody who looks at the same
moment would see less. Tools wait for each other; see `queue_lock.py`.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Generic, TypeVar

from kombu import Connection

from services.ops.broker.hold import MOST, BusyError, Hold, hold
from services.ops.dead_letters.letter import Criteria, Letter, Line
from shared.bus.broker.kombu_connection import user_of
from shared.bus.contract import topology

PAGE = 100
_CHUNK = 500
_Shown = TypeVar("_Shown", Letter, Line)


class NoSuchQueueError(Exception):
    """No work queue has this name; the message names those that there are."""


@dataclass(frozen=True, slots=True)
class Page(Generic[_Shown]):
    """Some letters of a queue, in their order.

    Attributes:
        letters: those that fit the criteria.
        total: how many letters are in the queue, whether they fit or not.
        next: where the next page begins; None after the last letter that can be looked at.
        alone: false when somebody else was at work in the queue: what they had in hand is missing.
        unseen: how many letters lie behind `hold.MOST`, where nobody can look.
        looked_at: when the queue was looked through, where that was before; see `digest`.
        seen: how many letters were in it then.
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
        """Whether letters came or went since it was looked through."""
        return self.looked_at is not None and self.seen != self.total

    @property
    def is_whole(self) -> bool:
        """Whether no other letter fits, as far as one can be there."""
        return self.alone and self.next is None and not self.unseen and not self.has_changed


@dataclass(slots=True)
class Group:
    """The letters that died of the same kind of reason.

    Attributes:
        kind: the reason without ids, addresses and numbers; a `Criteria.reason` that finds them.
        type: their type.
        count: how many.
        oldest: when the first of them died.
        newest: when the last of them died.
    """

    kind: str
    type: str
    count: int = 0
    oldest: datetime | None = None
    newest: datetime | None = None


@dataclass(frozen=True, slots=True)
class Summary:
    """What a queue's letters died of.

    Attributes:
        groups: the largest first.
        total: how many letters are in the queue.
        seen: how many of them were looked at; at most `hold.MOST`.
        alone: as of a `Page`.
        looked_at: as of a `Page`.
    """

    groups: tuple[Group, ...]
    total: int
    seen: int
    alone: bool = True
    looked_at: datetime | None = None

    @property
    def unseen(self) -> int:
        """As of a `Page`."""
        return self.total - self.seen


def work_queue(name: str) -> topology.Queue:
    """A work queue by its name, or by that of its dead queue.

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
    """A page of a queue's dead letters.

    Without criteria no more is fetched than is shown; with some, as much as it takes to find them.

    Args:
        connection: an open kombu connection.
        queue: the work queue.
        criteria: which of them.
        start: the position to begin at: 0, or `Page.next` of the page before.
        limit: how many letters at most.
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
    """The first letter with an id; None when there is none.

    Args:
        connection: an open kombu connection.
        queue: the work queue.
        message_id: of the letter.

    Raises:
        BusyError: there is none to be seen, and not all could be looked at.
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
    """What the letters of a queue died of.

    Args:
        connection: an open kombu connection.
        queue: the work queue.
        criteria: which of them are counted.
    """
    now = datetime.now(UTC)
    seen, user = 0, user_of(connection)
    with hold(connection, queue.dead) as held:

        def meant() -> Iterator[Letter]:
            nonlocal seen
            for message in _all(held, MOST):
                letter = Letter.of(queue, message, seen, user)
                seen += 1
                if criteria.match(letter, now):
                    yield letter

        groups = grouped(meant())
        return Summary(groups, held.ready, seen, held.alone)


def grouped(letters: Iterable[Letter | Line]) -> tuple[Group, ...]:
    """Letters by what they died of, the largest group first.

    Args:
        letters: which.
    """
    groups: dict[tuple[str, str], Group] = {}
    for letter in letters:
        kind = letter.kind
        group = groups.setdefault((kind, letter.type), Group(kind, letter.type))
        group.count += 1
        if (died := letter.died_at) is not None:
            group.oldest = min(group.oldest or died, died)
            group.newest = max(group.newest or died, died)
    return tuple(sorted(groups.values(), key=lambda group: -group.count))


def _all(held: Hold, most: int) -> Iterator[Any]:
    while messages := held.take(min(_CHUNK, most)):
        most -= len(messages)
        yield from messages
