"""The filter of dead letters in paths, queries and forms."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from urllib.parse import urlencode

from sqlalchemy.orm import Session

from services.ops.console.web.page import Visit
from services.ops.dead_letters import search
from services.ops.dead_letters.letter import Criteria
from services.ops.users import queue_rights
from services.ops.users.rights import Right
from shared.bus.contract import topology
from shared.web.results import PageError

AGES = {
    "": ("Any age", None, None),
    "-10m": ("Died within 10 min", None, timedelta(minutes=10)),
    "-1h": ("Died within an hour", None, timedelta(hours=1)),
    "1h": ("Died over an hour ago", timedelta(hours=1), None),
    "1d": ("Died over a day ago", timedelta(days=1), None),
    "7d": ("Died over a week ago", timedelta(days=7), None),
}


@dataclass(frozen=True, slots=True)
class Filter:
    """The criteria of the page's form."""

    reason: str = ""
    type: str = ""
    age: str = ""
    about: str = ""

    def criteria(self, reads: Callable[[str], str] = str) -> Criteria:
        """Return the criteria; `reads` maps a reason to the text that is searched."""
        _, older, younger = AGES[self.age]
        return Criteria(
            reason=self.reason,
            type=self.type,
            correlation_id=self.about,
            older_than=older,
            younger_than=younger,
            reads=reads,
        )

    def query(self, **more: object) -> str:
        """Return a query string of the filter and of `more`."""
        given = {"reason": self.reason, "type": self.type, "age": self.age, "about": self.about}
        return urlencode({name: value for name, value in (given | more).items() if value})

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> "Filter":
        """Read the filter from a query string or a form; an unknown age is ignored."""
        age = given.get("age", "")
        return cls(
            reason=given.get("reason", "").strip(),
            type=given.get("type", "").strip(),
            age=age if age in AGES else "",
            about=given.get("about", "").strip(),
        )


def takes(_: Session, visit: Visit) -> Collection[Right]:
    """Return the rights needed to act on the letters of the path's queue."""
    return queue_rights.of_queues([queue_of(visit).name])


def queue_of(visit: Visit) -> topology.Queue:
    """Return the work queue of the path.

    Raises:
        PageError: 404, when there is none.
    """
    try:
        return search.work_queue(visit.path["queue"])
    except search.NoSuchQueueError as error:
        raise PageError(404, str(error)) from None
