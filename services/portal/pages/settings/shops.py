"""Shops that send by their own webhooks: what is set there, and the secrets that they give."""

from dataclasses import dataclass

from services.portal.pages.secret import others
from services.portal.web.api import Refused
from services.portal.web.page import Page, Visit
from shared.security.webhook_keys import GIVEN_BY
from shared.web.mount import Result
from shared.web.results import PageError, Question, Redirect, View

PATH = "/shops"


@dataclass(frozen=True, slots=True)
class Platform:
    """What is set at a platform.

    Attributes:
        title: what it is called.
        where: the way through its menus.
        topics: what its webhooks are to tell of, as it calls them.
        more: what else is to be chosen there.
    """

    title: str
    where: str
    topics: tuple[str, ...]
    more: str


PLATFORMS = {
    "woocommerce": Platform(
        "WooCommerce",
        "WooCommerce > Settings > Advanced > Webhooks > Add webhook, once for each topic",
        ("Order created", "Order updated"),
        "Secret: your own, the form that begins with whsk_. API version: v3.",
    ),
    "shopify": Platform(
        "Shopify",
        "Settings > Notifications > Webhooks > Create webhook, once for each topic",
        ("Order creation", "Order update", "Order fulfillment", "Order cancellation"),
        "Format: JSON. Shopify shows what its webhooks are signed with: give it to us here.",
    ),
}
"""Those that show their way; docs/platforms.md has more of each."""


def show(visit: Visit) -> Result:
    """What is to be set, and a form for each secret that a platform makes."""
    return _page(visit)


def ask(visit: Visit) -> Question | View:
    """Name the shop. What was typed in is in the page for this browser alone."""
    platform, secret = _platform(visit), visit.field("given_secret")
    if not secret:
        return _page(visit, "The secret is missing.", 400)
    title = GIVEN_BY[platform]
    return Question(
        f"Take what {title} signs with this secret?",
        "Take it",
        PATH,
        {
            "Shop": visit.field("shop") or "the one without a name",
            "Its orders": "are tests: nobody but you is mailed"
            if visit.field("is_test")
            else "are real: your customers are mailed",
        },
        more="Webhooks that are signed with it are taken as yours within a second. Another secret "
        "of the same shop works for a day more. It is never shown again.",
    )


def give(visit: Visit) -> Result:
    """Give the secret to the API."""
    platform = _platform(visit)
    body = {
        "secret": visit.field("given_secret"),
        "shop": visit.field("shop"),
        "is_test": bool(visit.field("is_test")),
    }
    try:
        visit.api.put(f"/webhook/secret/{platform}/", body)
    except Refused as refused:
        return _page(visit, str(refused), refused.status)
    return Redirect(PATH, f"What {GIVEN_BY[platform]} signs with it is taken.")


def _platform(visit: Visit) -> str:
    platform = visit.path["platform"]
    if platform not in GIVEN_BY:
        raise PageError(404, "There is no such platform.")
    return platform


def _page(visit: Visit, wrong: str = "", status: int = 200) -> View:
    about = {
        "path": PATH,
        "platforms": PLATFORMS,
        "takes_secret": GIVEN_BY,
        "given": others(visit).given,
        "url": f"{visit.config.public_url.rstrip('/')}/api/v1/webhooks/{visit.business.account_id}",
        "wrong": wrong,
        "of": visit.path.get("platform", ""),
    }
    return View("shops.html", about, status)


PAGES = (
    Page("GET", PATH, "business", show),
    Page("POST", f"{PATH}/{{platform}}", "business", give, asks=ask),
)
