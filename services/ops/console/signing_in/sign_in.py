"""Pages of the sign-in, by password and code of the second factor, and the sign-out."""

import re
from collections.abc import Sequence
from typing import NamedTuple
from urllib.parse import quote

from sqlalchemy.orm import Session

from services.ops.audit.actions import about
from services.ops.console.web.page import Page, Visit
from services.ops.times import moment
from services.ops.users import guesses, second_factor, sessions, users
from services.ops.users.users import User
from shared.bus import outbox
from shared.bus.contract.events import OpsSignedIn, OpsSignedOut, OpsSignInFailed
from shared.security.encryption import CannotOpenError
from shared.web.arrivals import ENDED
from shared.web.browsers import in_words
from shared.web.mount import Result
from shared.web.results import PageError, Redirect, View, own_path

PLACE = "see Sessions, at your name"
NOT_YOU = "If that was not you, somebody has it: have another one set by fellow users add."
UNKNOWN_USER = "somebody unknown"
WRONG = "The name or the password is wrong."
WRONG_CODE = (
    "The code is wrong, or was used already: then wait for the next one. "
    "If that is refused too, is the clock of your device right?"
)


def show(_: Session, visit: Visit) -> Result:
    """Show the form."""
    if visit.visitor is not None:
        return Redirect(own_path(visit.query.get("next", "/")))
    said = ENDED if visit.query.get("said") == "ended" else ""
    return _form(visit.query.get("next", "/"), "", "", said=said)


def sign_in(session: Session, visit: Visit) -> Result:
    """Check a name and a password."""
    name, wanted = visit.field("name"), visit.field("next") or "/"
    user = by_password(session, visit, name)
    if isinstance(user, HeldUp):
        return _form(wanted, name, str(user), 429)
    if user is None:
        return _form(wanted, name, WRONG, 401)
    if user.has_second_factor:
        token = sessions.start(session, user, visit.where, awaits_code=True)
        return Redirect(f"/sign-in/code?next={quote(own_path(wanted), safe='')}", token=token)
    return _signed_in(session, visit, user, OpsSignedIn(by=user.name, address=visit.address))


def show_code(session: Session, visit: Visit) -> Result:
    """Show the form for the code."""
    if sessions.awaiting(session, visit.token, visit.system.config) is None:
        return Redirect("/sign-in")
    return View("sign_in_code.html", {"next": visit.query.get("next", "/"), "wrong": ""})


def take_code(session: Session, visit: Visit) -> Result:
    """Check a code of the second factor, or a recovery code."""
    wanted = visit.field("next") or "/"
    user = sessions.awaiting(session, visit.token, visit.system.config)
    if user is not None:
        # A concurrent end of all the user's sessions has ended this one, or waits for this lock and
        # then ends the new one.
        users.hold(session, user.id)
        user = sessions.awaiting(session, visit.token, visit.system.config)
    if user is None:
        return Redirect("/sign-in")
    kind = by_code(session, visit, user)
    if isinstance(kind, HeldUp):
        return View("sign_in_code.html", {"next": wanted, "wrong": str(kind)}, 429)
    if kind is None:
        wrong = wrong_code(session, visit, user)
        return View("sign_in_code.html", {"next": wanted, "wrong": wrong}, 401)
    if not sessions.end(session, visit.token):
        # The user was removed, or has another password, since.
        return Redirect("/sign-in")
    fact = OpsSignedIn(by=user.name, address=visit.address, second_factor=kind)
    return _signed_in(session, visit, user, fact)


def sign_out(session: Session, visit: Visit) -> Result:
    """End this browser's session."""
    sessions.end(session, visit.token)
    signed_out = OpsSignedOut(**visit.actor.fields)
    outbox.add(session, [about(signed_out, visit.user.name)])
    return Redirect("/sign-in", token="")


def _form(wanted: str, name: str, wrong: str, status: int = 200, said: str = "") -> View:
    about = {"next": wanted, "name": name, "wrong": wrong, "said": said, "ended": ENDED}
    return View("sign_in.html", about, status)


class HeldUp(NamedTuple):
    """A guess that was not checked, since there were too many.

    Attributes:
        seconds: until the next may be tried.
    """

    seconds: int

    def __str__(self) -> str:
        minutes = round(self.seconds / 60)
        wait = f"{self.seconds} seconds" if minutes < 2 else f"{minutes} minutes"
        return f"Too many attempts. Try again in {wait}."


def by_password(session: Session, visit: Visit, name: str) -> User | HeldUp | None:
    """Return the user of a name and the field `password`; a failure is audited, and None."""
    network = visit.where.network
    guess = guesses.of_password(session, visit.system.config, name, network, visit.mark)
    if wait := guesses.attempts.take(*guess):
        _record_failure(session, visit, users.known(session, name), was_held_up=True)
        return HeldUp(wait)
    user = users.verify(session, name, visit.password())
    if user is None:
        _record_failure(session, visit, users.known(session, name))
        return None
    guesses.attempts.give_back(*guess)
    return user


