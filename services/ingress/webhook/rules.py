"""The rules of the webhook: pure functions of headers, body, secrets and time.

The endpoints apply them one by one, with look-ups, reading of the body and counting of refusals in
between; `diagnosis/judging.py` applies all of them in one call. Their order is part of the
contract: headers present, sender known or time current, signature, scheme allowed, secret's state,
then the form, and then the body (`shared/intake/bodies.py`). Nothing has an effect before the
signature is verified.
"""

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import cache, lru_cache
from typing import Literal, Protocol

from services.ingress.platforms.known import PLATFORMS
from services.ingress.platforms.platform import Platform
from services.ingress.webhook import (
    missing_headers,
    signature_text,
    standard_webhooks,
)
from shared.security.webhook_keys import encode_key, encode_standard

Headers = Iterable[tuple[bytes, bytes]]
"""Pairs of a name in lower case and a value, which may hold any bytes."""
Scheme = Literal["api_key", "standard_webhooks", "woocommerce", "shopify"]
"""A signature scheme; a platform's has the platform's name."""
_FORM = "application/x-www-form-urlencoded"

STANDARD_HEADERS = tuple(name.encode() for name in missing_headers.STANDARD)
EXPIRED = "Webhook secret expired. New secret generated. Please update your configuration."
SCHEME_NOT_ALLOWED = "The account takes Standard Webhooks only."
STALE = "The webhook-timestamp is not within 5 minutes of the server's time."
NOT_PLAIN = "Send the body plain, not compressed."
NOT_JSON = "Send JSON, with Content-Type: application/json."
BAD_ID = "webhook-id may hold up to 255 visible ASCII characters, and no `.`."
TWICE = "A header of the signature is present more than once."
NO_KEY = (
    "A secret in X-API-Key begins with `whsk_`, or `whtk_`, without anything before it; `whsec_…` "
    "is for Standard Webhooks."
)
KEY_CURE = (
    "The secret is unknown, revoked or of another installation: `GET /api/v1/webhook/secret/`, "
    "signed in, has the present one."
)
BAD_KEY = "An Idempotency-Key is 1 to 255 visible ASCII characters, without spaces, and one."
_KEY = re.compile(rb"[\x21-\x7e]{1,255}\Z")
# Charsets, media types and transfer encodings belong in other headers. Anything else may be a
# compression.
_NO_COMPRESSION = re.compile(
    r"(?:charset=)?[\"']?(?:utf-?\d+(?:-?[bl]e)?|(?:us-)?ascii|latin-?\d|iso-?8859-\d+|windows-\d+"
    r"|cp-?\d+|(?:[\w.+-]+/)?json|text(?:/plain)?|plain|none|null|identity|binary|raw|[78]-?bit)"
    r"[\"';]*",
    re.IGNORECASE,
)


class Refusal(Exception):  # noqa: N818 - the outcome's name
    """The request is refused.

    Args:
        status: the HTTP status.
        code: the error code.
        sentence: for the sender.
        faults: the details, a sentence each.
    """

    def __init__(self, status: int, code: str, sentence: str, faults: Sequence[str] = ()) -> None:
        super().__init__(sentence)
        self.status = status
        self.code = code
        self.sentence = sentence
        self.faults = faults


class Signed(Protocol):
    """The record that takes a request's headers; a subset of `Attempt`."""

    key: bytes | None
    timestamp: bytes
    signature: bytes


def read_api_key_headers(headers: Headers, signed: Signed) -> tuple[bytes, bytes]:
    """Return the key and the signature; the signature is empty if either is missing.

    Args:
        headers: of the request.
        signed: takes the signature and the idempotency key.

    Raises:
        Refusal: one of the two is present twice.
    """
    key: bytes | None = None
    signature: bytes | None = None
    for name, value in headers:
        if name == b"x-api-key":
            if key is not None:
                raise invalid_api_key("X-API-Key is present more than once.")
            key = value
        elif name == b"x-webhook-signature":
            if signature is not None:
                raise invalid_signature("api_key", b"", TWICE)
            signature = value
        elif name == b"idempotency-key":
            # Two of them are one list (RFC 9110, 5.3), and a list is no key.
            signed.key = value if signed.key is None else b"%b, %b" % (signed.key, value)
    if not key or not signature:
        return key or b"", b""
    signed.signature = signature
    return key, signature


