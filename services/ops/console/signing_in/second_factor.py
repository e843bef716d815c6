"""Pages of the user's own second factor."""

import segno
from markupsafe import Markup
from sqlalchemy.orm import Session

from services.ops.audit.actions import about
from services.ops.console.signing_in.sign_in import (
    WRONG_CODE,
    HeldUp,
    by_code,
    by_password,
    wrong_code,
)
from services.ops.console.web.page import Page, Visit
from services.ops.users import second_factor, sessions
from shared.bus import outbox
from shared.bus.contract.events import OpsSecondFactorChanged
from shared.security.encryption import CannotOpenError
from shared.web.mount import Result
from shared.web.results import PageError, Question, Redirect, View

PATH = "/second-factor"
WRONG_PASSWORD = "The password is wrong."  # noqa: S105 - a sentence
WRONG_ENROLMENT = "The enrolment code is wrong, or another was made since."


def show(session: Session, visit: Visit) -> Result:
    """Show the second factor, and the offered secret that awaits its first code."""
    return _page(session, visit)


def offer(session: Session, visit: Visit) -> Result:
    """Offer a new secret, after a code of the current second factor, or else the password."""
    prove = _refused if visit.user.has_second_factor else _refused_password
    if refused := prove(session, visit):
        return refused
    second_factor.offer(session, visit.user.id, visit.token)
    return Redirect(PATH)


def confirm(session: Session, visit: Visit) -> Result:
    """Activate the offered secret, and end the user's other sessions.

    It needs the password again (NIST SP 800-63B, 6.1.2.1; OWASP ASVS 3.7.1), since a signed-in
    browser may have been left open. Where a second factor is required, the first one needs an
    enrolment code too, since the password alone may be known to others.
    """
    if refused := _refused_password(session, visit):
        return refused
    enrolment = session.begin_nested()
    if visit.system.visitors.must_set_up(visit.user) and (refused := _refused_code(session, visit)):
        return refused
    try:
        codes = second_factor.confirm(session, visit.user.id, visit.field("code"), visit.token)
    except CannotOpenError:
        raise PageError(503, "The secret can no longer be read: begin anew.") from None
    if codes is None:
        enrolment.rollback()  # the enrolment code stays unused
        return _page(session, visit, WRONG_CODE, 400)
    enrolment.commit()
    sessions.end_others(session, visit.user.id, visit.token)
    _record(session, visit, "set_up")
    return View("recovery_codes.html", {"path": PATH, "codes": codes, "is_set_up": True})


def ask_codes(_: Session, __: Visit) -> Question:
    """Ask before the recovery codes are replaced."""
    return Question(
        f"Make {second_factor.RECOVERY_CODES} new recovery codes?",
        "Make new recovery codes",
        PATH,
        more="Your present ones stop working. The new ones are shown once.",
    )


def make_codes(session: Session, visit: Visit) -> Result:
    """Make new recovery codes, after a code of the second factor."""
    if refused := _refused(session, visit):
        return refused
    codes = second_factor.make_recovery_codes(session, visit.user.id)
    _record(session, visit, "recovery_codes_made")
    return View("recovery_codes.html", {"path": PATH, "codes": codes, "is_set_up": False})


def _refused(session: Session, visit: Visit) -> View | None:
    """Return the page for a wrong code; None if it was right."""
    kind = by_code(session, visit, visit.user)
    if isinstance(kind, HeldUp):
        return _page(session, visit, str(kind), 429)
    if kind is not None:
        return None
    return _page(session, visit, wrong_code(session, visit, visit.user), 400)


def _refused_password(session: Session, visit: Visit) -> View | None:
    """Return the page for a wrong password; None if it was right."""
    proved = by_password(session, visit, visit.user.name)
    if isinstance(proved, HeldUp):
        return _page(session, visit, str(proved), 429)
    return _page(session, visit, WRONG_PASSWORD, 400) if proved is None else None


def _refused_code(session: Session, visit: Visit) -> View | None:
    """Return the page for a wrong enrolment code; None if it was right."""
    kind = by_code(session, visit, visit.user, "enrolment")
    if isinstance(kind, HeldUp):
        return _page(session, visit, str(kind), 429)
    return None if kind == "recovery_code" else _page(session, visit, WRONG_ENROLMENT, 400)


def _page(session: Session, visit: Visit, wrong: str = "", status: int = 200) -> View:
    try:
        offered = second_factor.offered(session, visit.user.id, visit.user.name, visit.token)
    except CannotOpenError:
        offered = None
    shown = {
        "path": PATH,
        "standing": second_factor.standing(session, visit.user.id),
        "offered": offered,
        "picture": _picture(offered.uri) if offered else "",
        "is_required": visit.system.visitors.must_set_up(visit.user),
        "wrong": wrong,
        "of": visit.asked_for.rpartition("/")[2],
    }
    return View("second_factor.html", shown, status)


def _picture(uri: str) -> Markup:
    """Return a QR code as SVG, without style or script."""
    return Markup(segno.make(uri, error="m").svg_inline(scale=4, light="#fff"))  # noqa: S704 - ours


def _record(session: Session, visit: Visit, change: str) -> None:
    fact = OpsSecondFactorChanged(
        **visit.actor.fields,
        user=visit.user.name,
        change=change,  # type: ignore[arg-type]
    )
    outbox.add(session, [about(fact, visit.user.name)])


PAGES = (
    Page("GET", PATH, "watch", show, before_second_factor=True),
    Page("POST", f"{PATH}/offer", "watch", offer, takes_password=True, before_second_factor=True),
    Page(
        "POST",
        f"{PATH}/confirm",
        "watch",
        confirm,
        takes_password=True,
        before_second_factor=True,
    ),
    Page("POST", f"{PATH}/codes", "watch", make_codes, asks=ask_codes),
)
