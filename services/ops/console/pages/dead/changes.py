"""Actions on dead letters: replay, discard, edit, retry; and the questions before them."""

from collections.abc import Callable
from dataclasses import replace as but
from datetime import UTC, datetime

from kombu import Connection
from sqlalchemy.orm import Session

from services.ops.broker.hold import NOT_WHOLE, BusyError
from services.ops.console.pages.dead.filter import AGES, Filter, queue_of, takes
from services.ops.console.pages.dead.letters import NOW, letter_page
from services.ops.console.web.jobs import Job, go_on
from services.ops.console.web.page import Page, Visit
from services.ops.console.web.reading import SAME_ID, reason_of
from services.ops.dead_letters import actions, editing, retry_queue, search
from services.ops.dead_letters.actions import OnProgress, Progress
from services.ops.dead_letters.editing import DiedAgainError, NotEditableError
from services.ops.dead_letters.letter import Criteria
from services.ops.users import queue_rights
from services.ops.users.rights import Right
from shared.bus.contract import topology
from shared.db.session import engine, release_connection
from shared.web.forms import MAX_LARGE_BYTES, uuid_of
from shared.web.mount import Result
from shared.web.results import PageError, Question, Redirect, View

EXAMPLES = 5
COUNTED = 1_000
AS_OF = "as_of"
"""The field with the time of the question: letters that die later are not included."""


def ask_replay(session: Session, visit: Visit) -> Question:
    """Ask before a replay, with the number of letters and the first ones."""
    if visit.field("why"):
        raise PageError(400, "A replay has no reason: was this to be a discarding?")
    return _question(
        session,
        visit,
        "Replay",
        more="They go back as before their first attempt. What was done already is not done twice.",
    )


def replay(session: Session, visit: Visit) -> Result:
    """Replay the ticked letters, or all that match."""
    queue, criteria, actor = queue_of(visit), _criteria(visit), visit.actor

    def work(connection: Connection, progress: OnProgress) -> Progress:
        return actions.replay(connection, engine(), queue, criteria, actor, progress=progress)

    return _begin(
        session, visit, queue, f"Replay dead letters of {queue.name}", "replayed", work, criteria
    )


def ask_discard(session: Session, visit: Visit) -> Question:
    """Ask before letters are discarded, with their number, the first ones and the reason."""
    return _question(
        session,
        visit,
        "Discard",
        more="The audit log keeps the reason; the journal keeps their bodies, for seven days.",
        is_danger=True,
        why=reason_of(visit),
    )


def discard(session: Session, visit: Visit) -> Result:
    """Discard letters, with a reason."""
    queue, criteria, actor = queue_of(visit), _criteria(visit), visit.actor
    reason = reason_of(visit)

    def work(connection: Connection, progress: OnProgress) -> Progress:
        return actions.discard(
            connection, engine(), queue, criteria, actor, reason, progress=progress
        )

    return _begin(
        session, visit, queue, f"Discard dead letters of {queue.name}", "discarded", work, criteria
    )


def ask_edit(session: Session, visit: Visit) -> Question | View:
    """Ask before an edited letter is replayed; or show why it cannot be."""
    queue, id_, type_ = queue_of(visit), visit.field("id"), visit.field("type")
    body = visit.lines("body")
    try:
        editing.validate(queue, type_, body.encode())
    except NotEditableError as error:
        return letter_page(session, visit, queue, id_, wrong=str(error), status=400)
    with visit.system.broker(session) as connection:
        letter = search.find(connection, queue, id_)
    if letter is None or str(letter.death) != visit.field("death"):
        return letter_page(session, visit, queue, id_)
    return Question(
        f"Replay this letter of {queue.name} with this body?",
        f"Replay this {type_}",
        f"/dead/{queue.name}",
        facts={"Id": id_, "Type": type_},
        more=SAME_ID,
        body=body,
    )


def edit(session: Session, visit: Visit) -> Result:
    """Replay one letter with another body."""
    queue, id_, type_ = queue_of(visit), visit.field("id"), visit.field("type")
    body = visit.lines("body")
    try:
        with visit.system.broker(session) as connection:
            is_done = editing.edit(
                connection,
                engine(),
                queue,
                id_,
                body.encode(),
                visit.actor,
                death=uuid_of(visit.field("death")),
                type=type_,
            )
    except DiedAgainError:
        return letter_page(session, visit, queue, id_)
    except NotEditableError as error:
        return letter_page(session, visit, queue, id_, wrong=str(error), status=400)
    visit.system.digests.forget(queue)
    note = f"Replayed with the new body: {id_}." if is_done else f"{id_} is no longer there."
    return Redirect(f"/dead/{queue.name}", note)


def ask_retry(session: Session, visit: Visit) -> Question:
    """Ask before the waiting retries of a queue are tried, with their number."""
    queue = queue_of(visit)
    with visit.system.broker(session) as connection:
        ladder = retry_queue.waiting(connection).of(queue.name)
    found = ladder.messages
    if not found and not ladder.alone:
        raise PageError(503, str(BusyError.of("the retry ladder")))
    if not found and ladder.unseen:
        raise PageError(503, str(BusyError.beyond("the retry ladder")))
    at_least = "" if ladder.alone and not ladder.unseen else "at least "
    count = f"{at_least}{_messages(len(found))}"
    return Question(
        f"Try {count} of {queue.name} again now?",
        f"Try {count} now",
        f"/dead/{queue.name}",
        listed=[f"{m.type} in {m.rung}: {m.reason}" for m in found[:EXAMPLES]],
        more="Each attempt counts: after another failure the next delay is longer.",
        nothing="" if found else f"Nothing waits on the retry ladder for {queue.name}.",
    )


