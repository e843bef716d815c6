"""Parked messages of the outbox: why they cannot be published, and what can be done."""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from sqlalchemy.orm import Session

from services.ops import parked_messages
from services.ops.console.web.jobs import Job, go_on
from services.ops.console.web.page import Page, Visit
from services.ops.console.web.reading import body_of, legible, number, positive
from services.ops.parked_messages import ChangedError, NotMendedError, Parked
from services.ops.users import queue_rights
from services.ops.users.rights import Right
from shared.db.session import engine, let_go
from shared.web.forms import MAX_LARGE_BYTES
from shared.web.mount import Result
from shared.web.results import PageError, Question, Redirect, View

AT_ONCE = 100
EXAMPLES = 5
UP_TO = "up_to"
"""The field that says which was the last when they were counted."""
GONE = "It is not parked any more."


def show(session: Session, visit: Visit) -> Result:
    """What is parked, in the order in which it was written."""
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
    """One message: its story, its body, and what can be done."""
    return _message(visit, _the_message(session, visit))


def ask_retry(session: Session, visit: Visit) -> Question:
    """Name the message that the relay shall try."""
    message = _the_message(session, visit)
    return _question(message, f"Try this {message.type} now?", f"Try this {message.type} now")


def retry(session: Session, visit: Visit) -> Result:
    """Let the relay try one message now."""
    done = parked_messages.retry(session, [_number(visit)], visit.actor)
    return Redirect(
        "/outbox", "It is tried now: if it stays here, read its reason." if done else GONE
    )


def ask_retry_all(session: Session, _: Visit) -> Question:
    """Say how many are tried, and the first of them."""
    total, up_to = parked_messages.counted(session)
    messages = f"{total:,} parked {'message' if total == 1 else 'messages'}"
    return Question(
        f"Try {messages} now?",
        f"Try {messages} now",
        "/outbox",
        listed=[
            f"{row.type}: {row.reason}" for row in parked_messages.listed(session, limit=EXAMPLES)
        ],
        more="What can be published goes out at once; the rest stays parked.",
        nothing="" if total else "Nothing is parked.",
        also={UP_TO: str(up_to)},
    )


def retry_all(session: Session, visit: Visit) -> Result:
    """Let the relay try all of them now that were counted."""
    up_to, actor, user = positive(visit.field(UP_TO)), visit.actor, visit.user

    def work(job: Job) -> str:
        def progress(done: int) -> None:
            job.done = done
            go_on(job, user, [Right.MESSAGES])

        done = parked_messages.retry_all(engine(), actor, up_to, progress)
        return f"{done:,} {'message is' if done == 1 else 'messages are'} tried now."

    let_go(session)
    return visit.system.jobs.begin(Job("Try all parked messages now", user.name, "/outbox"), work)


def ask_discard(session: Session, visit: Visit) -> Question:
    """Name the message that is thrown away, and the reason."""
    message, reason = _the_seen(session, visit), _reason(visit)
    return _question(
        message,
        f"Discard this {message.type}?",
        f"Discard this {message.type}",
        more="Nobody is told what it says. The audit log keeps the reason and a hash of the body.",
        facts={"Reason for discarding": reason},
        is_danger=True,
    )


def discard(session: Session, visit: Visit) -> Result:
    """Throw one message away, with a reason."""
    message = _the_seen(session, visit)
    with _seen():
        done = parked_messages.discard(
            session, [message.number], visit.actor, _reason(visit), digest=message.digest
        )
    return Redirect("/outbox", "It is discarded." if done else GONE)


def ask_edit(session: Session, visit: Visit) -> Question | View:
    """Show the message as it would go out; or why it cannot."""
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
        more="Under the same id: what was done by it already is not done twice.",
        facts={"About": about},
        body=body,
    )


def edit(session: Session, visit: Visit) -> Result:
    """Give one message another body, and let the relay try it."""
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


def _reason(visit: Visit) -> str:
    if not (reason := visit.field("why")):
        raise PageError(400, "Say why: the audit log keeps it.")
    return reason


def _edited(visit: Visit) -> tuple[str, str]:
    return body_of(visit), visit.field("about")


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
    """The path's message, with the body that the form came with."""
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
    """The rights that it takes to change what the path's message says, or to throw it away."""
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