def by_code(
    session: Session, visit: Visit, user: User, field: str = "code"
) -> second_factor.Kind | HeldUp | None:
    """Check the code in a field; a wrong one is audited, noted for the user's sessions, and None.

    Raises:
        PageError: 503, if it cannot be checked.
    """
    code, config, network = visit.field(field), visit.system.config, visit.where.network
    guess = guesses.of_code(
        session, config, user.id, second_factor.kind_of(code), network, visit.mark
    )
    if wait := guesses.attempts.take(*guess):
        _record_failure(session, visit, user.name, password_was_right=True, was_held_up=True)
        return HeldUp(wait)
    try:
        kind = second_factor.check(session, user.id, code)
    except CannotOpenError as error:
        raise PageError(
            503, f"The code cannot be checked: its secret is {error}. Use a recovery code."
        ) from None
    if kind is None:
        _record_failure(session, visit, user.name, password_was_right=True)
        wrong = _wrong_codes(second_factor.note_wrong(session, user.id))
        warning = (
            f"{wrong}, the last from {in_words(visit.where.network, visit.where.client)}. {NOT_YOU}"
        )
        sessions.note_for_all(session, user.id, warning, instead=_WARNED)
        return None
    guesses.attempts.give_back(*guess)
    return kind


def wrong_code(session: Session, visit: Visit, user: User) -> str:
    """Return the sentence for a code that `by_code` refused; it says how late the code was."""
    late = second_factor.seconds_late(session, user.id, visit.field("code"))
    if not late:
        return WRONG_CODE
    return (
        f"This code was valid about {late} seconds ago: "
        "set the clock of your device by the network's time, then give the next code. "
        "If it is right, the server's clock is wrong: tell who runs it."
    )


def _record_failure(
    session: Session,
    visit: Visit,
    name: str,
    *,
    password_was_right: bool = False,
    was_held_up: bool = False,
) -> None:
    """Record a failed sign-in in the audit log, within the bounds of `guesses`.

    Args:
        session: in a transaction.
        visit: the request.
        name: the user's; empty without such a user: the typed name may be a password.
        password_was_right: whether the code was wrong.
        was_held_up: whether the guess was not checked.
    """
    network = visit.where.network
    if was_held_up and guesses.attempts.take(guesses.held_up(network)):
        return
    by = name or UNKNOWN_USER
    wrong = "code" if password_was_right else "password"
    is_checked = bool(name) and not was_held_up
    if not guesses.must_audit(session, by, network, wrong if is_checked else ""):
        return
    fact = OpsSignInFailed(
        by=by,
        address=visit.address,
        password_was_right=password_was_right,
        was_held_up=was_held_up,
    )
    outbox.add(session, [about(fact, by)])


def _signed_in(session: Session, visit: Visit, user: User, fact: OpsSignedIn) -> Result:
    outbox.add(session, [about(fact, user.name)])
    others = sessions.listed(session, user.id, visit.system.config)
    if others:
        here = in_words(visit.where.network, visit.where.client)
        warning = f"You have signed in from {here} too. If that was not you, end it: {PLACE}."
        sessions.note_for_all(session, user.id, warning)
    token = sessions.start(session, user, visit.where)
    return Redirect(
        own_path(visit.field("next") or "/"),
        note=" ".join(filter(None, (_guessed_at(session, user), _elsewhere(others)))),
        token=token,
        mark=users.mark(session, user.id),
    )


def _guessed_at(session: Session, user: User) -> str:
    wrong = second_factor.forget_wrong(session, user.id)
    return f"Since you signed in last, {_wrong_codes(wrong)}. {NOT_YOU}" if wrong else ""


_WARNED = r"\d+? wrong codes? .*?" + re.escape(NOT_YOU)


def _wrong_codes(count: int) -> str:
    given = "1 wrong code was" if count == 1 else f"{count} wrong codes were"
    return f"{given} given with your password"


def _elsewhere(others: Sequence[sessions.Listed]) -> str:
    if not others:
        return ""
    newest = others[0]
    count = f"{len(others)} other {'session' if len(others) == 1 else 'sessions'}"
    since = moment(newest.created_at)
    where = in_words(newest.where.network, newest.where.client)
    return f"You have {count}, the newest from {where} since {since}: {PLACE}."


PAGES = (
    Page("GET", "/sign-in", "nobody", show, before_second_factor=True),
    Page("POST", "/sign-in", "nobody", sign_in, takes_password=True, before_second_factor=True),
    Page("GET", "/sign-in/code", "nobody", show_code, before_second_factor=True),
    Page("POST", "/sign-in/code", "nobody", take_code, before_second_factor=True),
    Page("POST", "/sign-out", "watch", sign_out, before_second_factor=True),
)