def read_standard_headers(headers: Headers, signed: Signed) -> bytes:
    """Return the signed bytes before the body, `id.timestamp.`.

    Args:
        headers: of the request.
        signed: takes all three headers.

    Raises:
        Refusal: one is missing or present twice, or the id is invalid.
    """
    key = timestamp = signature = None
    twice = False
    for name, value in headers:
        if name == b"webhook-id":
            twice = twice or key is not None
            key = value
        elif name == b"webhook-timestamp":
            twice = twice or timestamp is not None
            timestamp = value
        elif name == b"webhook-signature":
            twice = twice or signature is not None
            signature = value
    if not key or not timestamp or not signature:
        raise missing(missing_headers.STANDARD, headers)
    if twice or not standard_webhooks.is_id(key):
        raise invalid_signature("standard_webhooks", b"", TWICE if twice else BAD_ID)
    signed.key, signed.timestamp, signed.signature = key, timestamp, signature
    return b"%b.%b." % (key, timestamp)


def read_platform_headers(
    headers: Sequence[tuple[bytes, bytes]], platform: Platform, signed: Signed
) -> None:
    """Read the signature and the delivery id of a platform's request.

    Args:
        headers: of the request.
        platform: whose scheme it uses.
        signed: takes signature and delivery id.

    Raises:
        Refusal: a required header is missing, or the signature is present twice.
    """
    given = dict(headers)
    required, signature, delivery = _header_names(platform)
    if not all(map(given.get, required)):
        raise missing(platform.required, headers)
    is_twice = len(given) < len(headers)  # some header, not necessarily the signature
    if is_twice and sum(name == signature for name, _ in headers) > 1:
        raise invalid_signature(platform.name, b"", TWICE)
    signed.signature = given[signature]
    signed.key = given.get(delivery)


@cache
def _header_names(platform: Platform) -> tuple[Sequence[bytes], bytes, bytes]:
    """Return the names of the required headers, of the signature and of the delivery id."""
    required = tuple(name.lower().encode() for name in platform.required)
    return required, platform.signature.lower().encode(), platform.delivery.lower().encode()


@lru_cache(maxsize=1_024)  # encoding both forms takes as long as the signature of a body
def platform_keys(raw: bytes, platform: Platform) -> Sequence[bytes]:
    """Return the keys that a platform may sign with: the pasted text of a secret, in each form."""
    if platform.gives_secret:
        return (raw,)
    return encode_key(raw).encode(), encode_standard(raw).encode()


def platform_of(names: Collection[bytes]) -> Platform | None:
    """Return the platform that sent a request, by its required headers; None if it has none.

    Args:
        names: of the request's headers, in lower case.
    """
    for platform in PLATFORMS:
        if any(name in names for name in _header_names(platform)[0]):
            return platform
    return None


def is_form(content_type: str | None) -> bool:
    """Return whether a body is a form, as a platform's unsigned ping is."""
    return (content_type or "").partition(";")[0].strip().lower() == _FORM


def check_time(signed: Signed, now: float) -> None:
    """Check that a `webhook-timestamp` is current.

    Args:
        signed: with the header.
        now: seconds since 1970.

    Raises:
        Refusal: it is not.
    """
    if not standard_webhooks.is_current(signed.timestamp, now):
        why = standard_webhooks.why_not_current(signed.timestamp, now)
        raise Refusal(401, "invalid_timestamp", STALE, (why,))


