"""The dead-letter desk: looking through letters without disturbing them."""

from sqlalchemy.orm import Session

from services.ops.console.pages.dead.filter import AGES, Filter, queue_of
from services.ops.console.web.masking import mask
from services.ops.console.web.page import Page, Visit
from services.ops.console.web.reading import legible, positive
from services.ops.dead_letters import actions, search
from services.ops.users import queue_rights
from services.ops.users.rights import Right
from shared.bus.contract import topology
from shared.web.mount import Result
from shared.web.results import PageError, View

AT_ONCE = 100
NOW = "now"
"""The parameter by which a queue is looked through itself, and not what was seen of it."""


def show_queues(_: Session, visit: Visit) -> Result:
    """Every work queue, and its dead letters."""
    look = visit.system.lookout.latest
    figures = [look.figures[queue.name] for queue in topology.WORK_QUEUES] if look else []
    return View("dead.html", {"path": "/dead", "figures": figures, "look": look})


def show_letters(session: Session, visit: Visit) -> Result:
    """A page of one queue's letters."""
    queue, wanted = queue_of(visit), Filter.of(visit.query)
    start = positive(visit.query.get("start", ""))
    criteria = wanted.criteria(str if visit.user.may(Right.MESSAGES) else _masked)
    with visit.system.broker(session) as connection:
        look = search.browse if visit.query.get(NOW) else visit.system.digests.browse
        page = look(connection, queue, criteria, start=start, limit=AT_ONCE)
    about = {
        "path": "/dead",
        "queue": queue,
        "letters": page,
        "start": start,
        "filter": wanted,
        "more": {NOW: "yes"} if visit.query.get(NOW) else {},
        "ages": AGES,
        "types": actions.types_for(queue),
        "lacks": lacks(visit, queue),
        "is_filtered": not criteria.is_empty,
    }
    return View("dead_letters.html", about)


def lacks(visit: Visit, queue: topology.Queue) -> str:
    """Why there are no buttons, where there are none."""
    return queue_rights.lacking(visit.user, queue_rights.of_queues([queue.name]))


def _masked(reason: str) -> str:
    return str(mask(reason, ""))


def show_reasons(session: Session, visit: Visit) -> Result:
    """What the letters of a queue died of."""
    queue = queue_of(visit)
    with visit.system.broker(session) as connection:
        look = search.summarise if visit.query.get(NOW) else visit.system.digests.summarise
        summary = look(connection, queue)
    rows = [(group, Filter(reason=group.kind, type=group.type).query()) for group in summary.groups]
    return View(
        "dead_reasons.html", {"path": "/dead", "queue": queue, "summary": summary, "rows": rows}
    )


def show_letter(session: Session, visit: Visit) -> Result:
    """One letter: its story, its body, and what can be done.

    To fetch one from a long queue takes a while: the page shows what was seen of it, and asks for
    the letter by itself, or by a link.
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
    """One letter, and what was typed; where it died again since a form was shown, that first.

    Args:
        session: of the page; let go.
        visit: the request.
        queue: the work queue.
        id_: the letter's.
        wrong: what is wrong with what was typed, in a sentence.
        status: of the answer.

    Raises:
        PageError: 404, when it is not there any more.
    """
    with visit.system.broker(session) as connection:
        letter = search.find(connection, queue, id_)
    if letter is None:
        raise PageError(404, "There is no such dead letter any more.")
    if visit.field("death") not in ("", str(letter.death)):
        wrong, status = str(actions.DiedAgainError()), 409
    about = {
        "path": "/dead",
        "queue": queue,
        "letter": letter,
        "body": legible(letter.text),
        "types": actions.types_for(queue),
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
