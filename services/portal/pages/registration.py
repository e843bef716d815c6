"""A new business: it registers, and proves its address by the code that was mailed to it."""

from urllib.parse import urlencode

from services.portal.web.api import Refused
from services.portal.web.page import Page, SignIn, Visit
from shared.web.mount import Result
from shared.web.results import Redirect, View

SAID = {
    "again": "If this address awaits a code, another one is on its way to it.",
    "unproved": "Prove your email address first, by the code that we have mailed to it.",
}
"""What brought a browser here, by the query."""
REGISTRATION = "registration"


def show(_: Visit) -> Result:
    """The form."""
    return _form()


def register(visit: Visit) -> Result:
    """Register; a code is mailed. The page does not tell who has an account already."""
    name, email = visit.field("company_name"), visit.field("email")
    body = {"company_name": name, "email": email, "password": visit.password()}
    try:
        made = visit.api.post("/users/auth/register/", body)
    except Refused as refused:
        return _form(name, email, refused)
    return to_prove(visit, email, made["id"])


def show_code(visit: Visit) -> Result:
    """The form for the code; it can be loaded anew, and nothing is asked for by that."""
    said = SAID.get(visit.query.get("said", ""), "")
    return _code_form(visit.query.get("email", ""), visit.unsealed(REGISTRATION), said=said)


def verify(visit: Visit) -> Result | SignIn:
    """Take the code."""
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
    """Have another code mailed."""
    email, id_ = visit.field("email"), visit.field("registration_id")
    body = {"email": email} | ({"registration_id": id_} if id_ else {})
    try:
        visit.api.post("/users/request-otp/", body)
    except Refused as refused:
        return _code_form(email, id_, refused)
    return to_prove(visit, email, id_, said="again")


def to_prove(visit: Visit, email: str, registration_id: str = "", said: str = "") -> Redirect:
    """Go and see the form for the code, of an address or of a registration with it.

    Of a registration in this browser alone: to a stranger's a link would lead the code of whoever
    reads the emails.
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
