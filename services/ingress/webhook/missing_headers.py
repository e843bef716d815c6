"""Which headers of a scheme are missing, and what those that are there were meant for, in words.

Names alone are looked at, so nothing is told that the sender has not sent.
"""

from collections.abc import Collection, Iterable

from services.ingress.platforms.known import PLATFORMS
from shared.validation.words import listed

API_KEY = ("X-API-Key", "X-Webhook-Signature")
STANDARD = ("webhook-id", "webhook-timestamp", "webhook-signature")
_URLS = {
    API_KEY: "POST /api/v1/webhooks/orders/",
    STANDARD: "POST /api/v1/webhooks/{account_id}/orders/",
} | {platform.required: f"POST /api/v1{platform.path}" for platform in PLATFORMS}
# By a part of a header's name: whose it is, and what it is here.
_FOREIGN = (
    ("stripe-signature", "Stripe's"),
    ("x-hub-signature", "GitHub's"),
)


def faults(wanted: tuple[str, ...], headers: Iterable[tuple[bytes, bytes]]) -> list[str]:
    """What is missing, and why that may be, a sentence each.

    Args:
        wanted: `API_KEY`, `STANDARD` or those that a platform requires: the scheme of the URL that
            was asked.
        headers: those of the request, with names in small letters.
    """
    given = {name.decode("latin-1"): bool(value) for name, value in headers}
    missing = [name for name in wanted if not given.get(name.lower())]
    are = "is" if len(missing) == 1 else "are"
    found = [f"{listed(missing)} {are} missing or empty."]
    others = [
        f"{listed(other)} are there: they are for `{url}`, and this is `{_URLS[wanted]}`."
        for other, url in _URLS.items()
        if other != wanted and all(given.get(name.lower()) for name in other)
    ]
    others = others or [
        f"{platform.title}'s signature is there: send its webhooks to "
        f"`{_URLS[platform.required]}`, which needs {listed(platform.required)}."
        for platform in PLATFORMS
        if platform.required != wanted and platform.signature.lower() in given
    ]
    return found + (others or _renamed(missing, given))


def _renamed(missing: Iterable[str], given: Collection[str]) -> list[str]:
    """Headers by other names that may have been meant."""
    found = []
    svix = [name for name in given if name.startswith("svix-")]
    if svix:
        found.append(
            f"{listed(sorted(svix))} {'is' if len(svix) == 1 else 'are'} there, by Svix's names: "
            f"send {listed(STANDARD)} to `{_URLS[STANDARD]}`."
        )
    for name, whose in _FOREIGN:
        if any(other.startswith(name) for other in given):
            found.append(f"{whose} signature is there, which is not known here: sign anew.")
    if "X-API-Key" in missing and "authorization" in given:
        found.append("Authorization is there: the secret goes into X-API-Key, without `Bearer`.")
    return found
