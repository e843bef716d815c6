"""Pages of troubles: acknowledging and muting them."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

from sqlalchemy.orm import Session

from services.ops.audit.actions import unfit
from services.ops.console.pages.runbook import section
from services.ops.console.web.page import Page, Visit
from services.ops.console.web.reading import number
from services.ops.monitoring import episodes
from services.ops.monitoring.episodes import MUTED_FOR, Episode
from services.ops.users.rights import Right
from shared.web.forms import uuid_of
from shared.web.mount import Result
from shared.web.results import PageError, Question, Redirect, View

SHOWN = 100
OVER = "It has ended meanwhile."


def show_all(session: Session, _: Visit) -> Result:
    """List the open and the ended troubles."""
    found = episodes.newest(session, SHOWN + 1)
    about = {"path": "/", "troubles": found[:SHOWN], "are_more": len(found) > SHOWN}
    return View("troubles.html", about)


def show(session: Session, visit: Visit) -> Result:
    """Show one trouble: since when, who looks after it, and its actions."""
    trouble = _found(session, visit)
    about = {
        "path": "/",
        "trouble": trouble,
        "muted_for": MUTED_FOR,
        "what_to_do": section(trouble.about, trouble.key.removeprefix(f"{trouble.about}: ")),
    }
    return View("trouble.html", about)


def ask_acknowledge(session: Session, visit: Visit) -> Question:
    """Ask before the user acknowledges it."""
    trouble = _found(session, visit)
    return Question(
        "Acknowledge this trouble?",
        "Acknowledge",
        f"/troubles/{trouble.id}",
        facts={
            "Trouble": trouble.text,
            "As": visit.user.name,
            "Note": _note(visit),
            "Until now": trouble.acknowledged_by,
        },
        more="All operators see who looks after it. There are no more reminders; its end is sent, "
        f"and that it has doubled{_of(trouble)}.",
        nothing=OVER if trouble.ended_at else "",
    )


def acknowledge(session: Session, visit: Visit) -> Result:
    """Record the user as the one who looks after it."""
    now = datetime.now(UTC)
    is_done = episodes.acknowledge(
        session, _id(visit), visit.actor, _note(visit), now, _shown(visit)
    )
    return _to(visit, "Acknowledged." if is_done else OVER)


def ask_mute(session: Session, visit: Visit) -> Question:
    """Ask before alerts are suppressed."""
    trouble = _found(session, visit)
    words, _ = _duration(visit)
    return Question(
        f"Mute this trouble {words}?",
        f"Mute it {words}",
        f"/troubles/{trouble.id}",
        facts={"Trouble": trouble.text},
        more="No alert about it is sent meanwhile, unless it grows to twice as much"
        f"{_of(trouble)}. It stays on the overview.",
        nothing=OVER if trouble.ended_at else "",
    )


def mute(session: Session, visit: Visit) -> Result:
    """Suppress alerts about it."""
    words, duration = _duration(visit)
    until = None if duration is None else datetime.now(UTC) + duration
    is_done = episodes.mute(session, _id(visit), visit.actor, until, _shown(visit))
    return _to(visit, f"Muted {words}." if is_done else OVER)


def ask_unmute(session: Session, visit: Visit) -> Question:
    """Ask before alerts are sent again."""
    trouble = _found(session, visit)
    return Question(
        "Unmute this trouble?",
        "Unmute it",
        f"/troubles/{trouble.id}",
        facts={"Trouble": trouble.text, "Muted by": trouble.muted_by},
        more="Alerts about it are sent again.",
        nothing=OVER if trouble.ended_at else "",
    )


def unmute(session: Session, visit: Visit) -> Result:
    """Send alerts about it again."""
    is_done = episodes.unmute(session, _id(visit), visit.actor)
    return _to(visit, "Unmuted." if is_done else OVER)


def _of(trouble: Episode) -> str:
    """Return the current figure for a sentence, if the trouble can grow."""
    return f" from now, {trouble.figure:,}" if trouble.figure else ""


def _shown(visit: Visit) -> int | None:
    """Return the figure on the page that the form came from."""
    return number(visit.field("figure"))


def _id(visit: Visit) -> UUID:
    return uuid_of(visit.path["trouble_id"])


def _found(session: Session, visit: Visit) -> Episode:
    found = episodes.find(session, _id(visit))
    if found is None:
        raise PageError(404, "There is no such trouble.")
    return found


def _note(visit: Visit) -> str:
    note = visit.field("note")
    if note.strip() and (wrong := unfit(note)):
        raise PageError(400, f"Your note {wrong}.")
    return note.strip()


def _duration(visit: Visit) -> tuple[str, timedelta | None]:
    try:
        return MUTED_FOR[visit.field("for")]
    except KeyError:
        raise PageError(400, "Say for how long: 1h, 8h or end.") from None


def _to(visit: Visit, note: str) -> Redirect:
    return Redirect(f"/troubles/{_id(visit)}", note)


_ONE = "/troubles/{trouble_id}"
PAGES = (
    Page("GET", "/troubles", "watch", show_all),
    Page("GET", _ONE, "watch", show),
    Page("POST", f"{_ONE}/acknowledge", "watch", acknowledge, asks=ask_acknowledge),
    Page("POST", f"{_ONE}/mute", Right.MESSAGES, mute, asks=ask_mute),
    Page("POST", f"{_ONE}/unmute", Right.MESSAGES, unmute, asks=ask_unmute),
)
