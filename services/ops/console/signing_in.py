"""Signing in and out."""

from urllib.parse import urlsplit

from sqlalchemy.orm import Session

from services.ops import sessions, users
from services.ops.console.page import Page, Redirect, Result, View, Visit
from services.ops.telling import about
from shared.bus.events import OpsSignedIn, OpsSignedOut, OpsSignInFailed
from shared.networks import network_of
from shared.outbox import store

WRONG = "The name or the password is wrong."


def show(_: Session, visit: Visit) -> Result:
    """The form."""
    if visit.visitor is not None:
        return Redirect(_ours(visit.query.get("next", "/")))
    return View("sign_in.html", {"next": visit.query.get("next", "/"), "name": "", "wrong": ""})


def sign_in(session: Session, visit: Visit) -> Result:
    """Take a name and a password; attempts are limited by network and by name."""
    name, wanted = visit.field("name"), visit.field("next") or "/"
    network = network_of(visit.address)
    wait = visit.system.network_attempts.take(network) or visit.system.user_attempts.take(
        name.lower()[:64]
    )
    if wait:
        wrong = f"Too many attempts. Try again in {wait} seconds."
        return View("sign_in.html", {"next": wanted, "name": name, "wrong": wrong}, 429)
    # Not stripped: blanks may be part of it.
    user = users.verify(session, name, visit.form.get("password", [""])[0])
    if user is None:
        failed = OpsSignInFailed(by=name.lower()[:64], address=visit.address)
        store.add(session, [about(failed, failed.by)])
        return View("sign_in.html", {"next": wanted, "name": name, "wrong": WRONG}, 401)
    signed_in = OpsSignedIn(by=user.name, address=visit.address)
    store.add(session, [about(signed_in, user.name)])
    return Redirect(_ours(wanted), token=sessions.start(session, user, visit.system.config))


def sign_out(session: Session, visit: Visit) -> Result:
    """End this browser's session."""
    sessions.end(session, visit.token)
    signed_out = OpsSignedOut(by=visit.user.name, address=visit.address)
    store.add(session, [about(signed_out, visit.user.name)])
    return Redirect("/sign-in", token="")


def _ours(path: str) -> str:
    """A path to go on to; one that leads to another site becomes the first page."""
    parts = urlsplit(path.replace("\\", "/"))
    is_ours = path.startswith("/") and path.isprintable() and not parts.netloc and not parts.scheme
    return path if is_ours else "/"


PAGES = (
    Page("GET", "/sign-in", "nobody", show),
    Page("POST", "/sign-in", "nobody", sign_in),
    Page("POST", "/sign-out", "watch", sign_out),
)
