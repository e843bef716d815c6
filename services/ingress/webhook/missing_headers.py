"""Which headers of a scheme are missing, and what those that are there were meant for, in words.

Names alone are looked at, so nothing is told that the sender has not sent.
"""

from collections.abc import Collection, Iterable

from shared.validation.words import listed

API_KEY = ("X-API-Key", "X-Webhook-Signature")
STANDARD = ("webhook-id", "webhook-timestamp", "webhook-signature")
_URLS = {
    API_KEY: "POST /api/v1/webhooks/orders/",
    STANDARD: "POST /api/v1/webhooks/{account_id}/orders/",
}
# By a part of a header's name: whose it is, and what it is here.
_FOREIGN = (
    ("x-shopify-hmac", "Shopify's"),
    ("x-wc-webhook-signature", "WooCommerce's"),
    ("stripe-signature", "Stripe's"),
    ("x-hub-signature", "GitHub's"),
)


def faults(wanted: tuple[str, ...], headers: Iterable[tuple[bytes, bytes]]) -> list[str]:
    """What is missing, and why that may be, a sentence each.

    Args:
        wanted: `API_KEY` or `STANDARD`, the scheme of the URL that was asked.
        headers: those of the request, with names in small letters.
    """
    given = {name.decode("latin-1"): bool(value) for name, value in headers}
    missing = [name for name in wanted if not given.get(name.lower())]
    are = "is" if len(missing) == 1 else "are"
    found = [f"{listed(missing)} {are} missing or empty."]
    other = STANDARD if wanted is API_KEY else API_KEY
    if all(given.get(name.lower()) for name in other):
        found.append(
            f"{listed(other)} are there: they are for `{_URLS[other]}`, and this is "
            f"`{_URLS[wanted]}`."
        )
    else:
        found += _renamed(missing, given)
    return found


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
