"""The account: sessions, password, email address and closing."""

from typing import Any
from urllib.parse import urlencode

from services.portal.web.api import Refused
from services.portal.web.page import Page, Renew, Visit
from shared.web.browsers import browser, in_words
from shared.web.forms import uuid_of
from shared.web.mount import Result
from shared.web.results import PageError, Question, Redirect, View

PATH = "/account"


def show(visit: Visit) -> Result:
    """Show the account."""
    return _page(visit)


def ask_end(visit: Visit) -> Question:
    """Show which session ends."""
    wanted = str(uuid_of(visit.path["session_id"]))
    found = next((one for one in _sessions(visit)[0] if one["id"] == wanted), None)
    if found is None:
        raise PageError(404, "There is no such session of yours any more.")
    where = in_words(found["network"], found["client"])
    return Question(f"End the session from {where}?", "End this session", PATH, is_danger=True)


def end(visit: Visit) -> Result:
    """End one session."""
    visit.api.delete(f"/users/sessions/{uuid_of(visit.path['session_id'])}/")
    return Redirect(PATH, "The session is ended.")


def ask_end_all(visit: Visit) -> Question:
    """Show how many sessions end."""
    sessions, more = _sessions(visit)
    count = len(sessions)
    number = f"More than {count}" if more else str(count)
    return Question(
        "End every session, this one too?",
        "End all of them",
        PATH,
        more=f"{number} {'session is' if count == 1 else 'sessions are'} ended, of browsers and of "
        "programs; each signs in again. Webhooks go on: they are signed by your secret, by your "
        "public keys and by the secrets of your shops, which you find on the secret's page.",
        is_danger=True,
    )


def end_all(visit: Visit) -> Result:
    """End all sessions."""
    visit.api.delete("/users/sessions/")
    return Redirect("/sign-in?said=all", token="")


def ask_password(visit: Visit) -> Question:
    """Explain the consequences."""
    return Question(
        "Change your password?",
        "Change it",
        PATH,
        {"Account": visit.business.email},
        more="Every session ends, this one too: sign in with the new one.",
    )


def change_password(visit: Visit) -> Result:
    """Change the password; every session ends."""
    body = {
        "current_password": visit.password("current_password"),
        "password": visit.password(),
    }
    try:
        visit.api.post("/users/password/", body)
    except Refused as refused:
        return _refused(visit, refused, "password")
    return Redirect("/sign-in?said=password", token="")


def send_code(visit: Visit) -> Result:
    """Request a code for the new address; nothing changes yet."""
    body = {"email": visit.field("email"), "password": visit.password()}
    try:
        visit.api.post("/users/email/", body)
    except Refused as refused:
        return _refused(visit, refused, "email")
    # Redirect, so that a reload does not request a second code.
    return Redirect(f"{PATH}/email/verify?{urlencode({'email': body['email']})}")


def show_code(visit: Visit) -> Result:
    """Show the form for the code."""
    return View("address_code.html", {"email": visit.query.get("email", ""), "wrong": None})


def ask_address(visit: Visit) -> Question:
    """Show both addresses."""
    facts = {"From": visit.business.email, "To": visit.field("email")}
    more = "You sign in with the new one from then on. Both get an email."
    return Question("Change your email address?", "Change it", PATH, facts, more=more)


def change_address(visit: Visit) -> Result:
    """Set the new address by its code."""
    email = visit.field("email")
    try:
        visit.api.post("/users/email/verify/", {"otp": visit.field("code"), "email": email})
    except Refused as refused:
        about = {"email": email, "wrong": refused}
        return View("address_code.html", about, refused.status)
    # Renewing the tokens brings the new address, which every page shows.
    return Renew(PATH, "Your email address is changed: sign in with the new one from now on.")


def ask_close(visit: Visit) -> Question:
    """Explain what ends."""
    facts = {"Account": visit.business.email, "Business": visit.business.company_name}
    return Question(
        "Close your account for good?",
        "Close the account",
        PATH,
        facts,
        more="It cannot be taken back. Its secrets stop working at once, so that orders of your "
        "programs are refused; its approval and its sessions end.",
        is_danger=True,
    )


def close(visit: Visit) -> Result:
    """Close the account."""
    try:
        visit.api.post("/users/close/", {"password": visit.password()})
    except Refused as refused:
        return _refused(visit, refused, "close")
    return Redirect("/sign-in?said=closed", token="")


def _sessions(visit: Visit) -> tuple[list[dict[str, Any]], bool]:
    """Return the listed sessions, and whether there are further ones."""
    found = visit.api.get("/users/sessions/")
    return found["sessions"], found.get("more", False)  # missing from an older API


def _refused(visit: Visit, refused: Refused, form: str) -> View:
    return _page(visit, form, refused)


def _page(visit: Visit, form: str = "", wrong: Refused | None = None) -> View:
    sessions, more = _sessions(visit)
    about = {
        "path": PATH,
        "sessions": [(one, browser(one["client"])) for one in sessions],
        "more_sessions": more,
        "form": form,
        "wrong": wrong,
    }
    return View("account.html", about, wrong.status if wrong else 200)


PAGES = (
    Page("GET", PATH, "business", show),
    Page("POST", f"{PATH}/sessions/end", "business", end_all, asks=ask_end_all),
    Page("POST", f"{PATH}/sessions/{{session_id}}/end", "business", end, asks=ask_end),
    Page(
        "POST",
        f"{PATH}/password",
        "business",
        change_password,
        asks=ask_password,
        takes_password=True,
    ),
    Page("POST", f"{PATH}/email", "business", send_code, takes_password=True),
    Page("GET", f"{PATH}/email/verify", "business", show_code),
    Page("POST", f"{PATH}/email/verify", "business", change_address, asks=ask_address),
    Page("POST", f"{PATH}/close", "business", close, asks=ask_close, takes_password=True),
)