def retry(session: Session, visit: Visit) -> Result:
    """Put the waiting retries of a queue back immediately."""
    queue, actor = queue_of(visit), visit.actor

    def work(connection: Connection, progress: OnProgress) -> Progress:
        return retry_queue.retry_now(connection, engine(), queue, actor, progress=progress)

    return _begin(session, visit, queue, f"Retry now what waits for {queue.name}", "put back", work)


def _question(
    session: Session, visit: Visit, does: str, *, more: str, is_danger: bool = False, why: str = ""
) -> Question:
    """Return a question about the ticked letters, or all that match."""
    queue, criteria = queue_of(visit), _criteria(visit)
    # Without criteria the broker has the number; with some, letters are fetched to be counted.
    most = EXAMPLES if criteria.is_empty else COUNTED
    with visit.system.broker(session) as connection:
        browse = search.browse if visit.field(NOW) else visit.system.digests.browse
        page = browse(connection, queue, criteria, limit=most)
        missing = set(criteria.ids).difference(letter.message_id for letter in page.letters)
        is_missed = missing or not (page.letters or page.is_whole)
        if page.looked_at and is_missed:  # newer, or beyond the digest
            page = search.browse(connection, queue, criteria, limit=most)
    # By their consumers' clocks.
    died = [letter.failed_at for letter in page.letters if letter.failed_at is not None]
    # Letters that died since the digest are not in the question, and not included.
    asked_at, total = page.looked_at or datetime.now(UTC), page.seen or page.total
    count = total if criteria.is_empty else len(page.letters)
    is_exact = criteria.is_empty or page.is_whole or 0 < len(criteria.ids) <= count
    letters = (
        f"{'' if is_exact else 'at least '}{count:,} dead {'letter' if count == 1 else 'letters'}"
    )
    nothing = "No such letter is there (any more)." if page.is_whole else NOT_WHOLE
    wanted = _filter(visit) if visit.field("all") == "yes" else Filter()
    return Question(
        f"{does} {letters} of {queue.name}?",
        f"{does} {letters}",
        f"/dead/{queue.name}?{wanted.query()}",
        facts={
            "Queue": f"{queue.name}, {page.total:,} dead in all",
            "Looked through": "" if page.looked_at is None else _ago(page.looked_at),
            "Reason holds": wanted.reason,
            "Type": wanted.type,
            "Age": AGES[wanted.age][0] if wanted.age else "",
            "About": wanted.about,
            "Reason for discarding": why,
        },
        listed=[
            f"{letter.message_id} {letter.type}: {letter.reason}"
            for letter in page.letters[:EXAMPLES]
        ],
        more=more,
        nothing="" if count else nothing,
        is_danger=is_danger,
        also={AS_OF: max([asked_at, *died]).isoformat()},
    )


def _begin(
    session: Session,
    visit: Visit,
    queue: topology.Queue,
    title: str,
    done: str,
    act: Callable[[Connection, OnProgress], Progress],
    wanted: Criteria = Criteria(),  # noqa: B008 - immutable
) -> Result:
    """Start a job; redirect back if it ends soon, else to its progress page."""

    def work(job: Job) -> str:
        def progress(so_far: Progress) -> None:
            job.done, job.total = so_far.done, so_far.total
            go_on(job, visit.user, queue_rights.of_queues([queue.name]))

        with visit.system.broker(None) as connection:
            try:
                state = act(connection, progress)
            finally:
                visit.system.digests.forget(queue)
        return " ".join([f"{_messages(state.done)} {done}.", *actions.missed(state, wanted)])

    release_connection(session)
    return visit.system.jobs.begin(Job(title, visit.user.name, f"/dead/{queue.name}"), work)


def _filter(visit: Visit) -> Filter:
    return Filter.of({name: visit.field(name) for name in ("reason", "type", "age", "about")})


def _criteria(visit: Visit) -> Criteria:
    as_of = _as_of(visit)
    if visit.field("all") == "yes":
        return but(_filter(visit).criteria(), as_of=as_of)
    if not (ids := frozenset(visit.form.get("id", ()))):
        raise PageError(400, "Select at least one message.")
    return Criteria(ids=ids, as_of=as_of)


def _as_of(visit: Visit) -> datetime | None:
    """Return the time of the question; None while it is asked."""
    if not (text := visit.field(AS_OF)):
        return None
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except ValueError:
        raise PageError(400, "The form cannot be read.") from None


def _ago(at: datetime) -> str:
    return f"{(datetime.now(UTC) - at).total_seconds():.0f} s ago"


def _messages(count: int) -> str:
    return f"{count:,} {'message' if count == 1 else 'messages'}"


PAGES = (
    Page("POST", "/dead/{queue}/replay", Right.MESSAGES, replay, asks=ask_replay, also=takes),
    Page("POST", "/dead/{queue}/discard", Right.MESSAGES, discard, asks=ask_discard, also=takes),
    Page(
        "POST",
        "/dead/{queue}/edit",
        Right.MESSAGES,
        edit,
        asks=ask_edit,
        plain=[Right.MESSAGES],
        also=takes,
        max_form_bytes=MAX_LARGE_BYTES,
    ),
    Page("POST", "/dead/{queue}/retry", Right.MESSAGES, retry, asks=ask_retry, also=takes),
)
