"""Registration of a business, and the proof of its email address by a mailed code."""

from urllib.parse import urlencode

from services.portal.web.api import Refused
from services.portal.web.page import Page, SignIn, Visit
from shared.web.mount import Result
from shared.web.results import Redirect, View

SAID = {
    "again": "If this address awaits a code, another one is on its way to it.",
    "unproved": "Prove your email address first, by the code that we have mailed to it.",
}
"""Notes of the page, by the query parameter `said`."""
REGISTRATION = "registration"


def show(_: Visit) -> Result:
    """Show the form."""
    return _form()


def register(visit: Visit) -> Result:
    """Register; the answer does not show whether the address has an account."""
    name, email = visit.field("company_name"), visit.field("email")
    body = {"company_name": name, "email": email, "password": visit.password()}
    try:
        made = visit.api.post("/users/auth/register/", body)
    except Refused as refused:
        return _form(name, email, refused)
    return to_prove(visit, email, made["id"])


def show_code(visit: Visit) -> Result:
    """Show the form for the code; reloading it sends no email."""
    note = SAID.get(visit.query.get("said", ""), "")
    return _code_form(visit.query.get("email", ""), visit.unsealed(REGISTRATION), said=note)


def verify(visit: Visit) -> Result | SignIn:
    """Prove the address by the code."""
    email, id_ = visit.field("email"), visit.field("registration_id")
    body = {"email": email, "otp": visit.field("code")}
    if id_:
        body["registration_id"] = id_
    elif visit.password():
        body["password"] = visit.password()
    try:
        visit.api.post("/users/verify-otp/", body)
    except Refused as refused:
        return _code_form(email, id_, refused)
    return Redirect(f"/sign-in?{urlencode({'said': 'proved', 'email': email})}")


def send_again(visit: Visit) -> Result:
    """Request another code."""
    email, id_ = visit.field("email"), visit.field("registration_id")
    body = {"email": email} | ({"registration_id": id_} if id_ else {})
    try:
        visit.api.post("/users/request-otp/", body)
    except Refused as refused:
        return _code_form(email, id_, refused)
    return to_prove(visit, email, id_, said="again")


def to_prove(visit: Visit, email: str, registration_id: str = "", said: str = "") -> Redirect:
    """Redirect to the form for the code of an address.

    The registration's id is sealed for this browser: by a link with an id a stranger could have the
    reader of the mailbox prove the stranger's registration.
    """
    sealed = visit.seal(REGISTRATION, registration_id) if registration_id else ""
    query = {"email": email, REGISTRATION: sealed, "said": said}
    return Redirect(f"/verify?{urlencode({name: value for name, value in query.items() if value})}")


def _form(name: str = "", email: str = "", wrong: Refused | None = None) -> View:
    about = {"company_name": name, "email": email, "wrong": wrong}
    return View("register.html", about, wrong.status if wrong else 200)


def _code_form(
    email: str, registration_id: str = "", wrong: Refused | None = None, said: str = ""
) -> View:
    about = {"email": email, "registration_id": registration_id, "wrong": wrong, "said": said}
    return View("verify.html", about, wrong.status if wrong else 200)


PAGES = (
    Page("GET", "/register", "nobody", show),
    Page("POST", "/register", "nobody", register, takes_password=True),
    Page("GET", "/verify", "nobody", show_code),
    Page("POST", "/verify", "nobody", verify, takes_password=True),
    Page("POST", "/verify/again", "nobody", send_again),
)
