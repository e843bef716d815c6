"""Pages that list dead letters, by queue, reason and letter; they change nothing."""

from sqlalchemy.orm import Session

from services.ops.console.pages.dead.filter import AGES, Filter, queue_of
from services.ops.console.web.masking import mask
from services.ops.console.web.page import Page, Visit
from services.ops.console.web.reading import legible, positive
from services.ops.dead_letters import editing, search
from services.ops.users import queue_rights
from services.ops.users.rights import Right
from shared.bus.contract import topology
from shared.web.mount import Result
from shared.web.results import PageError, View

AT_ONCE = 100
NOW = "now"
"""The query parameter that reads the queue itself instead of its digest."""


def show_queues(_: Session, visit: Visit) -> Result:
    """Show every work queue and the number of its dead letters."""
    snapshot = visit.system.poller.latest
    figures = [snapshot.figures[queue.name] for queue in topology.WORK_QUEUES] if snapshot else []
    return View("dead.html", {"path": "/dead", "figures": figures, "snapshot": snapshot})


def show_letters(session: Session, visit: Visit) -> Result:
    """Show a page of one queue's dead letters."""
    queue, wanted = queue_of(visit), Filter.of(visit.query)
    start = positive(visit.query.get("start", ""))
    criteria = wanted.criteria(str if visit.user.may(Right.MESSAGES) else _masked)
    with visit.system.broker(session) as connection:
        browse = search.browse if visit.query.get(NOW) else visit.system.digests.browse
        page = browse(connection, queue, criteria, start=start, limit=AT_ONCE)
    about = {
        "path": "/dead",
        "queue": queue,
        "letters": page,
        "start": start,
        "filter": wanted,
        "more": {NOW: "yes"} if visit.query.get(NOW) else {},
        "ages": AGES,
        "types": editing.types_for(queue),
        "lacks": lacks(visit, queue),
        "is_filtered": not criteria.is_empty,
    }
    return View("dead_letters.html", about)


def lacks(visit: Visit, queue: topology.Queue) -> str:
    """Return which rights the user lacks to act on the letters; empty if none."""
    return queue_rights.lacking(visit.user, queue_rights.of_queues([queue.name]))


def _masked(reason: str) -> str:
    return str(mask(reason, ""))


def show_reasons(session: Session, visit: Visit) -> Result:
    """Show a queue's dead letters grouped by reason."""
    queue = queue_of(visit)
    with visit.system.broker(session) as connection:
        summarise = search.summarise if visit.query.get(NOW) else visit.system.digests.summarise
        summary = summarise(connection, queue)
    rows = [(group, Filter(reason=group.kind, type=group.type).query()) for group in summary.groups]
    return View(
        "dead_reasons.html", {"path": "/dead", "queue": queue, "summary": summary, "rows": rows}
    )


def show_letter(session: Session, visit: Visit) -> Result:
    """Show one letter: its history, its body, and its actions.

    Fetching a letter from a long queue takes a while: the page shows its line of the digest first,
    and then requests the letter by itself, or by a link.
    """
    queue, id_ = queue_of(visit), visit.query.get("id", "")
    if not visit.query.get(NOW) and not visit.form:
        with visit.system.broker(session) as connection:
            line = visit.system.digests.find(connection, queue, id_)
        if line is not None:
            about = {"path": "/dead", "queue": queue, "letter": line, "is_seen_before": True}
            return View("dead_letter.html", about, of=[queue.name, id_])
    return letter_page(session, visit, queue, id_)


def letter_page(
    session: Session,
    visit: Visit,
    queue: topology.Queue,
    id_: str,
    *,
    wrong: str = "",
    status: int = 200,
) -> View:
    """Return the page of one letter with the typed fields; or that it died again since the form.

    Args:
        session: of the page; its transaction is ended.
        visit: the request.
        queue: the work queue.
        id_: the letter's.
        wrong: a sentence about a wrong field.
        status: of the answer.

    Raises:
        PageError: 404, if the letter is not in the queue.
    """
    with visit.system.broker(session) as connection:
        letter = search.find(connection, queue, id_)
    if letter is None:
        raise PageError(404, "There is no such dead letter any more.")
    if visit.field("death") not in ("", str(letter.death)):
        wrong, status = str(editing.DiedAgainError()), 409
    about = {
        "path": "/dead",
        "queue": queue,
        "letter": letter,
        "body": legible(letter.text),
        "types": editing.types_for(queue),
        "lacks": lacks(visit, queue),
        "wrong": wrong,
    }
    return View("dead_letter.html", about, status, of=[queue.name, letter.message_id])


PAGES = (
    Page("GET", "/dead", "watch", show_queues),
    Page("GET", "/dead/{queue}", "watch", show_letters),
    Page("GET", "/dead/{queue}/reasons", "watch", show_reasons),
    Page("GET", "/dead/{queue}/letter", "watch", show_letter, plain=[Right.MESSAGES]),
)
