"""Pages of the outbox's parked messages: why they cannot be published, and actions on them."""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from sqlalchemy.orm import Session

from services.ops import parked_messages
from services.ops.console.web.jobs import Job, go_on
from services.ops.console.web.page import Page, Visit
from services.ops.console.web.reading import SAME_ID, legible, number, positive, reason_of
from services.ops.parked_messages import ChangedError, NotMendedError, Parked
from services.ops.users import queue_rights
from services.ops.users.rights import Right
from shared.db.session import engine, release_connection
from shared.web.forms import MAX_LARGE_BYTES
from shared.web.mount import Result
from shared.web.results import PageError, Question, Redirect, View

AT_ONCE = 100
EXAMPLES = 5
UP_TO = "up_to"
"""The field with the last message at the time of the count."""
GONE = "It is no longer parked."


def show(session: Session, visit: Visit) -> Result:
    """List the parked messages, oldest first."""
    found = parked_messages.listed(
        session, after=positive(visit.query.get("after", "")), limit=AT_ONCE + 1
    )
    about = {
        "path": "/outbox",
        "messages": found[:AT_ONCE],
        "total": parked_messages.count(session),
        "is_later": "after" in visit.query,
        "next": found[AT_ONCE - 1].number if len(found) > AT_ONCE else None,
    }
    return View("outbox.html", about)


def show_message(session: Session, visit: Visit) -> Result:
    """Show one message: its history, its body, and its actions."""
    return _message(visit, _the_message(session, visit))


def ask_retry(session: Session, visit: Visit) -> Question:
    """Ask before the relay tries a message, naming it."""
    message = _the_message(session, visit)
    return _question(message, f"Try this {message.type} now?", f"Try this {message.type} now")


def retry(session: Session, visit: Visit) -> Result:
    """Have the relay try one message now."""
    done = parked_messages.retry(session, [_number(visit)], visit.actor)
    return Redirect(
        "/outbox", "It is tried now: if it stays here, read its reason." if done else GONE
    )


def ask_retry_all(session: Session, _: Visit) -> Question:
    """Ask before all are tried, with their number and the first ones."""
    total, up_to = parked_messages.counted(session)
    messages = f"{total:,} parked {'message' if total == 1 else 'messages'}"
    return Question(
        f"Try {messages} now?",
        f"Try {messages} now",
        "/outbox",
        listed=[
            f"{row.type}: {row.reason}" for row in parked_messages.listed(session, limit=EXAMPLES)
        ],
        more="What can be published is published immediately; the rest stays parked.",
        nothing="" if total else "Nothing is parked.",
        also={UP_TO: str(up_to)},
    )


def retry_all(session: Session, visit: Visit) -> Result:
    """Have the relay try all counted messages now."""
    up_to, actor, user = positive(visit.field(UP_TO)), visit.actor, visit.user

    def work(job: Job) -> str:
        def progress(done: int) -> None:
            job.done = done
            go_on(job, user, [Right.MESSAGES])

        done = parked_messages.retry_all(engine(), actor, up_to, progress)
        return f"{done:,} {'message is' if done == 1 else 'messages are'} tried now."

    release_connection(session)
    return visit.system.jobs.begin(Job("Try all parked messages now", user.name, "/outbox"), work)


def ask_discard(session: Session, visit: Visit) -> Question:
    """Ask before a message is discarded, with the reason."""
    message, reason = _the_seen(session, visit), reason_of(visit)
    return _question(
        message,
        f"Discard this {message.type}?",
        f"Discard this {message.type}",
        more="No consumer gets it. The audit log keeps the reason and a hash of the body.",
        facts={"Reason for discarding": reason},
        is_danger=True,
    )


def discard(session: Session, visit: Visit) -> Result:
    """Discard one message, with a reason."""
    message = _the_seen(session, visit)
    with _seen():
        done = parked_messages.discard(
            session, [message.number], visit.actor, reason_of(visit), digest=message.digest
        )
    return Redirect("/outbox", "It is discarded." if done else GONE)


