"""The runbook as a page, and which of its sections says what to do about a trouble."""

import re
from functools import cache
from itertools import pairwise
from pathlib import Path

from markdown_it import MarkdownIt
from markupsafe import Markup
from sqlalchemy.orm import Session

from services.ops.console.web.page import Page, System, Visit
from services.ops.monitoring.alerts import DOES_NOT_WORK, PROOF, WAITS
from shared.bus.contract import topology
from shared.web.mount import Result
from shared.web.results import View

FILE = Path(__file__).parents[4] / "docs" / "runbook.md"
_ELSEWHERE = re.compile(r"\[([^\]]+)\]\((?!#)[^)]+\)")
"""A link to another of the documents, which are not here."""


_PROOF = PROOF.removeprefix("services.")
_OF_QUEUES = {
    "away": "QueueSilent",
    "missing": "QueueMissing",
    "no consumer": "QueueWithoutConsumer",
    "grows": "QueueGrowing",
    "old": "MessagesLate",
    "dead letters": "DeadLetters",
}
_OTHERS = {
    "queues: unseen": "QueuesUnseen",
    "broker: away": "BrokerUnreachable",
    "broker: alarm": "BrokerAlarm",
    "database: away": "DatabaseAway",
    "database: read-only": "DatabaseReadOnly",
    "mail: away": "MailServerAway",
    "outbox: old": "OutboxBehind",
    "parked: parked": "OutboxParked",
    "ladder: waits": "MessagesFailing",
    "console: blind": "ConsoleBlind",
}


def show(_: Session, __: Visit) -> Result:
    """All of it."""
    return View("runbook.html", {"path": "", "text": text()})


def without_database(_: System) -> View:
    """The same: then it is wanted most."""
    return View("runbook.html", {"path": "", "text": text()})


@cache
def text() -> Markup:
    """The document as HTML; each heading has its id, as `anchor` says."""
    parser = MarkdownIt("commonmark", {"html": False})
    tokens = parser.parse(_ELSEWHERE.sub(r"\1", FILE.read_text()))
    for before, heading in pairwise(tokens):
        if before.type == "heading_open":
            before.attrSet("id", anchor(heading.content))
    return Markup(parser.renderer.render(tokens, parser.options, {}))  # noqa: S704 - a file of ours


def anchor(heading: str) -> str:
    """By what a section is linked to."""
    return heading.lower()


def section(about: str, kind: str) -> str:
    """The heading of what to do about a trouble; empty where there is none.

    Args:
        about: as of the trouble.
        kind: as of the trouble.
    """
    if about == _PROOF:
        return "NotProved"
    if about in {queue.name for queue in topology.QUEUES}:
        return _OF_QUEUES.get(kind, "")
    if kind.endswith(DOES_NOT_WORK):
        return "NotWorking"
    if f"{about}: {kind}" not in _OTHERS and kind.endswith(WAITS):
        return "BatchStuck"
    return "ProcessDown" if kind == "silent" else _OTHERS.get(f"{about}: {kind}", "")


PAGES = (Page("GET", "/runbook", "watch", show, without_database=without_database),)
