"""The dead-letter desk: looking through letters without disturbing them, and putting them right."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from urllib.parse import urlencode

from kombu import Connection
from sqlalchemy.orm import Session

from services.ops import dead_actions, dead_letters, retry_now
from services.ops.console.jobs import Job, JobStopped
from services.ops.console.page import Page, PageError, Redirect, Result, View, Visit
from services.ops.console.reading import legible, positive
from services.ops.dead_actions import NotEditableError, OnProgress, Progress
from services.ops.letters import Criteria
from shared.bus import topology
from shared.db.session import engine

AT_ONCE = 100
EXAMPLES = 5
COUNTED = 1_000
QUICK_SECONDS = 1.5
"""Work that is done within so long is told of at once, without a page of its own."""
AGES = {
    "": ("Any age", None, None),
    "-10m": ("Died within 10 min", None, timedelta(minutes=10)),
    "-1h": ("Died within an hour", None, timedelta(hours=1)),
    "1h": ("Died over an hour ago", timedelta(hours=1), None),
    "1d": ("Died over a day ago", timedelta(days=1), None),
    "7d": ("Died over a week ago", timedelta(days=7), None),
}


@dataclass(frozen=True, slots=True)
class Filter:
    """Which letters, as the page's form says it."""

    reason: str = ""
    type: str = ""
    age: str = ""
    about: str = ""

    def criteria(self) -> Criteria:
        """The same for `dead_letters`."""
        _, older, younger = AGES[self.age]
        return Criteria(
            reason=self.reason,
            type=self.type,
            correlation_id=self.about,
            older_than=older,
            younger_than=younger,
        )

    def query(self, **more: object) -> str:
        """The same as a query string, with more in it."""
        given = {"reason": self.reason, "type": self.type, "age": self.age, "about": self.about}
        return urlencode({name: value for name, value in (given | more).items() if value})


def show_queues(_: Session, visit: Visit) -> Result:
    """Every work queue: its dead letters, and what is on the ladder for it."""
    look = visit.system.lookout.latest
    figures = [look.figures[queue.name] for queue in topology.WORK_QUEUES] if look else []
    return View("dead.html", {"path": "/dead", "figures": figures, "look": look})


def show_letters(_: Session, visit: Visit) -> Result:
    """A page of one queue's letters."""
    queue, wanted = _queue(visit), _filter(visit.query)
    start = positive(visit.query.get("start", ""))
    with visit.system.broker() as connection:
        page = dead_letters.browse(
            connection, queue, wanted.criteria(), start=start, limit=AT_ONCE, engine=engine()
        )
    look = visit.system.lookout.latest
    about = {
        "path": "/dead",
        "queue": queue,
        "letters": page,
        "start": start,
        "filter": wanted,
        "ages": AGES,
        "types": dead_actions.types_for(queue),
        "is_filtered": not wanted.criteria().is_empty,
        "figures": look.figures.get(queue.name) if look else None,
    }
    return View("dead_letters.html", about)


def show_reasons(_: Session, visit: Visit) -> Result:
    """What the letters of a queue died of."""
    queue = _queue(visit)
    with visit.system.broker() as connection:
        summary = dead_letters.summarise(connection, queue, engine=engine())
    rows = [(group, Filter(reason=group.kind, type=group.type).query()) for group in summary.groups]
    return View(
        "dead_reasons.html", {"path": "/dead", "queue": queue, "summary": summary, "rows": rows}
    )


def show_letter(_: Session, visit: Visit) -> Result:
    """One letter: its story, its body, and what can be done."""
    return _letter(visit, _queue(visit), visit.query.get("id", ""))


def confirm(_: Session, visit: Visit) -> Result:
    """Ask before all letters that fit are replayed or discarded."""
    queue, wanted = _queue(visit), _filter(visit.query)
    act = visit.query.get("do", "")
    if act not in ("replay", "discard"):
        raise PageError(404, "There is no such action.")
    criteria = wanted.criteria()
    # Without criteria the broker knows the number; with some, letters must be held to be counted.
    most = EXAMPLES if criteria.is_empty else COUNTED
    with visit.system.broker() as connection:
        page = dead_letters.browse(connection, queue, criteria, limit=most, engine=engine())
    about = {
        "path": "/dead",
        "queue": queue,
        "filter": wanted,
        "ages": AGES,
        "do": act,
        "count": page.total if criteria.is_empty else len(page.letters),
        "or_more": not criteria.is_empty and page.next is not None,
        "total": page.total,
        "first": page.letters[:EXAMPLES],
    }
    return View("dead_confirm.html", about)


def replay(_: Session, visit: Visit) -> Result:
    """Put letters back: those that are ticked, or all that fit."""
    queue, criteria, actor = _queue(visit), _meant(visit), visit.actor

    def work(connection: Connection, progress: OnProgress) -> Progress:
        return dead_actions.replay(connection, engine(), queue, criteria, actor, progress=progress)

    return _begin(visit, queue, f"Replay dead letters of {queue.name}", "replayed", work)


