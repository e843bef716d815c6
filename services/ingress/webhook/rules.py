"""How a webhook request is judged: pure rules over its headers, its body, secrets and a time.

The webhook takes them one by one, with its look-ups, the reading of the body and the counting of
refusals in between; `POST /webhooks/test/` takes the same ones in one go, by `judge`. Their order
is part of the contract: headers present, sender known or time right, signature, scheme allowed,
secret's state; then the form, and the body's own (`shared/intake/bodies.py`). Nothing has an effect
before the signature is right.
"""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Generic, Literal, Protocol, TypeVar, cast

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from services.ingress.credentials.public_key import MAX_PUBLIC_KEYS
from services.ingress.credentials.secret import tried
from services.ingress.platforms import platform as platforms
from services.ingress.platforms.known import PLATFORMS
from services.ingress.platforms.platform import Platform
from services.ingress.webhook import (
    hmac_hex,
    missing_headers,
    signature_text,
    standard_webhooks,
)
from shared.security.webhook_keys import encode_key, encode_standard

Headers = Iterable[tuple[bytes, bytes]]
"""Names in small letters, and values: what is in them may be anything."""
Scheme = Literal["api_key", "standard_webhooks", "woocommerce", "shopify"]
"""By what a request is signed; those of platforms are called as they are."""
_FORM = "application/x-www-form-urlencoded"

STANDARD_HEADERS = tuple(name.encode() for name in missing_headers.STANDARD)
EXPIRED = "Webhook secret expired. New secret generated. Please update your configuration."
SCHEME_NOT_ALLOWED = "The account takes Standard Webhooks only."
STALE = "The webhook-timestamp is not within 5 minutes of the server's time."
NOT_PLAIN = "Send the body plain, not compressed."
NOT_JSON = "Send JSON, with Content-Type: application/json."
BAD_ID = "webhook-id may hold up to 255 visible ASCII characters, and no `.`."
TWICE = "A header of the signature is there more than once."
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


class Refusal(Exception):  # noqa: N818 - the outcome's name
    """The request is refused.

    Args:
        status: of the answer.
        code: of the error.
        sentence: for the sender.
        faults: what is wrong in detail, a sentence each.
    """

    def __init__(self, status: int, code: str, sentence: str, faults: Sequence[str] = ()) -> None:
        super().__init__(sentence)
        self.status = status
        self.code = code
        self.sentence = sentence
        self.faults = faults


class Signed(Protocol):
    """What the headers of either scheme are written down in."""

    key: bytes | None
    timestamp: bytes
    signature: bytes


class Held(Protocol):
    """A secret or public key of an account: its bytes, and its state at the time of the request."""

    @property
    def raw(self) -> bytes: ...  # noqa: D102

    @property
    def state(self) -> str: ...  # noqa: D102

    @property
    def is_test(self) -> bool: ...  # noqa: D102


HeldT = TypeVar("HeldT", bound=Held)


def read_api_key_headers(headers: Headers, signed: Signed) -> tuple[bytes, bytes]:
    """The key and the signature. The signature is empty where either of them is missing.

    Args:
        headers: of the request.
        signed: takes the signature and the idempotency key.

    Raises:
        Refusal: one of the two is there twice.
    """
    key: bytes | None = None
    signature: bytes | None = None
    for name, value in headers:
        if name == b"x-api-key":
            if key is not None:
                raise invalid_api_key("X-API-Key is there more than once.")
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
    """What is signed before the body.

    Args:
        headers: of the request.
        signed: takes all three.

    Raises:
        Refusal: one is missing, there twice or cannot be signed.
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
    """Take what a platform's request is signed with, and what names its delivery.

    Args:
        headers: of the request.
        platform: by whose scheme.
        signed: takes signature and delivery.

    Raises:
        Refusal: one is missing, or the signature is there twice.
    """
    given = dict(headers)
    required, signature, delivery = _as_sent(platform)
    if not all(map(given.get, required)):
        raise missing(platform.required, headers)
    is_twice = len(given) < len(headers)  # whichever it is
    if is_twice and sum(name == signature for name, _ in headers) > 1:
        raise invalid_signature(platform.name, b"", TWICE)
    signed.signature = given[signature]
    signed.key = given.get(delivery)


@cache
def _as_sent(platform: Platform) -> tuple[Sequence[bytes], bytes, bytes]:
    """The names of the headers that are required, of the signature and of the delivery."""
    required = tuple(name.lower().encode() for name in platform.required)
    return required, platform.signature.lower().encode(), platform.delivery.lower().encode()


def platform_keys(raw: bytes, platform: Platform) -> Iterator[bytes]:
    """The keys that a platform may sign with for a secret: what was pasted, as text."""
    if platform.gives_secret:
        yield raw
    else:
        yield encode_key(raw).encode()
        yield encode_standard(raw).encode()


def platform_of(names: Collection[bytes]) -> Platform | None:
    """Whose delivery a request is, by the headers that it must have; None where it has none.

    Args:
        names: of its headers, in small letters.
    """
    for platform in PLATFORMS:
        if any(name in names for name in _as_sent(platform)[0]):
            return platform
    return None


def is_form(content_type: str | None) -> bool:
    """Whether a body is encoded as a form, as a platform's ping is, which nobody signs."""
    return (content_type or "").partition(";")[0].strip().lower() == _FORM