def ask_edit(session: Session, visit: Visit) -> Question | View:
    """Ask before an edited message is published; or show why it cannot be."""
    message = _the_seen(session, visit)
    body, about = _edited(visit)
    try:
        parked_messages.validate(message, body.encode(), about)
    except NotMendedError as error:
        return _message(visit, message, str(error), 400)
    return _question(
        message,
        f"Publish this {message.type} with this body?",
        f"Publish this {message.type}",
        more=SAME_ID,
        facts={"About": about},
        body=body,
    )


def edit(session: Session, visit: Visit) -> Result:
    """Replace the body of one message, and have the relay try it."""
    message = _the_seen(session, visit)
    body, about = _edited(visit)
    try:
        with _seen():
            done = parked_messages.edit(
                session,
                message.number,
                body.encode(),
                visit.actor,
                correlation_id=about,
                digest=message.digest,
            )
    except NotMendedError as error:
        return _message(visit, message, str(error), 400)
    return Redirect("/outbox", "It is tried now, with the new body." if done else GONE)


def _question(
    message: Parked, title: str, button: str, *, facts: Mapping[str, str] | None = None, **more: Any
) -> Question:
    known = {
        "Id": message.message_id,
        "About": message.correlation_id,
        "For": f"exchange {message.exchange}, key {message.routing_key}",
        "Reason it is parked": message.reason,
    }
    back = f"/outbox/messages/{message.number}"
    return Question(title, button, back, facts=known | dict(facts or {}), **more)


def _edited(visit: Visit) -> tuple[str, str]:
    return visit.lines("body"), visit.field("about")


def _message(visit: Visit, message: Parked, wrong: str = "", status: int = 200) -> View:
    shown = {
        "path": "/outbox",
        "message": message,
        "body": legible(message.body),
        "wrong": wrong,
        "lacks": queue_rights.lacking(visit.user, _takes(message)),
    }
    return View("outbox_message.html", shown, status, of=[message.message_id])


def _the_message(session: Session, visit: Visit) -> Parked:
    message = parked_messages.find(session, _number(visit))
    if message is None:
        raise PageError(404, GONE)
    return message


def _the_seen(session: Session, visit: Visit) -> Parked:
    """Return the path's message, if its body is that of the form's page."""
    message = _the_message(session, visit)
    if visit.field("digest") != message.digest:
        raise PageError(409, str(ChangedError()))
    return message


@contextmanager
def _seen() -> Iterator[None]:
    try:
        yield
    except ChangedError as error:
        raise PageError(409, str(error)) from None


def takes(session: Session, visit: Visit) -> Collection[Right]:
    """Return the rights needed to edit or discard the path's message."""
    return _takes(_the_message(session, visit))


def _takes(message: Parked) -> Collection[Right]:
    return queue_rights.of_message(message.exchange, message.routing_key)


def _number(visit: Visit) -> int:
    found = number(visit.path["number"])
    if found is None:
        raise PageError(404, "There is no such page: that is no number.")
    return found


PAGES = (
    Page("GET", "/outbox", "watch", show),
    Page("POST", "/outbox/retry", Right.MESSAGES, retry_all, asks=ask_retry_all),
    Page("GET", "/outbox/messages/{number}", "watch", show_message, plain=[Right.MESSAGES]),
    Page("POST", "/outbox/messages/{number}/retry", Right.MESSAGES, retry, asks=ask_retry),
    Page(
        "POST",
        "/outbox/messages/{number}/discard",
        Right.MESSAGES,
        discard,
        asks=ask_discard,
        also=takes,
    ),
    Page(
        "POST",
        "/outbox/messages/{number}/edit",
        Right.MESSAGES,
        edit,
        asks=ask_edit,
        plain=[Right.MESSAGES],
        also=takes,
        max_form_bytes=MAX_LARGE_BYTES,
    ),
)