def discard(_: Session, visit: Visit) -> Result:
    """Throw letters away, with a reason."""
    queue, criteria, actor = _queue(visit), _meant(visit), visit.actor
    reason = visit.field("why")
    if not reason:
        raise PageError(400, "Say why they are discarded: the audit log keeps it.")

    def work(connection: Connection, progress: OnProgress) -> Progress:
        return dead_actions.discard(
            connection, engine(), queue, criteria, actor, reason, progress=progress
        )

    return _begin(visit, queue, f"Discard dead letters of {queue.name}", "discarded", work)


def edit(_: Session, visit: Visit) -> Result:
    """Put one letter back with another body."""
    queue, id_ = _queue(visit), visit.field("id")
    # A browser sends line ends as CRLF (HTML standard, 4.10.21.5), and bodies have none.
    body = visit.form.get("body", [""])[0].replace("\r\n", "\n")
    type_ = visit.field("type")
    try:
        with visit.system.broker() as connection:
            is_done = dead_actions.edit(
                connection, engine(), queue, id_, body.encode(), visit.actor, type=type_
            )
    except NotEditableError as error:
        return _letter(visit, queue, id_, body=body, type_=type_, wrong=str(error), status=400)
    note = f"Replayed with the new body: {id_}." if is_done else f"{id_} is not there any more."
    return Redirect(f"/dead/{queue.name}", note)


def retry(_: Session, visit: Visit) -> Result:
    """Put back at once what waits on the ladder for a queue."""
    queue, actor = _queue(visit), visit.actor

    def work(connection: Connection, progress: OnProgress) -> Progress:
        return retry_now.retry_now(connection, engine(), queue, actor, progress=progress)

    return _begin(visit, queue, f"Retry now what waits for {queue.name}", "put back", work)


def _begin(
    visit: Visit,
    queue: topology.Queue,
    title: str,
    done: str,
    act: Callable[[Connection, OnProgress], Progress],
) -> Result:
    """Start the work; go back when it is done soon, else to where it can be watched."""

    def work(job: Job) -> str:
        def progress(so_far: Progress) -> None:
            job.done, job.total = so_far.done, so_far.total
            if job.stopping.is_set():
                raise JobStopped

        with visit.system.broker() as connection:
            state = act(connection, progress)
        missed = (
            "" if state.alone else " Somebody else was at work there: what they had was left out."
        )
        return f"{state.done:,} {'message' if state.done == 1 else 'messages'} {done}.{missed}"

    job = visit.system.jobs.start(Job(title, visit.user.name, f"/dead/{queue.name}"), work)
    if job.ended.wait(QUICK_SECONDS) and not job.failed:
        return Redirect(job.back, job.outcome)
    return Redirect(f"/jobs/{job.id}")


def _letter(
    visit: Visit,
    queue: topology.Queue,
    id_: str,
    *,
    body: str | None = None,
    type_: str = "",
    wrong: str = "",
    status: int = 200,
) -> View:
    with visit.system.broker() as connection:
        letter = dead_letters.find(connection, queue, id_, engine=engine())
    if letter is None:
        raise PageError(404, "There is no such dead letter any more.")
    about = {
        "path": "/dead",
        "queue": queue,
        "letter": letter,
        "body": legible(letter.text) if body is None else body,
        "type": type_ or letter.type,
        "types": dead_actions.types_for(queue),
        "wrong": wrong,
    }
    return View("dead_letter.html", about, status)


def _queue(visit: Visit) -> topology.Queue:
    try:
        return dead_letters.work_queue(visit.path["queue"])
    except dead_letters.NoSuchQueueError as error:
        raise PageError(404, str(error)) from None


def _filter(given: Mapping[str, Any]) -> Filter:
    age = given.get("age", "")
    return Filter(
        reason=given.get("reason", "").strip(),
        type=given.get("type", "").strip(),
        age=age if age in AGES else "",
        about=given.get("about", "").strip(),
    )


def _meant(visit: Visit) -> Criteria:
    ids = frozenset(visit.form.get("id", ()))
    if ids:
        return Criteria(ids=ids)
    if visit.field("all") != "yes":
        raise PageError(400, "No letter is ticked.")
    return _filter(
        {name: visit.field(name) for name in ("reason", "type", "age", "about")}
    ).criteria()


PAGES = (
    Page("GET", "/dead", "watch", show_queues),
    Page("GET", "/dead/{queue}", "watch", show_letters),
    Page("GET", "/dead/{queue}/reasons", "watch", show_reasons),
    Page("GET", "/dead/{queue}/letter", "watch", show_letter),
    Page("GET", "/dead/{queue}/all", "act", confirm),
    Page("POST", "/dead/{queue}/replay", "act", replay),
    Page("POST", "/dead/{queue}/discard", "act", discard),
    Page("POST", "/dead/{queue}/edit", "act", edit),
    Page("POST", "/dead/{queue}/retry", "act", retry),
)
