"""The runbook as a page, and the section for each kind of trouble."""

import re
from functools import cache
from itertools import pairwise
from pathlib import Path

from markdown_it import MarkdownIt
from markupsafe import Markup
from sqlalchemy.orm import Session

from services.ops.console.web.page import Page, System, Visit
from services.ops.monitoring.alerts import DOES_NOT_WORK, PROOF, REFUSES, WAITS
from shared.bus.contract import topology
from shared.telemetry.heartbeat import API, JOB, JOURNAL, WEBHOOKS
from shared.web.mount import Result
from shared.web.results import View

FILE = Path(__file__).parents[4] / "docs" / "runbook.md"
_ELSEWHERE = re.compile(r"\[([^\]]+)\]\((?!#)[^)]+\)")
"""A link to another document; the console does not serve these."""


_PROOF = PROOF.removeprefix("services.")
_OF_QUEUES = {
    "away": "QueueSilent",
    "missing": "QueueMissing",
    "no consumer": "QueueWithoutConsumer",
    "grows": "QueueGrowing",
    "old": "MessagesLate",
    "dead letters": "DeadLetters",
}
_OF_PARTS = {JOURNAL: "JournalMisses", API: "ApiFailing", WEBHOOKS: "OrdersRefused"}
_OTHERS = {
    "queues: unseen": "QueuesUnseen",
    "broker: away": "BrokerUnreachable",
    "broker: alarm": "BrokerAlarm",
    "database: away": "DatabaseAway",
    "database: read-only": "DatabaseReadOnly",
    "mail: away": "MailServerAway",
    f"mail: {REFUSES}": "EmailsRefused",
    "outbox: old": "OutboxBehind",
    "parked: parked": "OutboxParked",
    "ladder: waits": "MessagesFailing",
    "console: blind": "ConsoleBlind",
}


def show(_: Session, __: Visit) -> Result:
    """Show the runbook."""
    return View("runbook.html", {"path": "", "text": text()})


def without_database(_: System) -> View:
    """Show the runbook while the database is unreachable."""
    return View("runbook.html", {"path": "", "text": text()})


@cache
def text() -> Markup:
    """Return the document as HTML; the ids of its headings are from `anchor`."""
    parser = MarkdownIt("commonmark", {"html": False})
    tokens = parser.parse(_ELSEWHERE.sub(r"\1", FILE.read_text(encoding="utf-8")))
    for before, heading in pairwise(tokens):
        if before.type == "heading_open":
            before.attrSet("id", anchor(heading.content))
    return Markup(parser.renderer.render(tokens, parser.options, {}))  # noqa: S704 - a file of ours


def anchor(heading: str) -> str:
    """Return the id of a heading."""
    return heading.lower()


def section(about: str, kind: str) -> str:
    """Return the heading of the section for a trouble; empty if there is none.

    Args:
        about: the trouble's.
        kind: the trouble's.
    """
    if about == _PROOF:
        return "NotProved"
    if about in {queue.name for queue in topology.QUEUES}:
        return _OF_QUEUES.get(kind, "")
    if kind.endswith(DOES_NOT_WORK):
        part = kind.removesuffix(DOES_NOT_WORK)
        return "JobFailing" if part.startswith(JOB) else _OF_PARTS.get(part, "NotWorking")
    if f"{about}: {kind}" not in _OTHERS and kind.endswith(WAITS):
        return "BatchStuck"
    return "ProcessDown" if kind == "silent" else _OTHERS.get(f"{about}: {kind}", "")


PAGES = (Page("GET", "/runbook", "watch", show, without_database=without_database),)
