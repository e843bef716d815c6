"""Parked messages of the outbox: why they cannot be published, and what can be done."""

from sqlalchemy.orm import Session

from services.ops import parked
from services.ops.console.page import Page, PageError, Redirect, Result, View, Visit
from services.ops.console.reading import legible, positive
from services.ops.parked import NotMendedError, Parked

AT_ONCE = 100
GONE = "It is not parked any more."


def show(session: Session, visit: Visit) -> Result:
    """What is parked, in the order in which it was written."""
    found = parked.listed(session, after=positive(visit.query.get("after", "")), limit=AT_ONCE + 1)
    about = {
        "path": "/outbox",
        "messages": found[:AT_ONCE],
        "total": parked.count(session),
        "next": found[AT_ONCE - 1].number if len(found) > AT_ONCE else None,
    }
    return View("outbox.html", about)


def show_message(session: Session, visit: Visit) -> Result:
    """One message: its story, its body, and what can be done."""
    return _message(_the_message(session, visit))


def retry(session: Session, visit: Visit) -> Result:
    """Let the relay try one message now."""
    done = parked.retry(session, [_number(visit)], visit.actor)
    return Redirect(
        "/outbox", "It is tried now: if it stays here, read its reason." if done else GONE
    )


def retry_all(session: Session, visit: Visit) -> Result:
    """Let the relay try all of them now."""
    done = parked.retry(session, None, visit.actor)
    return Redirect(
        "/outbox", f"{done:,} {'message is' if done == 1 else 'messages are'} tried now."
    )


def confirm_discard(session: Session, visit: Visit) -> Result:
    """Ask before a message is thrown away."""
    message = _the_message(session, visit)
    return View("outbox_discard.html", {"path": "/outbox", "message": message})


def discard(session: Session, visit: Visit) -> Result:
    """Throw one message away, with a reason."""
    reason = visit.field("why")
    if not reason:
        raise PageError(400, "Say why: the audit log keeps it.")
    done = parked.discard(session, [_number(visit)], visit.actor, reason)
    return Redirect("/outbox", "It is discarded." if done else GONE)


def edit(session: Session, visit: Visit) -> Result:
    """Give one message another body, and let the relay try it."""
    message = _the_message(session, visit)
    # A browser sends line ends as CRLF (HTML standard, 4.10.21.5), and bodies have none.
    body = visit.form.get("body", [""])[0].replace("\r\n", "\n")
    about = visit.field("about")
    try:
        done = parked.edit(
            session, message.number, body.encode(), visit.actor, correlation_id=about
        )
    except NotMendedError as error:
        return _message(message, body=body, about=about, wrong=str(error), status=400)
    return Redirect("/outbox", "It is tried now, with the new body." if done else GONE)


def _message(
    message: Parked,
    *,
    body: str | None = None,
    about: str | None = None,
    wrong: str = "",
    status: int = 200,
) -> View:
    shown = {
        "path": "/outbox",
        "message": message,
        "body": legible(message.body) if body is None else body,
        "about": message.correlation_id if about is None else about,
        "wrong": wrong,
    }
    return View("outbox_message.html", shown, status)


def _the_message(session: Session, visit: Visit) -> Parked:
    message = parked.find(session, _number(visit))
    if message is None:
        raise PageError(404, GONE)
    return message


def _number(visit: Visit) -> int:
    number = visit.path["number"]
    # PostgreSQL's bigint.
    if not (number.isascii() and number.isdigit()) or int(number[:20]) >= 2**63:
        raise PageError(404, "There is no such page: that is no number.")
    return int(number)


PAGES = (
    Page("GET", "/outbox", "watch", show),
    Page("POST", "/outbox/retry", "act", retry_all),
    Page("GET", "/outbox/messages/{number}", "watch", show_message),
    Page("POST", "/outbox/messages/{number}/retry", "act", retry),
    Page("GET", "/outbox/messages/{number}/discard", "act", confirm_discard),
    Page("POST", "/outbox/messages/{number}/discard", "act", discard),
    Page("POST", "/outbox/messages/{number}/edit", "act", edit),
)