def check_time(signed: Signed, now: float) -> None:
    """Refuse a `webhook-timestamp` too far from `now`, in seconds since 1970.

    Raises:
        Refusal: it is.
    """
    if not standard_webhooks.is_current(signed.timestamp, now):
        raise Refusal(401, "invalid_timestamp", STALE)


def check_form(content_type: str | None, encoding: str | None, key: bytes | None) -> str | None:
    """The idempotency key, where there is one, of a request whose form is right.

    Args:
        content_type: the header; JSON is meant where there is none.
        encoding: the header `Content-Encoding`.
        key: what makes the request idempotent, as it came.

    Raises:
        Refusal: it is not.
    """
    if encoding and encoding.lower() != "identity":
        raise Refusal(415, "unsupported_media_type", NOT_PLAIN)
    if content_type:
        media = content_type.partition(";")[0].strip().lower()
        if media != "application/json" and not media.endswith("+json"):
            raise Refusal(415, "unsupported_media_type", NOT_JSON)
    if key is None:
        return None
    if _KEY.match(key) is None:
        raise Refusal(400, "invalid_idempotency_key", BAD_KEY)
    return key.decode()


def state_refusal(state: str) -> Refusal | None:
    """Why a secret of this state is not taken, whose signature is right; None where it is."""
    if state in ("active", "retiring"):
        return None
    return Refusal(401, "secret_expired", EXPIRED) if state == "expired" else invalid_api_key()


def missing(wanted: tuple[str, ...], headers: Headers) -> Refusal:
    """Not all headers of a scheme are there.

    Args:
        wanted: those of the scheme, as in `missing_headers`.
        headers: of the request.
    """
    faults = missing_headers.faults(wanted, headers)
    return Refusal(401, "missing_authentication", "Missing authentication headers", faults)


def invalid_api_key(*faults: str) -> Refusal:
    """The key is nobody's, or is good no more."""
    return Refusal(401, "invalid_api_key", "Invalid API key", (*faults, KEY_CURE))


def unknown_key(key: bytes) -> Refusal:
    """The same, and whether a key by its look is none of ours.

    Args:
        key: as it came.
    """
    return invalid_api_key(*(() if key.startswith((b"whsk_", b"whtk_")) else (NO_KEY,)))


def invalid_signature(scheme: str, signature: bytes, *faults: str) -> Refusal:
    """The signature is not right.

    Args:
        scheme: by which it was judged.
        signature: as it came; empty where it was not looked at.
        faults: what is known to be wrong beside.
    """
    told = (*faults, *signature_text.why_wrong(scheme, signature))
    return Refusal(401, "invalid_signature", "Invalid signature", told)


def body_faults(headers: Headers, body: bytes) -> Iterator[str]:
    """What a body shows by itself of why it is none of what was signed.

    Args:
        headers: of the request.
        body: as it came.
    """
    coding = _header(headers, b"content-encoding")
    if not body:
        yield "The body came empty."
    elif coding and coding.lower() != "identity":
        yield f"The body came compressed (Content-Encoding: {coding:.20}). {NOT_PLAIN}"


def scheme_not_allowed() -> Refusal:
    """The account takes the other scheme only."""
    return Refusal(403, "scheme_not_allowed", SCHEME_NOT_ALLOWED)


@dataclass(frozen=True, slots=True)
class Judgement(Generic[HeldT]):
    """What the webhook would answer, as far as headers, body and secrets decide.

    Attributes:
        scheme: by which it was judged.
        refusal: None when it is accepted.
        secret: whose signature is right, also where it is refused for another reason; it may be a
            public key.
        platform: whose delivery it is, where it is one.
    """

    scheme: Scheme
    refusal: Refusal | None
    secret: HeldT | None
    platform: Platform | None = None


