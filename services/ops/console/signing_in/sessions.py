"""Pages of the user's own sessions: list and end them."""

from sqlalchemy.orm import Session

from services.ops.audit.actions import about
from services.ops.console.web.page import Page, Visit
from services.ops.users import sessions
from shared.bus import outbox
from shared.bus.contract.events import OpsSessionsEnded
from shared.web.browsers import browser, in_words
from shared.web.forms import uuid_of
from shared.web.mount import Result
from shared.web.results import PageError, Question, Redirect, View

PATH = "/sessions"


def show(session: Session, visit: Visit) -> Result:
    """List the user's sessions, newest first."""
    found = _listed(session, visit)
    shown = [(listed, browser(listed.where.client)) for listed in found]
    return View("sessions.html", {"path": PATH, "sessions": shown})


def ask_end(session: Session, visit: Visit) -> Question:
    """Ask before a session is ended, naming it."""
    wanted = uuid_of(visit.path["session_id"])
    found = next((listed for listed in _listed(session, visit) if listed.id == wanted), None)
    if found is None:
        raise PageError(404, "You no longer have this session.")
    where = in_words(found.where.network, found.where.client)
    return Question(f"End the session from {where}?", "End this session", PATH, is_danger=True)


def end(session: Session, visit: Visit) -> Result:
    """End one session."""
    ended = sessions.end_one(session, visit.user.id, uuid_of(visit.path["session_id"]))
    return _ended(session, visit, ended)


def ask_end_others(session: Session, visit: Visit) -> Question:
    """Ask before all others are ended, with their number."""
    count = len(_listed(session, visit)) - 1
    other = f"{count} other {'session' if count == 1 else 'sessions'}"
    return Question(
        f"End {other}?",
        f"End {other}",
        PATH,
        nothing="" if count else "You are signed in nowhere else.",
        is_danger=True,
    )


def end_others(session: Session, visit: Visit) -> Result:
    """End all sessions but this browser's."""
    return _ended(session, visit, sessions.end_others(session, visit.user.id, visit.token))


def _listed(session: Session, visit: Visit) -> list[sessions.Listed]:
    return sessions.listed(session, visit.user.id, visit.system.config, visit.token)


def _ended(session: Session, visit: Visit, count: int) -> Result:
    name = visit.user.name
    fact = OpsSessionsEnded(**visit.actor.fields, user=name, sessions=count)
    outbox.add(session, [about(fact, name)])
    return Redirect(PATH, f"{count} {'session' if count == 1 else 'sessions'} ended.")


PAGES = (
    Page("GET", PATH, "watch", show),
    Page("POST", f"{PATH}/others/end", "watch", end_others, asks=ask_end_others),
    Page("POST", f"{PATH}/{{session_id}}/end", "watch", end, asks=ask_end),
)
