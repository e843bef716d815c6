"""Language and time zone of a business's emails, and previews."""

from services.portal.web.api import Refused
from services.portal.web.page import Page, Visit
from shared.languages import time_zones
from shared.languages.language import CODES, language
from shared.web.mount import Result
from shared.web.results import PageError, Question, Redirect, View

PATH = "/emails"
# An email has inline styles, which mail programs require. The sandbox gives it an opaque origin and
# blocks scripts, forms and loading (W3C, "CSP Level 3", 6.3.2; HTML, 7.6).
FRAME = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; sandbox; "
    "form-action 'none'; base-uri 'none'; frame-ancestors 'self'",
    "X-Frame-Options": "SAMEORIGIN",
}
AROUND = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self'; connect-src 'self'; frame-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'",
}


def show(visit: Visit) -> Result:
    """Show the settings and one email; `language` in the query shows it in another language."""
    return _page(visit)


def ask(visit: Visit) -> Question | View:
    """Explain whom the change concerns."""
    code, zone = _wanted(visit)
    if code not in CODES:
        return _page(visit, "Choose one of the languages.", "language")
    if zone not in time_zones.names():
        return _page(
            visit,
            "That is no time zone. Take a name from the list, such as Africa/Lagos.",
            "time_zone",
        )
    return Question(
        "Change the language and time zone of your emails?",
        "Save",
        PATH,
        {"Language": language(code).name, "Time zone": zone},
        more="It holds for what your customers get and for what we write to you, from the next "
        "email on.",
    )


def put(visit: Visit) -> Result:
    """Save the settings."""
    code, zone = _wanted(visit)
    try:
        visit.api.put("/users/locale/", {"language": code, "time_zone": zone})
    except Refused as refused:
        return _page(visit, str(refused))
    return Redirect(PATH, "It is saved, and holds from the next email on.")


def frame(visit: Visit) -> Result:
    """Return the HTML part of an email, for a frame."""
    name = visit.path["name"]
    _refuse_unknown(name, _names(visit))
    found = visit.api.get(f"/email-previews/{name}/", language=_language(visit))
    return View("email_frame.html", {"html": found["html"]}, headers=FRAME)


def _wanted(visit: Visit) -> tuple[str, str]:
    chosen = visit.api.get("/users/locale/")
    return (
        visit.changed("language", chosen["language"]),
        visit.changed("time_zone", chosen["time_zone"]),
    )


def _language(visit: Visit) -> str:
    wanted = visit.query.get("language", "")
    return wanted if wanted in CODES else ""


def _names(visit: Visit) -> list[dict[str, str]]:
    found: list[dict[str, str]] = visit.api.get("/email-previews/", language=_language(visit))[
        "results"
    ]
    return found


def _refuse_unknown(name: str, names: list[dict[str, str]]) -> None:
    if name not in {one["name"] for one in names}:
        raise PageError(404, "There is no such email.")


def _page(visit: Visit, wrong: str = "", of: str = "") -> View:
    """Return the page; `of` names the invalid field, if any."""
    chosen = visit.api.get("/users/locale/")
    names = _names(visit)
    wanted = visit.query.get("email", "") or names[0]["name"]
    _refuse_unknown(wanted, names)
    code = _language(visit) or chosen["language"]
    email = visit.api.get(f"/email-previews/{wanted}/", language=code)
    about = {
        "path": PATH,
        "chosen": chosen,
        "of": of,
        "languages": [(one, language(one).name) for one in chosen["languages"]],
        "zones": sorted(time_zones.names()),
        "names": names,
        "email": email,
        "wrong": wrong,
    }
    return View("emails.html", about, 400 if wrong else 200, AROUND)


PAGES = (
    Page("GET", PATH, "business", show),
    Page("POST", PATH, "business", put, asks=ask),
    Page("GET", f"{PATH}/{{name}}/html", "business", frame, asks_by_itself=True),
)
