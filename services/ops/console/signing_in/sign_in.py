"""Signing in, by a password and, where there is a second factor, a code; and signing out."""

from collections.abc import Sequence
from datetime import UTC
from urllib.parse import quote

from sqlalchemy.orm import Session

from services.ops.audit.actions import about
from services.ops.console.web.page import Page, Redirect, Result, View, Visit
from services.ops.users import second_factor, sessions, users
from services.ops.users.users import User
from shared.bus import outbox
from shared.bus.contract.events import OpsSignedIn, OpsSignedOut, OpsSignInFailed
from shared.security.encryption import CannotOpenError
from shared.security.networks import network_of
from shared.web.browsers import in_words
from shared.web.results import PageError, own_path

PLACE = "see Sessions, at your name"
WRONG = "The name or the password is wrong."
WRONG_CODE = "The code is wrong, or was used already: then wait for the next one."


def show(_: Session, visit: Visit) -> Result:
    """The form."""
    if visit.visitor is not None:
        return Redirect(own_path(visit.query.get("next", "/")))
    return View("sign_in.html", {"next": visit.query.get("next", "/"), "name": "", "wrong": ""})


def sign_in(session: Session, visit: Visit) -> Result:
    """Take a name and a password."""
    name, wanted = visit.field("name"), visit.field("next") or "/"
    if wrong := too_many_attempts(session, visit, name):
        return View("sign_in.html", {"next": wanted, "name": name, "wrong": wrong}, 429)
    # Not stripped: blanks may be part of it.
    user = users.verify(session, name, visit.form.get("password", [""])[0])
    if user is None:
        tell_failure(session, visit, name.lower()[:64])
        return View("sign_in.html", {"next": wanted, "name": name, "wrong": WRONG}, 401)
    if user.has_second_factor:
        token = sessions.start(session, user, visit.system.config, visit.where, awaits_code=True)
        return Redirect(f"/sign-in/code?next={quote(own_path(wanted), safe='')}", token=token)
    return _signed_in(session, visit, user, OpsSignedIn(by=user.name, address=visit.address))


def show_code(session: Session, visit: Visit) -> Result:
    """The form for the code."""
    if sessions.awaiting(session, visit.token, visit.system.config) is None:
        return Redirect("/sign-in")
    return View("sign_in_code.html", {"next": visit.query.get("next", "/"), "wrong": ""})


def take_code(session: Session, visit: Visit) -> Result:
    """Take the code of the second factor, or a recovery code."""
    wanted = visit.field("next") or "/"
    user = sessions.awaiting(session, visit.token, visit.system.config)
    if user is None:
        return Redirect("/sign-in")
    if wrong := too_many_attempts(session, visit, user.name):
        return View("sign_in_code.html", {"next": wanted, "wrong": wrong}, 429)
    kind = checked(session, visit, user)
    if kind is None:
        return View("sign_in_code.html", {"next": wanted, "wrong": WRONG_CODE}, 401)
    if not sessions.end(session, visit.token):
        # Whoever removed the user or set another password meanwhile has ended it.
        return Redirect("/sign-in")
    fact = OpsSignedIn(by=user.name, address=visit.address, second_factor=kind)
    return _signed_in(session, visit, user, fact)


def sign_out(session: Session, visit: Visit) -> Result:
    """End this browser's session."""
    sessions.end(session, visit.token)
    signed_out = OpsSignedOut(by=visit.user.name, address=visit.address)
    outbox.add(session, [about(signed_out, visit.user.name)])
    return Redirect("/sign-in", token="")


def too_many_attempts(session: Session, visit: Visit, name: str) -> str:
    """Count an attempt, by network and by name; a sentence when there were too many.

    A browser in which that user has signed in before is counted by itself: whoever guesses at a
    name, or in the same network, does not keep its owner out.
    """
    name, system = name.strip().lower()[:64], visit.system
    if visit.mark and users.is_marked(session, name, visit.mark):
        wait = system.user_attempts.take((name, visit.mark))
    else:
        network = network_of(visit.address)
        wait = system.network_attempts.take(network) or system.user_attempts.take(name)
    return f"Too many attempts. Try again in {wait} seconds." if wait else ""


def checked(session: Session, visit: Visit, user: User) -> second_factor.Kind | None:
    """What the field `code` is; that it is wrong is told to the audit log.

    Raises:
        PageError: 503, when it cannot be checked.
    """
    try:
        kind = second_factor.check(session, user.id, visit.field("code"))
    except CannotOpenError as error:
        raise PageError(
            503, f"The code cannot be checked: its secret is {error}. Use a recovery code."
        ) from None
    if kind is None:
        tell_failure(session, visit, user.name, password_was_right=True)
    return kind


def tell_failure(
    session: Session, visit: Visit, name: str, *, password_was_right: bool = False
) -> None:
    """Tell the audit log of a wrong password, or a wrong code."""
    fact = OpsSignInFailed(by=name, address=visit.address, password_was_right=password_was_right)
    outbox.add(session, [about(fact, name)])


def _signed_in(session: Session, visit: Visit, user: User, fact: OpsSignedIn) -> Result:
    outbox.add(session, [about(fact, user.name)])
    others = sessions.listed(session, user.id, visit.system.config)
    if others:
        here = in_words(visit.where.network, visit.where.client)
        warning = f"You have signed in from {here} too. If that was not you, end it: {PLACE}."
        sessions.tell_others(session, user.id, warning)
    token = sessions.start(session, user, visit.system.config, visit.where)
    return Redirect(
        own_path(visit.field("next") or "/"),
        note=_elsewhere(others),
        token=token,
        mark=users.mark(session, user.id),
    )


def _elsewhere(others: Sequence[sessions.Listed]) -> str:
    if not others:
        return ""
    newest = others[0]
    count = f"{len(others)} other {'session' if len(others) == 1 else 'sessions'}"
    since = f"{newest.created_at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    where = in_words(newest.where.network, newest.where.client)
    return f"You have {count}, the newest from {where} since {since}: {PLACE}."


PAGES = (
    Page("GET", "/sign-in", "nobody", show, before_second_factor=True),
    Page("POST", "/sign-in", "nobody", sign_in, before_second_factor=True),
    Page("GET", "/sign-in/code", "nobody", show_code, before_second_factor=True),
    Page("POST", "/sign-in/code", "nobody", take_code, before_second_factor=True),
    Page("POST", "/sign-out", "watch", sign_out, before_second_factor=True),
)
