"""How webhooks are taken: from where they may come, and by what they may be signed."""

from services.portal.web.api import Refused
from services.portal.web.page import Page, Visit
from shared.web.mount import Result
from shared.web.results import Question, Redirect, View

PATH = "/settings"


def show(visit: Visit) -> Result:
    """Both of them."""
    return _page(visit)


def ask_allowlist(visit: Visit) -> Question | View:
    """Name the networks, and say where this browser is."""
    networks = _networks(visit)
    here = visit.api.get("/webhook/allowlist/")["your_address"]
    return Question(
        "Take webhooks from these networks alone?" if networks else "Take webhooks from anywhere?",
        "Take them from there alone" if networks else "Take them from anywhere",
        PATH,
        {"Networks": "\n".join(networks), "Your address now": here},
        more="What comes from elsewhere is refused within a second, also when it is rightly signed."
        if networks
        else "Whatever is rightly signed is taken, wherever it comes from.",
        is_danger=bool(networks),
    )


def put_allowlist(visit: Visit) -> Result:
    """Replace the list."""
    networks = _networks(visit)
    try:
        kept = visit.api.put("/webhook/allowlist/", {"allowed_networks": networks})
    except Refused as refused:
        return _page(visit, str(refused))
    said = (
        "The networks are kept." if kept["allowed_networks"] else "Webhooks may come from anywhere."
    )
    return Redirect(PATH, " ".join(filter(None, (said, kept["warning"]))))


def ask_schemes(visit: Visit) -> Question:
    """Say what follows."""
    if _wants_standard_only(visit):
        return Question(
            "Refuse the scheme with X-API-Key?",
            "Take Standard Webhooks alone",
            PATH,
            more="Requests with X-API-Key are refused within a second. A copy of such a request is "
            "another order; one by Standard Webhooks is not. What WooCommerce and Shopify send by "
            "their own schemes is refused too: they give up a URL that refuses, and have to be set "
            "up anew.",
            is_danger=True,
        )
    return Question("Take both schemes?", "Take both schemes", PATH)


def put_schemes(visit: Visit) -> Result:
    """Choose."""
    only = _wants_standard_only(visit)
    visit.api.put("/webhook/schemes/", {"standard_webhooks_only": only})
    return Redirect(PATH, "Standard Webhooks alone are taken." if only else "Both are taken.")


def _wants_standard_only(visit: Visit) -> bool:
    return visit.field("standard_webhooks_only") == "yes"


def _networks(visit: Visit) -> list[str]:
    return visit.lines("networks").split()


def _page(visit: Visit, wrong: str = "") -> View:
    kept = visit.api.get("/webhook/allowlist/")
    about = {
        "path": PATH,
        "allowlist": kept,
        "schemes": visit.api.get("/webhook/schemes/"),
        "limits": visit.api.get("/webhook/limits/"),
        "wrong": wrong,
    }
    return View("settings.html", about, 400 if wrong else 200)


PAGES = (
    Page("GET", PATH, "business", show),
    Page("POST", f"{PATH}/allowlist", "business", put_allowlist, asks=ask_allowlist),
    Page("POST", f"{PATH}/schemes", "business", put_schemes, asks=ask_schemes),
)
