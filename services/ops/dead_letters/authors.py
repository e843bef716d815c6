"""Whether a dead letter may be replayed on behalf of its author, who may have lost the right."""

from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from sqlalchemy import Engine
from sqlalchemy.orm import Session

from services.ops.dead_letters.letter import Criteria, Letter
from services.ops.users import queue_rights, users
from shared.bus.contract import topology
from shared.bus.contract.topology import Queue

ORPHANED = (
    "the console user who gave the command may not any more, or its sender cannot be verified. "
    "Give it anew, or edit it, which makes it your own."
)


@dataclass(slots=True)
class Authorised:
    """Selects the matching letters whose authors may still give the command.

    Attributes:
        criteria: selects the letters.
        authors: the console users who may give the queue's commands; None permits everyone.
        orphaned: the deaths of the matching letters that were left.
    """

    criteria: Criteria
    authors: Collection[str] | None
    orphaned: set[UUID] = field(default_factory=set)

    def match(self, letter: Letter, *clocks: datetime) -> bool:
        """Return whether a letter is selected, at the time by each of the clocks."""
        if not self.criteria.match(letter, *clocks):
            return False
        if not is_orphaned(letter, self.authors):
            return True
        self.orphaned.add(letter.death)
        return False


def is_orphaned(letter: Letter, may: Collection[str] | None) -> bool:
    """Return whether a letter must stay dead, since its replay would vouch for it.

    That is so if its author lost the right to send it, or if it arrived by a route or with a type
    that its publisher has no right to.

    Args:
        letter: the letter.
        may: the permitted authors, from `authors`.
    """
    incoming = letter.incoming
    has_foreign_route = incoming.exchange not in ("", topology.DEAD) or _is_misrouted(letter)
    if incoming.misnamed or has_foreign_route:
        return True
    # Only the broker knows the operators who sign in to it themselves.
    return not (may is None or not letter.person or letter.person in may)


def _is_misrouted(letter: Letter) -> bool:
    """Return whether it was first published with a key not bound to its queue (CC, BCC)."""
    key = letter.incoming.first_key
    queue = next(q for q in topology.WORK_QUEUES if q.name == letter.queue)
    return bool(key) and not any(topology.matches(binding.key, key) for binding in queue.bindings)


def authors(engine: Engine, queue: Queue) -> Collection[str] | None:
    """Return the console users who may give a queue's commands; None if it takes no commands.

    Raises:
        sqlalchemy.exc.DBAPIError: the database is unreachable.
    """
    right = queue_rights.OF_QUEUES.get(queue.name)
    if right is None:
        return None
    with Session(engine) as session:
        return users.with_right(session, right)
