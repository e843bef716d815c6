"""What a replay of a dead letter would do, shown before anybody decides on it."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Session

from services.ops.console.pages.dead.filter import queue_of
from services.ops.console.pages.dead.letters import lacks, letter_page
from services.ops.console.web.page import Page, Result, View, Visit
from services.ops.console.web.reading import body_of, legible
from services.ops.dead_letters import rehearsal
from services.ops.dead_letters.actions import NotEditableError
from services.ops.dead_letters.in_flight import BusyError
from services.ops.users.rights import Right
from shared.db.footprint import Row
from shared.db.session import engine
from shared.web.results import PageError

_OPEN = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|\d{4}-\d\d-\d\dT[\d:.+]+")
_WORDS = frozenset({"tracking_status", "state", "status", "type", "template", "decision"})
"""Columns whose words are the same for everybody."""


@dataclass(frozen=True, slots=True)
class Cell:
    """A column of a row.

    Attributes:
        name: its name.
        value: what it would hold.
        before: what it holds now; None where that is the same, or nothing.
        is_personal: whether only some may see it.
    """

    name: str
    value: Any
    before: Any
    is_personal: bool


def show(session: Session, visit: Visit) -> Result:
    """What would happen; nothing does."""
    queue, id_, type_ = queue_of(visit), visit.field("id"), visit.field("type")
    body = body_of(visit) if "body" in visit.form else None
    if body is not None and not visit.user.may(Right.MESSAGES):
        raise PageError(403, f"Another body needs the right {Right.MESSAGES}.")
    given = None if body is None else body.encode()
    try:
        with visit.system.broker(session) as connection:
            found = rehearsal.rehearse(
                connection, engine(), queue, id_, visit.actor, body=given, type=type_
            )
    except BusyError as error:
        raise PageError(429, str(error)) from None
    except NotEditableError as error:
        return letter_page(
            session, visit, queue, id_, body=body, type_=type_, wrong=str(error), status=400
        )
    if found is None:
        raise PageError(404, "There is no such dead letter any more.")
    about = {
        "path": "/dead",
        "queue": queue,
        "rehearsal": found,
        "lacks": lacks(visit, queue),
        "tables": [(c, [list(cells(row)) for row in c.rows]) for c in found.report.changes],
        "facts": [(told, legible(told.message.body.decode())) for told in found.facts],
        "body": body,
        "type": type_,
    }
    return View("dead_rehearsal.html", about, of=[queue.name, id_])


def cells(row: Row) -> Iterator[Cell]:
    """What a person needs of a row: what a new one holds; of another its ids, and what changes."""
    for name, value in row.values.items():
        is_open = not isinstance(value, str | dict | list) or bool(_OPEN.fullmatch(str(value)))
        is_personal = not (is_open or name in _WORDS)
        if row.before is None:
            if value not in (None, "", [], {}):
                yield Cell(name, value, None, is_personal)
        elif name in row.before:
            yield Cell(name, value, row.before[name], is_personal)
        elif name.endswith("id"):
            yield Cell(name, value, None, is_personal)


PAGES = (Page("POST", "/dead/{queue}/rehearse", "watch", show, plain=[Right.MESSAGES]),)
