"""Explains which headers of a scheme are missing, and which scheme the present ones belong to.

It uses the names of the headers alone, so an answer reveals nothing that the sender did not send.
"""

from collections.abc import Collection, Iterable

from services.ingress.platforms.known import PLATFORMS
from shared.validation.phrases import listed

API_KEY = ("X-API-Key", "X-Webhook-Signature")
STANDARD = ("webhook-id", "webhook-timestamp", "webhook-signature")
_URLS = {
    API_KEY: "POST /api/v1/webhooks/orders/",
    STANDARD: "POST /api/v1/webhooks/{account_id}/orders/",
} | {platform.required: f"POST /api/v1{platform.path}" for platform in PLATFORMS}
# The beginning of a header's name, and whose it is.
_FOREIGN = (
    ("stripe-signature", "Stripe's"),
    ("x-hub-signature", "GitHub's"),
)


def faults(wanted: tuple[str, ...], headers: Iterable[tuple[bytes, bytes]]) -> list[str]:
    """Return sentences on what is missing, and why that may be.

    Args:
        wanted: `API_KEY`, `STANDARD` or a platform's `required`: the scheme of the requested URL.
        headers: those of the request, with names in lower case.
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
    """Return sentences on headers under other names that may stand for the missing ones."""
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
