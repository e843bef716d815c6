"""Whose commands may still be sent on: they count as their authors', who may be gone meanwhile."""

from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from sqlalchemy import Engine
from sqlalchemy.orm import Session

from services.ops.dead_letters.letter import Criteria, Letter
from services.ops.users import queue_rights, users
from shared.bus.contract.topology import Queue

ORPHANED = (
    "whoever gave the command on the console may not any more. Give it anew, or send it on edited, "
    "as your own."
)


@dataclass(slots=True)
class Authorised:
    """Those of the letters that are meant whose authors may still say so.

    Attributes:
        criteria: which are meant.
        authors: of the console's users, those who may; None: everybody.
        orphaned: the deaths of those that were meant and left.
    """

    criteria: Criteria
    authors: Collection[str] | None
    orphaned: set[UUID] = field(default_factory=set)

    def match(self, letter: Letter, *clocks: datetime) -> bool:
        """Whether a letter is meant, at a time."""
        if not self.criteria.match(letter, *clocks):
            return False
        if not is_orphaned(letter, self.authors):
            return True
        self.orphaned.add(letter.death)
        return False


def is_orphaned(letter: Letter, may: Collection[str] | None) -> bool:
    """Whether a letter stays dead as it is, since its author may not say it any more.

    Args:
        letter: which.
        may: as from `authors`.
    """
    # Who signs in to the broker as themselves, the broker alone knows.
    return not (may is None or not letter.person or letter.person in may)


def authors(engine: Engine, queue: Queue) -> Collection[str] | None:
    """The console's users who may give the commands of a queue; None where it takes none.

    Raises:
        sqlalchemy.exc.DBAPIError: the database is away.
    """
    right = queue_rights.OF_QUEUES.get(queue.name)
    if right is None:
        return None
    with Session(engine) as session:
        return users.with_right(session, right)
