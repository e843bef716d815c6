"""Allowed networks and signature schemes of webhooks."""

from services.portal.web.api import Refused
from services.portal.web.page import Page, Visit
from shared.web.mount import Result
from shared.web.results import Question, Redirect, View

PATH = "/settings"
ASKED = "asked_networks"
"""The field of the question that holds the confirmed list."""


def show(visit: Visit) -> Result:
    """Show both settings."""
    return _page(visit)


def ask_allowlist(visit: Visit) -> Question | View:
    """Show the networks, the changes, and this browser's address."""
    kept = visit.api.get("/webhook/allowlist/")
    before, networks = kept["allowed_networks"], _networks(visit, kept["allowed_networks"])
    return Question(
        "Take webhooks from these networks alone?" if networks else "Take webhooks from anywhere?",
        "Take them from there alone" if networks else "Take them from anywhere",
        PATH,
        {
            "Networks": "\n".join(networks),
            "New": "\n".join(one for one in networks if one not in before),
            "Left out": "\n".join(one for one in before if one not in networks),
            "Your address now": kept["your_address"],
        },
        more="What comes from elsewhere is refused within a second, also when it is rightly signed."
        if networks
        else "Whatever is rightly signed is taken, wherever it comes from.",
        is_danger=bool(networks),
        also={ASKED: " ".join(networks)},
    )


def put_allowlist(visit: Visit) -> Result:
    """Replace the list by the confirmed one."""
    networks = _networks(visit, visit.api.get("/webhook/allowlist/")["allowed_networks"])
    if networks != visit.field(ASKED).split():
        changed = "The list has changed in the meantime and was not saved: check it and try again."
        return _page(visit, changed, 409)
    try:
        kept = visit.api.put("/webhook/allowlist/", {"allowed_networks": networks})
    except Refused as refused:
        return _page(visit, str(refused))
    if kept["allowed_networks"]:
        note = "The networks are saved."
    else:
        note = "Webhooks may come from anywhere."
    return Redirect(PATH, " ".join(filter(None, (note, kept["warning"]))))


def ask_schemes(visit: Visit) -> Question:
    """Explain the consequences."""
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
    """Save the schemes."""
    only = _wants_standard_only(visit)
    visit.api.put("/webhook/schemes/", {"standard_webhooks_only": only})
    return Redirect(PATH, "Standard Webhooks alone are taken." if only else "Both are taken.")


def _wants_standard_only(visit: Visit) -> bool:
    return visit.field("standard_webhooks_only") == "yes"


def _networks(visit: Visit, now: list[str]) -> list[str]:
    """Apply the form's additions and removals to the current list.

    The list may have changed since the form was shown; those changes are kept.
    """
    typed = visit.lines("networks").split()
    was = visit.lines("was_networks").split() if "was_networks" in visit.form else now
    kept = [network for network in now if network in typed or network not in was]
    added = [network for network in typed if network not in was]
    return list(dict.fromkeys([*kept, *added]))


def _page(visit: Visit, wrong: str = "", status: int = 400) -> View:
    kept = visit.api.get("/webhook/allowlist/")
    about = {
        "path": PATH,
        "allowlist": kept,
        "schemes": visit.api.get("/webhook/schemes/"),
        "limits": visit.api.get("/webhook/limits/"),
        "wrong": wrong,
    }
    return View("settings.html", about, status if wrong else 200)


PAGES = (
    Page("GET", PATH, "business", show),
    Page("POST", f"{PATH}/allowlist", "business", put_allowlist, asks=ask_allowlist),
    Page("POST", f"{PATH}/schemes", "business", put_schemes, asks=ask_schemes),
)
