"""The webhook secret, shown after the password, and replaced; with the shops' secrets, the public
keys and the test secret, which are removed here."""

from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from services.portal.pages.first_request import snippets
from services.portal.web.api import Refused
from services.portal.web.page import Page, Visit
from shared.security.webhook_keys import GIVEN_BY, describe_other_keys
from shared.web.mount import Result
from shared.web.results import PageError, Question, Redirect, View

PATH = "/secret"
OTHERS = f"{PATH}/others"
TEST = "/webhook/test-secret/"
KEEPS = "The one of today works on until its own end, so that your programs can change at leisure."


def show(visit: Visit) -> Result:
    """Ask for the password: an open browser must not be enough to see the secret."""
    return _locked(visit)


def unlock(visit: Visit) -> Result:
    """Show the secret in both forms, and the test secret, if the password is right."""
    try:
        visit.api.post("/users/password/confirm/", {"password": visit.password()})
    except Refused as refused:
        return _locked(visit, refused)
    try:
        secret = visit.api.get("/webhook/secret/")
    except Refused as refused:
        if refused.code not in ("kyc_approval_required", "secret_not_ready"):
            raise
        return View("secret_none.html", {"path": PATH, "code": refused.code})
    other_keys = others(visit)
    about = {
        "path": PATH,
        "secret": secret,
        "test": visit.api.get(TEST) if other_keys.has_test_secret else None,
        "others": other_keys,
        "public_url": visit.config.public_url.rstrip("/"),
        "snippets": snippets(visit.config.public_url.rstrip("/")),
    }
    return View("secret.html", about)


def ask_rotate(visit: Visit) -> Question:
    """Explain the consequences of a new secret."""
    return Question(
        "Make a new webhook secret?",
        "Make a new secret",
        PATH,
        {"Business": visit.business.company_name},
        more=f"Sign with the new one from then on. {KEEPS}",
    )


def rotate(visit: Visit) -> Result:
    """Make a new secret; the one before stays valid for a while."""
    return _replaced(visit, revoke_previous=False)


def ask_test(visit: Visit) -> Question:
    """Explain what a test secret is for."""
    return Question(
        "Make a test secret?",
        "Make a test secret",
        PATH,
        {"Business": visit.business.company_name},
        more="What is signed by it is a test order: recorded apart, counted nowhere, and mailed to "
        "you alone.",
    )


def make_test(visit: Visit) -> Result:
    """Make a test secret."""
    return _replaced(visit, TEST, revoke_previous=False)


def ask_replace(visit: Visit) -> Question:
    """Show what ends immediately."""
    stays = others(visit).in_words
    left = f"{stays} and any test secret" if stays else "any test secret"
    return Question(
        "Replace your webhook secret at once?",
        "Replace it at once",
        PATH,
        {"Business": visit.business.company_name, "Goes on working": left},
        more="Every secret that we made for your orders stops working in the same moment: whatever "
        "your programs send by it is refused until they have the new one. Do it when others may "
        "know the secret. What goes on working you can remove on the page before.",
        is_danger=True,
    )


def replace(visit: Visit) -> Result:
    """Make a new secret; the ones before end immediately."""
    return _replaced(visit, revoke_previous=True)


def _replaced(visit: Visit, path: str = "/webhook/secret/", *, revoke_previous: bool) -> Result:
    try:
        made = visit.api.post(path, {"revoke_previous": revoke_previous})
    except Refused as refused:
        return Redirect(PATH, str(refused))
    return Redirect(PATH, f"{made['message']} Your password shows the new one.")


def _locked(visit: Visit, wrong: Refused | None = None) -> View:
    about = {"path": PATH, "wrong": wrong, "others": others(visit)}
    return View("secret_locked.html", about, wrong.status if wrong else 200)


@dataclass(frozen=True, slots=True)
class Others:
    """Other valid keys of a business, besides its secret.

    Attributes:
        given: the shops' secrets in the API's format, by platform.
        keys: the public keys in the API's format.
        has_test_secret: whether there is a test secret.
    """

    given: dict[str, list[dict[str, Any]]]
    keys: list[dict[str, Any]]
    has_test_secret: bool

    @property
    def in_words(self) -> str:
        """Return how many there are of each kind; empty if there are none."""
        counted = {platform: len(secrets) for platform, secrets in self.given.items()}
        return describe_other_keys(counted, public_keys=len(self.keys))

    @property
    def titles(self) -> dict[str, str]:
        """Return the names of the platforms."""
        return {platform: GIVEN_BY[platform] for platform in self.given}


def has_secret(visit: Visit) -> bool:
    """Return whether the signed-in business has a valid secret made by us."""
    return bool(visit.api.get("/webhook/secret/state/")["is_active"])


def others(visit: Visit) -> Others:
    """Return the other valid keys of the signed-in business."""
    given = {
        platform: visit.api.get(f"/webhook/secret/{platform}/")["results"] for platform in GIVEN_BY
    }
    keys = visit.api.get("/webhook/public-keys/")["public_keys"]
    return Others(given, keys, visit.api.get("/webhook/secret/state/")["test_is_active"])


def ask_remove(visit: Visit) -> Question:
    """Show which key ends."""
    kind, facts, _ = _chosen(visit)
    return Question(
        f"Remove {kind}?",
        f"Remove {kind}",
        PATH,
        {"Business": visit.business.company_name} | facts,
        more="It stops working in the same moment: what is signed by it is refused.",
        is_danger=True,
    )


def remove(visit: Visit) -> Result:
    """Remove a key."""
    kind, _, path = _chosen(visit)
    try:
        visit.api.delete(path)
    except Refused as refused:
        return Redirect(PATH, str(refused))
    return Redirect(PATH, f"Removed {kind}: it no longer works.")


def _chosen(visit: Visit) -> tuple[str, dict[str, str], str]:
    """Return the kind of the chosen key, what distinguishes it, and its API path."""
    platform, key_id = visit.field("platform"), visit.field("key_id")
    if platform in GIVEN_BY:
        shop = visit.field("shop")
        named = f"the {GIVEN_BY[platform]} secret"
        path = f"/webhook/secret/{platform}/?shop={quote(shop, safe='')}"
        return named, {"Shop": shop or "the one without a name"}, path
    if key_id:
        found = visit.api.get("/webhook/public-keys/")["public_keys"]
        key = next((key for key in found if key["id"] == key_id), None)
        if key is None:
            raise PageError(404, "There is no such key (any more).")
        return "a public key", {"Key": key["public_key"]}, f"/webhook/public-keys/{key['id']}/"
    return "the test secret", {"Orders of test mode": "stay"}, TEST


PAGES = (
    Page("GET", PATH, "business", show),
    Page("POST", PATH, "business", unlock, takes_password=True),
    Page("POST", f"{PATH}/rotate", "business", rotate, asks=ask_rotate),
    Page("POST", f"{PATH}/replace", "business", replace, asks=ask_replace),
    Page("POST", f"{PATH}/test", "business", make_test, asks=ask_test),
    Page("POST", OTHERS, "business", remove, asks=ask_remove),
)
