"""Applies all rules of the webhook to a request in one call, for `POST /webhooks/test/`. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar, cast

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from services.ingress.credentials.public_key import MAX_PUBLIC_KEYS
from services.ingress.credentials.secret import tried
from services.ingress.platforms import platform as platforms
from services.ingress.platforms.platform import Platform
from services.ingress.webhook import hmac_hex, missing_headers, rules, standard_webhooks
from services.ingress.webhook.rules import Headers, Refusal, Scheme, Signed
from shared.security.webhook_keys import encode_key


class Held(Protocol):
    """A secret or public key of an account, with its state at the time of the request."""

    @property
    def raw(self) -> bytes: ...  # noqa: D102

    @property
    def state(self) -> str: ...  # noqa: D102

    @property
    def is_test(self) -> bool: ...  # noqa: D102


HeldT = TypeVar("HeldT", bound=Held)


@dataclass(frozen=True, slots=True)
class Judgement(Generic[HeldT]):
    """The webhook's answer, as far as it depends on headers, signature and secrets.

    Attributes:
        scheme: by which the request was checked.
        refusal: None if it is accepted.
        secret: the secret or public key that verified the signature, also of a refused request.
        platform: that sent it, if any.
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
    """Apply all rules to a request but those of its body's content.

    Args:
        headers: see `Headers`.
        body: the raw body.
        secrets: all of the account's, the newest first.
        now: seconds since 1970.
        public_keys: all of the account's.
        given: the secrets that platforms made for the account, by the platform's name.
        is_standard_only: whether the account accepts Standard Webhooks only.
    """
    names = {name for name, _ in headers}
    is_standard = not names.isdisjoint(rules.STANDARD_HEADERS)
    platform = None if is_standard or b"x-api-key" in names else rules.platform_of(names)
    scheme: Scheme = "standard_webhooks" if is_standard else "api_key"
    if platform is not None:
        scheme = cast("Scheme", platform.name)
    secret: HeldT | None = None
    signed = _Signed()
    try:
        if is_standard:
            secret = _standard(headers, body, secrets, public_keys, now, signed)
        elif platform is not None:
            if platform.ping is not None and rules.is_form(rules.header(headers, b"content-type")):
                is_ping = platform.ping.fullmatch(body) is not None
                refusal = (
                    None if is_ping else Refusal(415, "unsupported_media_type", rules.NOT_JSON)
                )
                return Judgement(scheme, refusal, None, platform)
            held = (given or {}).get(platform.name, ()) if platform.gives_secret else secrets
            secret = _platform(headers, body, held, platform, signed)
            signed.key = None
            if is_standard_only:
                raise rules.scheme_not_allowed()
        else:
            secret = _api_key(headers, body, secrets, signed)
            if is_standard_only:
                raise rules.scheme_not_allowed()
        if refusal := rules.state_refusal(secret.state):
            raise refusal
        rules.check_form(
            rules.header(headers, b"content-type"),
            rules.header(headers, b"content-encoding"),
            signed.key,
        )
    except Refusal as refused:
        return Judgement(scheme, refused, secret, platform)
    return Judgement(scheme, None, secret, platform)


def _api_key(headers: Headers, body: bytes, secrets: Sequence[HeldT], signed: Signed) -> HeldT:
    key, signature = rules.read_api_key_headers(headers, signed)
    if not signature:
        raise rules.missing(missing_headers.API_KEY, headers)
    secret = next((held for held in secrets if encode_key(held.raw).encode() == key), None)
    if secret is None or secret.state == "revoked":
        raise rules.unknown_key(key)
    if not hmac_hex.matches(key, body, signature):
        raise rules.invalid_signature("api_key", signature, *rules.body_faults(headers, body))
    return secret


def _standard(
    headers: Headers,
    body: bytes,
    secrets: Sequence[HeldT],
    public_keys: Sequence[HeldT],
    now: float,
    signed: Signed,
) -> HeldT:
    prefix = rules.read_standard_headers(headers, signed)
    rules.check_time(signed, now)
    given = standard_webhooks.listed(signed.signature)
    for held in tried([held for held in secrets if held.state != "revoked"]):
        if standard_webhooks.matches(held.raw, prefix + body, given):
            return held
    given = standard_webhooks.listed_public(signed.signature)
    for held in [held for held in public_keys if held.state != "revoked"][:MAX_PUBLIC_KEYS]:
        key = Ed25519PublicKey.from_public_bytes(held.raw)
        if standard_webhooks.verifies(key, prefix + body, given):
            return held
    faults = rules.body_faults(headers, body)
    raise rules.invalid_signature("standard_webhooks", signed.signature, *faults)


def _platform(
    headers: Sequence[tuple[bytes, bytes]],
    body: bytes,
    secrets: Sequence[HeldT],
    platform: Platform,
    signed: Signed,
) -> HeldT:
    rules.read_platform_headers(headers, platform, signed)
    # A secret made by a platform has no successor of ours to announce: expired, it is unknown.
    ended = ("revoked", "expired") if platform.gives_secret else ("revoked",)
    candidates = [held for held in secrets if held.state not in ended]
    for held in candidates if platform.gives_secret else tried(candidates):
        if platforms.matches(rules.platform_keys(held.raw, platform), body, signed.signature):
            return held
    raise rules.invalid_signature(
        platform.name, signed.signature, *rules.body_faults(headers, body)
    )
