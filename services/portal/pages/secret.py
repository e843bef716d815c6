"""The webhook secret: shown after the password is asked again, and replaced."""

from services.portal.web.api import Refused
from services.portal.web.page import Page, Result, Visit
from shared.web.results import Question, Redirect, View

PATH = "/secret"
KEEPS = "The one of today works on until its own end, so that your programs can change at leisure."


def show(_: Visit) -> Result:
    """The question for the password: whoever finds a browser open shall not find the secret."""
    return _locked()


def unlock(visit: Visit) -> Result:
    """The secret in both forms, to who knows the password."""
    try:
        visit.api.post("/users/password/confirm/", {"password": visit.password()})
    except Refused as refused:
        if refused.code == "not_signed_in":
            raise
        return _locked(refused)
    try:
        secret = visit.api.get("/webhook/secret/")
    except Refused as refused:
        if refused.code not in ("kyc_approval_required", "secret_not_ready"):
            raise
        return View("secret_none.html", {"path": PATH, "code": refused.code})
    about = {
        "path": PATH,
        "secret": secret,
        "public_url": visit.config.public_url.rstrip("/"),
    }
    return View("secret.html", about)


def ask_rotate(visit: Visit) -> Question:
    """Name what follows from another secret."""
    return Question(
        "Make a new webhook secret?",
        "Make a new secret",
        PATH,
        {"Business": visit.business.company_name},
        more=f"Sign with the new one from then on. {KEEPS}",
    )


def rotate(visit: Visit) -> Result:
    """Make another; the one before works on."""
    return _replaced(visit, revoke_previous=False)


def ask_replace(visit: Visit) -> Question:
    """Name what ends at once."""
    return Question(
        "Replace your webhook secret at once?",
        "Replace it at once",
        PATH,
        {"Business": visit.business.company_name},
        more="Every secret of today stops working in the same moment: whatever your programs send "
        "by it is refused until they have the new one. Do it when others may know the secret.",
        is_danger=True,
    )


def replace(visit: Visit) -> Result:
    """Make another; those before end at once."""
    return _replaced(visit, revoke_previous=True)


def _replaced(visit: Visit, *, revoke_previous: bool) -> Result:
    try:
        made = visit.api.post("/webhook/secret/", {"revoke_previous": revoke_previous})
    except Refused as refused:
        if refused.code == "not_signed_in":
            raise
        return Redirect(PATH, str(refused))
    return Redirect(PATH, f"{made['message']} Your password shows the new one.")


def _locked(wrong: Refused | None = None) -> View:
    about = {"path": PATH, "wrong": wrong}
    return View("secret_locked.html", about, wrong.status if wrong else 200)


PAGES = (
    Page("GET", PATH, "business", show),
    Page("POST", PATH, "business", unlock),
    Page("POST", f"{PATH}/rotate", "business", rotate, asks=ask_rotate),
    Page("POST", f"{PATH}/replace", "business", replace, asks=ask_replace),
)
