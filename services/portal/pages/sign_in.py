"""Sign-in, sign-out and password reset."""

from contextlib import suppress
from urllib.parse import urlencode

from services.portal.pages.registration import to_prove
from services.portal.web.api import Refused
from services.portal.web.page import Page, SignIn, Visit
from shared.web.arrivals import ENDED
from shared.web.mount import Result
from shared.web.results import PageError, Redirect, View, own_path

SAID = {
    "ended": ENDED,
    "proved": "Your email address is proved. Sign in.",
    "password": "Your password is changed. Sign in with the new one.",
    "set": "Your password is set. Sign in with it.",
    "all": "Every session is ended.",
    "closed": "Your account is closed.",
}
"""Notes of the page, by the query parameter `said`."""


def show(visit: Visit) -> Result:
    """Show the form."""
    wanted = visit.query.get("next", "/")
    if visit.held is not None:
        return Redirect(own_path(wanted))
    note = SAID.get(visit.query.get("said", ""), "")
    return _form(wanted, visit.query.get("email", ""), said=note)


def sign_in(visit: Visit) -> Result | SignIn:
    """Sign in by email address and password."""
    email, wanted = visit.field("email"), visit.field("next") or "/"
    try:
        body = {"email": email, "password": visit.password(), "device_token": visit.mark}
        answer = visit.api.post("/users/auth/login/", body)
    except Refused as refused:
        if refused.code == "email_not_verified":
            return to_prove(visit, email, said="unproved")
        return _form(wanted, email, refused)
    return SignIn(answer, wanted)


def sign_out(visit: Visit) -> Result:
    """End this browser's session."""
    # Errors do not matter: the tokens were deleted here.
    with suppress(PageError, Refused):
        visit.api.post("/users/auth/logout/", {"refresh": visit.business.refresh})
    return Redirect("/sign-in", token="")


def show_lost(_: Visit) -> Result:
    """Show the form that requests a code."""
    return View("password_lost.html", {"email": "", "wrong": None})


def send_code(visit: Visit) -> Result:
    """Request a code; the answer is the same for every address."""
    email = visit.field("email")
    try:
        body = {"email": email, "device_token": visit.mark}
        visit.api.post("/users/password/reset-code/", body)
    except Refused as refused:
        return View("password_lost.html", {"email": email, "wrong": refused}, refused.status)
    # Redirect, so that a reload does not request a second code.
    return Redirect(f"/password/reset?{urlencode({'email': email})}")


def show_reset(visit: Visit) -> Result:
    """Show the form for the code."""
    return View("password_reset.html", {"email": visit.query.get("email", ""), "wrong": None})


def reset(visit: Visit) -> Result:
    """Set a new password by the code."""
    email = visit.field("email")
    body = {
        "email": email,
        "otp": visit.field("code"),
        "password": visit.password(),
        "device_token": visit.mark,
    }
    try:
        visit.api.post("/users/password/reset/", body)
    except Refused as refused:
        return View("password_reset.html", {"email": email, "wrong": refused}, refused.status)
    return Redirect(f"/sign-in?{urlencode({'said': 'set', 'email': email})}")


def _form(wanted: str, email: str = "", wrong: Refused | None = None, said: str = "") -> View:
    about = {"next": wanted, "email": email, "wrong": wrong, "said": said, "ended": ENDED}
    return View("sign_in.html", about, wrong.status if wrong else 200)


PAGES = (
    Page("GET", "/sign-in", "nobody", show),
    Page("POST", "/sign-in", "nobody", sign_in, takes_password=True),
    Page("POST", "/sign-out", "business", sign_out, ends=True),
    Page("GET", "/password/lost", "nobody", show_lost),
    Page("POST", "/password/lost", "nobody", send_code),
    Page("GET", "/password/reset", "nobody", show_reset),
    Page("POST", "/password/reset", "nobody", reset, takes_password=True),
)
