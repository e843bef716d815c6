"""The rehearsal of a replay: shows its effects without applying them."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from sqlalchemy.orm import Session

from services.ops.console.pages.dead.filter import queue_of
from services.ops.console.pages.dead.letters import lacks, letter_page
from services.ops.console.web.masking import mask
from services.ops.console.web.page import Page, Visit
from services.ops.console.web.reading import legible
from services.ops.dead_letters import rehearsal
from services.ops.dead_letters.editing import NotEditableError
from services.ops.dead_letters.in_flight import TooManyRehearsalsError
from services.ops.users.rights import Right
from services.ops.users.users import User
from shared.bus.consume.rehearsals.trying import Email
from shared.bus.contract.message import Message
from shared.db.footprint import Row
from shared.db.session import engine
from shared.web.forms import MAX_LARGE_BYTES
from shared.web.mount import Result
from shared.web.results import PageError, View

_OPEN = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|\d{4}-\d\d-\d\dT[\d:.+]+")
_OF_BUSINESSES = frozenset({Right.KYC, Right.CUSTOMERS})
"""Either right shows businesses; only the second shows customers and other personal data."""
_TABLES_OF_BUSINESSES = ("account", "kyc_", "webhook_")
_FACTS_OF_BUSINESSES = ("account.", "kyc.", "secret.", "webhook.")
_WORDS = frozenset({"tracking_status", "state", "status", "type", "template", "decision"})
"""Columns with a fixed set of values."""


@dataclass(frozen=True, slots=True)
class Cell:
    """A column of a row.

    Attributes:
        name: its name.
        value: its new value.
        before: its current value; None if unchanged or absent.
        is_personal: whether it is masked for users without the right.
    """

    name: str
    value: Any
    before: Any
    is_personal: bool


def show(session: Session, visit: Visit) -> Result:
    """Rehearse a replay and show its effects."""
    queue, id_, type_ = queue_of(visit), visit.field("id"), visit.field("type")
    body = visit.lines("body") if "body" in visit.form else None
    if body is not None and not visit.user.may(Right.MESSAGES):
        raise PageError(403, f"Another body needs the right {Right.MESSAGES}.")
    given = None if body is None else body.encode()
    try:
        with visit.system.broker(session) as connection:
            found = rehearsal.rehearse(
                connection, engine(), queue, id_, visit.actor, body=given, type=type_
            )
    except TooManyRehearsalsError as error:
        raise PageError(429, str(error)) from None
    except NotEditableError as error:
        return letter_page(session, visit, queue, id_, wrong=str(error), status=400)
    if found is None:
        raise PageError(404, "There is no such dead letter any more.")
    report = found.report
    is_hidden = partial(_is_hidden, visit.user)
    of_businesses = all(
        type_of.startswith(_FACTS_OF_BUSINESSES)
        for type_of in (type_ or found.letter.type, *(fact.type for fact in report.facts))
    )
    tables = []
    for change in report.changes:
        hides = is_hidden(change.table.startswith(_TABLES_OF_BUSINESSES))
        tables.append((change, [list(cells(row, hides)) for row in change.rows]))
    facts = [
        (fact, _read(fact.message, is_hidden(fact.message.type.startswith(_FACTS_OF_BUSINESSES))))
        for fact in found.facts
    ]
    hides_emails = is_hidden(of_businesses)
    about = {
        "path": "/dead",
        "queue": queue,
        "rehearsal": found,
        # An error of the database may quote a row.
        "sentence": mask(report.sentence, "") if hides_emails else report.sentence,
        "emails": [_masked(email) if hides_emails else email for email in found.emails],
        "lacks": lacks(visit, queue),
        "tables": tables,
        "facts": facts,
        "hides": is_hidden(False),
        "body": body,
        "type": type_,
    }
    return View("dead_rehearsal.html", about, of=[queue.name, id_, *found.ids])


def _is_hidden(user: User, is_of_business: bool) -> bool:
    """Whether the user may not see data from the database, even if they may read the letter."""
    enough = _OF_BUSINESSES if is_of_business else (Right.CUSTOMERS,)
    return not any(user.may(right) for right in enough)


def _read(fact: Message, is_hidden: bool) -> object:
    text = legible(fact.body.decode())
    return mask(text) if is_hidden else text


def _masked(email: Email) -> Email:
    return Email(
        recipient=str(mask(email.recipient, "")),
        name=str(mask(email.name)),
        subject=str(mask(email.subject)),
        text=str(mask(email.text)),
        refusal=str(mask(email.refusal, "")),
    )


def cells(row: Row, is_hidden: bool = False) -> Iterator[Cell]:
    """Yield the relevant columns: of a new row those with a value, else the changes and ids.

    Args:
        row: the row after the change.
        is_hidden: whether personal values are masked.
    """
    for cell in _cells(row):
        if is_hidden and cell.is_personal:
            yield replace(cell, value=mask(cell.value), before=mask(cell.before))
        else:
            yield cell


def _cells(row: Row) -> Iterator[Cell]:
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


PAGES = (
    # Two services are polled for their answers, one after the other.
    Page(
        "POST",
        "/dead/{queue}/rehearse",
        "watch",
        show,
        plain=[Right.MESSAGES],
        seconds=2 * rehearsal.ANSWER_SECONDS,
        max_form_bytes=MAX_LARGE_BYTES,
    ),
)
