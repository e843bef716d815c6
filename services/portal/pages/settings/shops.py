"""Shops that send by their own webhooks: what to set there, and the secrets that they sign with."""

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
    """The settings to make at a platform.

    Attributes:
        title: the platform's name.
        where: the path through its menus.
        topics: the webhook topics, in its words.
        more: further settings.
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
        "Secret: your own, the form that begins with whsk_; to try it, your test secret, which "
        "begins with whtk_. API version: v3. WordPress takes no URL of a private address, nor with "
        "another port than 80, 443 and 8080.",
    ),
    "shopify": Platform(
        "Shopify",
        "Settings > Notifications > Webhooks > Create webhook, once for each topic",
        ("Order creation", "Order update", "Order fulfillment", "Order cancellation"),
        "Format: JSON. Shopify shows what its webhooks are signed with: give it to us here.",
    ),
}
"""Platforms with instructions on the page; docs/platforms.md has more on each."""


def show(visit: Visit) -> Result:
    """Show the settings, and a form for the secret of each platform that makes one."""
    return _page(visit)


def ask(visit: Visit) -> Question | View:
    """Name the shop. The page holds the secret sealed for this browser."""
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
            "Its orders": "are tests: only you are mailed"
            if visit.field("is_test")
            else "are real: your customers are mailed",
        },
        more="Webhooks that are signed with it are taken as yours within a second. Another secret "
        f"of the same shop works for a day more, whatever {title} goes on signing with: revoke it "
        "there within the day, or give the new one under another name. It is never shown again.",
    )


def give(visit: Visit) -> Result:
    """Give the secret to the API, after the password.

    Otherwise an open browser would be enough to leave a key that signs orders and that no new
    password, no sign-out and no replaced secret ends.
    """
    platform = _platform(visit)
    body = {
        "secret": visit.field("given_secret"),
        "shop": visit.field("shop"),
        "is_test": bool(visit.field("is_test")),
    }
    try:
        visit.api.post("/users/password/confirm/", {"password": visit.password()})
        visit.api.put(f"/webhook/secret/{platform}/", body)
    except Refused as refused:
        field = "password" if refused.code == "wrong_password" else "secret"
        return _page(visit, str(refused), refused.status, field)
    return Redirect(PATH, f"What {GIVEN_BY[platform]} signs with it is taken.")


def _platform(visit: Visit) -> str:
    platform = visit.path["platform"]
    if platform not in GIVEN_BY:
        raise PageError(404, "There is no such platform.")
    return platform


def _page(visit: Visit, wrong: str = "", status: int = 200, field: str = "secret") -> View:
    about = {
        "path": PATH,
        "platforms": PLATFORMS,
        "takes_secret": GIVEN_BY,
        "given": others(visit).given,
        "url": f"{visit.config.public_url.rstrip('/')}/api/v1/webhooks/{visit.business.account_id}",
        "wrong": wrong,
        "of": visit.path.get("platform", ""),
        "field": field,
    }
    return View("shops.html", about, status)


PAGES = (
    Page("GET", PATH, "business", show),
    Page("POST", f"{PATH}/{{platform}}", "business", give, asks=ask, takes_password=True),
)