class _Signed:
    key: bytes | None = None
    timestamp = signature = b""


def judge(
    headers: Sequence[tuple[bytes, bytes]],
    body: bytes,
    secrets: Sequence[HeldT],
    now: float,
    *,
    public_keys: Sequence[HeldT] = (),
    given: Mapping[str, Sequence[HeldT]] | None = None,
    is_standard_only: bool = False,
) -> Judgement[HeldT]:
    """Judge a request, but for what its body says.

    Args:
        headers: see `Headers`.
        body: the raw body.
        secrets: all of the account's, the newest first.
        now: seconds since 1970.
        public_keys: all of the account's.
        given: the secrets that platforms have made for the account, by the platform's name.
        is_standard_only: whether the account takes Standard Webhooks only.
    """
    names = {name for name, _ in headers}
    is_standard = not names.isdisjoint(STANDARD_HEADERS)
    platform = None if is_standard or b"x-api-key" in names else platform_of(names)
    scheme: Scheme = "standard_webhooks" if is_standard else "api_key"
    if platform is not None:
        scheme = cast("Scheme", platform.name)
    secret: HeldT | None = None
    signed = _Signed()
    try:
        if is_standard:
            secret = _standard(headers, body, secrets, public_keys, now, signed)
        elif platform is not None:
            if platform.ping is not None and is_form(_header(headers, b"content-type")):
                is_ping = platform.ping.fullmatch(body) is not None
                refusal = None if is_ping else Refusal(415, "unsupported_media_type", NOT_JSON)
                return Judgement(scheme, refusal, None, platform)
            held = (given or {}).get(platform.name, ()) if platform.gives_secret else secrets
            secret = _platform(headers, body, held, platform, signed)
            signed.key = None
            if is_standard_only:
                raise scheme_not_allowed()
        else:
            secret = _api_key(headers, body, secrets, signed)
            if is_standard_only:
                raise scheme_not_allowed()
        if refusal := state_refusal(secret.state):
            raise refusal
        check_form(
            _header(headers, b"content-type"), _header(headers, b"content-encoding"), signed.key
        )
    except Refusal as refused:
        return Judgement(scheme, refused, secret, platform)
    return Judgement(scheme, None, secret, platform)


def _api_key(headers: Headers, body: bytes, secrets: Sequence[HeldT], signed: Signed) -> HeldT:
    key, signature = read_api_key_headers(headers, signed)
    if not signature:
        raise missing(missing_headers.API_KEY, headers)
    secret = next((held for held in secrets if encode_key(held.raw).encode() == key), None)
    if secret is None or secret.state == "revoked":
        raise unknown_key(key)
    if not hmac_hex.matches(key, body, signature):
        raise invalid_signature("api_key", signature, *body_faults(headers, body))
    return secret


def _standard(
    headers: Headers,
    body: bytes,
    secrets: Sequence[HeldT],
    public_keys: Sequence[HeldT],
    now: float,
    signed: Signed,
) -> HeldT:
    prefix = read_standard_headers(headers, signed)
    check_time(signed, now)
    given = standard_webhooks.listed(signed.signature)
    for held in tried([held for held in secrets if held.state != "revoked"]):
        if standard_webhooks.matches(held.raw, prefix + body, given):
            return held
    given = standard_webhooks.listed_public(signed.signature)
    for held in [held for held in public_keys if held.state != "revoked"][:MAX_PUBLIC_KEYS]:
        key = Ed25519PublicKey.from_public_bytes(held.raw)
        if standard_webhooks.verifies(key, prefix + body, given):
            return held
    faults = body_faults(headers, body)
    raise invalid_signature("standard_webhooks", signed.signature, *faults)


def _platform(
    headers: Sequence[tuple[bytes, bytes]],
    body: bytes,
    secrets: Sequence[HeldT],
    platform: Platform,
    signed: Signed,
) -> HeldT:
    read_platform_headers(headers, platform, signed)
    # What a platform has made ends, and that is all: it is not told of another.
    ended = ("revoked", "expired") if platform.gives_secret else ("revoked",)
    candidates = [held for held in secrets if held.state not in ended]
    for held in candidates if platform.gives_secret else tried(candidates):
        if platforms.matches(platform_keys(held.raw, platform), body, signed.signature):
            return held
    raise invalid_signature(platform.name, signed.signature, *body_faults(headers, body))


def _header(headers: Headers, wanted: bytes) -> str | None:
    return next((value.decode("latin-1") for name, value in headers if name == wanted), None)
