"""A new business: it registers, and proves its address by the code that was mailed to it."""

from services.portal.web.api import Refused
from services.portal.web.page import Page, SignIn, Visit
from shared.web.mount import Result
from shared.web.results import View


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
    return _code_form(email, made["id"])


def show_code(visit: Visit) -> Result:
    """The form for the code, for who comes back to it."""
    return _code_form(visit.query.get("email", ""))


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
    said = "Your email address is proved. Sign in."
    return View("sign_in.html", {"next": "/", "email": email, "wrong": None, "said": said})


def send_again(visit: Visit) -> Result:
    """Have another code mailed."""
    email, id_ = visit.field("email"), visit.field("registration_id")
    body = {"email": email} | ({"registration_id": id_} if id_ else {})
    try:
        answer = visit.api.post("/users/request-otp/", body)
    except Refused as refused:
        return _code_form(email, id_, refused)
    return _code_form(email, id_, said=answer["detail"])


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
