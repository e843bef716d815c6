"""Activity of the account, newest first."""

from collections.abc import Mapping
from typing import Any

from services.portal.pages.requests import older
from services.portal.web.page import Page, Visit
from shared.languages import time_zones
from shared.security.webhook_keys import GIVEN_BY
from shared.web.mount import Result
from shared.web.results import View

PATH = "/activity"
BY = {
    "you": "",
    "somebody": "by you or someone else",
    "order_fellow": "by Order Fellow",
    "unknown": "by you or by Order Fellow",
    "schedule": "by itself, in time",
}
WORDS = {
    "account.verified": "Email address proved",
    "account.signed_in": "Signed in",
    "account.sign_in_failed": "A sign-in failed",
    "kyc.submitted": "KYC application sent",
    "kyc.approved": "Business approved",
    "kyc.rejected": "KYC application rejected",
    "kyc.information_requested": "More information asked for",
    "kyc.revoked": "Approval taken back",
    "secret.issued": "Webhook secret made",
    "secret.shown": "Webhook secret shown",
    "secret.given": "Secret of a shop given",
    "secret.rotated": "Webhook secret replaced",
    "secret.revoked": "Webhook secrets revoked",
    "secret.key_added": "Public key added",
    "secret.key_removed": "Public key removed",
    "webhook.allowlist_changed": "Allowed networks changed",
    "webhook.file_sent": "A file of orders sent",
}
CHANGES = {
    "password_changed": "Password changed",
    "password_reset": "Password set anew, by a mailed code",
    "address_changed": "Email address changed",
    "refresh_token_reused": "A session ended: its token was used twice",
    "closed": "Account closed",
    "blocked": "Account blocked",
    "unblocked": "Account let in again",
    "standard_webhooks_only": "Standard Webhooks alone are taken",
    "both_schemes": "Both signature schemes are taken",
    "display_name_changed": "Name in emails changed",
    "reply_to_changed": "Address for answers changed",
}


def show(visit: Visit) -> Result:
    """Show a page of the activity."""
    zone = time_zones.zone(visit.api.get("/users/locale/")["time_zone"])
    found, wrong = visit.listed("/activity/", cursor=visit.query.get("cursor", ""))
    entries = [
        entry | {"what": what(entry), "more": more(entry), "who": BY.get(entry["by"], "")}
        for entry in found["results"]
    ]
    about = {
        "path": PATH,
        "zone": zone,
        "entries": entries,
        "is_later": "cursor" in visit.query,
        "next": older({}, found["next"]),
        "wrong": wrong,
    }
    return View("activity.html", about, 400 if wrong else 200)


def what(entry: Mapping[str, Any]) -> str:
    """Return what happened; for an unknown type its name."""
    details = entry["details"]
    label = CHANGES.get(details.get("what", "")) or WORDS.get(entry["type"], entry["type"])
    return f"{label} (test mode)" if details.get("is_test") else label


def more(entry: Mapping[str, Any]) -> str:
    """Return the details of an entry, joined by dots."""
    details, parts = entry["details"], []
    if details.get("is_new_place"):
        parts.append("from a new place")
    if "allowed_networks" in details:
        parts.append(", ".join(details["allowed_networks"]))
    elif entry["type"] == "webhook.allowlist_changed":
        parts.append("from anywhere")
    for name, words in (("orders", "order"), ("updates", "update")):
        if count := details.get(name):
            parts.append(f"{count:,} {words}{'' if count == 1 else 's'}")
    if entry["type"] == "secret.rotated":
        parts.append("those before stopped immediately" if "revoked_ids" in details else "")
    if "platform" in details:
        parts.append(GIVEN_BY.get(details["platform"], details["platform"]))
    parts += [details.get(name, "") for name in ("shop", "public_key", "value", "reason")]
    return " · ".join(filter(None, parts))


PAGES = (Page("GET", PATH, "business", show),)