def check_form(content_type: str | None, encoding: str | None, key: bytes | None) -> str | None:
    """Check a request's content type, encoding and key; return the idempotency key, if any.

    Args:
        content_type: the header; JSON is assumed without it.
        encoding: the header `Content-Encoding`.
        key: the raw `Idempotency-Key` or `webhook-id`.

    Raises:
        Refusal: 415 or 400: one of them is invalid.
    """
    if encoding and encoding.lower() != "identity":
        sentence = NOT_PLAIN if _is_compression(encoding) else _no_compression(encoding)
        raise Refusal(415, "unsupported_media_type", sentence)
    if content_type:
        media = content_type.partition(";")[0].strip().lower()
        if media != "application/json" and not media.endswith("+json"):
            fault = f"Content-Type is `{content_type:.60}`."
            raise Refusal(415, "unsupported_media_type", NOT_JSON, (fault,))
    if key is None:
        return None
    if _KEY.match(key) is None:
        raise Refusal(400, "invalid_idempotency_key", BAD_KEY)
    return key.decode()


def state_refusal(state: str) -> Refusal | None:
    """Return the refusal of a right signature by a secret in this state; None if it is valid."""
    if state in ("active", "retiring"):
        return None
    return Refusal(401, "secret_expired", EXPIRED) if state == "expired" else invalid_api_key()


def missing(wanted: tuple[str, ...], headers: Headers) -> Refusal:
    """Return the refusal of a request without all headers of a scheme.

    Args:
        wanted: the headers of the scheme, as in `missing_headers`.
        headers: of the request.
    """
    faults = missing_headers.faults(wanted, headers)
    return Refusal(401, "missing_authentication", "Missing authentication headers", faults)


def invalid_api_key(*faults: str) -> Refusal:
    """Return the refusal of a key that is unknown or no longer valid."""
    return Refusal(401, "invalid_api_key", "Invalid API key", (*faults, KEY_CURE))


def unknown_key(key: bytes) -> Refusal:
    """Return the refusal of an unknown key, which says whether its prefix is none of ours.

    Args:
        key: the raw header.
    """
    return invalid_api_key(*(() if key.startswith((b"whsk_", b"whtk_")) else (NO_KEY,)))


def invalid_signature(scheme: str, signature: bytes, *faults: str) -> Refusal:
    """Return the refusal of a wrong signature.

    Args:
        scheme: by which it was checked.
        signature: the raw header; empty if it was not read.
        *faults: other known faults.
    """
    faults = (*faults, *signature_text.why_wrong(scheme, signature))
    return Refusal(401, "invalid_signature", "Invalid signature", faults)


def body_faults(headers: Headers, body: bytes) -> Iterator[str]:
    """Yield what shows, without a secret, why a body differs from the signed one.

    Args:
        headers: of the request.
        body: the raw body.
    """
    coding = header(headers, b"content-encoding")
    if not body:
        yield "The body is empty."
    elif coding and coding.lower() != "identity":
        if _is_compression(coding):
            yield f"The body is compressed (Content-Encoding: {coding:.20}). {NOT_PLAIN}"
        else:
            yield _no_compression(coding)


def _is_compression(encoding: str) -> bool:
    listed = filter(None, re.split(r"[\s,;]+", encoding))
    return not all(_NO_COMPRESSION.fullmatch(one) for one in listed)


def _no_compression(encoding: str) -> str:
    return (
        f"Content-Encoding is `{encoding:.20}`, which is no compression. Leave it out; a charset "
        "goes into Content-Type."
    )


def scheme_not_allowed() -> Refusal:
    """Return the refusal of an account that accepts Standard Webhooks only."""
    return Refusal(403, "scheme_not_allowed", SCHEME_NOT_ALLOWED)


def header(headers: Headers, wanted: bytes) -> str | None:
    """Return the first header of a name in lower case; None if there is none."""
    return next((value.decode("latin-1") for name, value in headers if name == wanted), None)
