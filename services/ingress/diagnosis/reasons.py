"""Explains why a webhook's signature is right or wrong.

Pure functions of the request and the account's secrets. The webhook's answer itself comes from
`webhook/rules.py`; this module adds the reasons.
"""

import hmac
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from uuid import UUID

from services.ingress.diagnosis import asymmetric, judging, mistakes
from services.ingress.diagnosis.judging import Judgement
from services.ingress.platforms import platform as platforms
from services.ingress.platforms.platform import Platform
from services.ingress.webhook import (
    hmac_hex,
    missing_headers,
    rules,
    signature_text,
    standard_webhooks,
)
from services.ingress.webhook.rules import Scheme
from services.ingress.webhook.standard_webhooks import (
    MAX_PUBLIC_SIGNATURES,
    MAX_SIGNATURES,
)
from shared.security.webhook_keys import encode_key, encode_standard

# Explained by the webhook's own sentence.
_OF_THE_FORM = ("unsupported_media_type", "invalid_idempotency_key", "scheme_not_allowed")
KeyVariants = Callable[[bytes], Iterator[tuple[str, bytes]]]


@dataclass(frozen=True, slots=True)
class Secret:
    """One of the account's secrets, or public keys.

    Attributes:
        id: its id.
        raw: its bytes.
        state: `active`, `retiring`, `expired` or `revoked`, at this time.
        is_public: whether it is a public key.
        is_test: whether it signs test orders.
    """

    id: UUID
    raw: bytes
    state: str
    is_public: bool = False
    is_test: bool = False


@dataclass(slots=True)
class Diagnosis:
    """The result of `diagnose`.

    Attributes:
        scheme: of the request.
        code: the webhook's error code; empty if it accepts the request.
        is_right: whether the signature is right, also if its secret is no longer valid.
        secret: the secret that made the signature, also if it was made in a wrong way.
        expected: the right signature, if the secret is known.
        findings: sentences, the most important first.
        platform: that sent the request, if any.
    """

    scheme: Scheme
    code: str = ""
    is_right: bool = False
    secret: Secret | None = None
    expected: str = ""
    findings: list[str] = field(default_factory=list)
    platform: Platform | None = None


def diagnose(
    headers: Mapping[str, str],
    body: bytes,
    secrets: Sequence[Secret],
    now: float,
    *,
    public_keys: Sequence[Secret] = (),
    given_secrets: Mapping[str, Sequence[Secret]] | None = None,
    is_standard_only: bool = False,
) -> Diagnosis:
    """Verify a request and explain what differs.

    Args:
        headers: of the request; names in any case.
        body: the raw body.
        secrets: all of the account's, the newest first.
        now: seconds since 1970.
        public_keys: all of the account's, the oldest first.
        given_secrets: the secrets that platforms made for it, by the platform's name.
        is_standard_only: whether the account accepts Standard Webhooks only.
    """
    given = as_received(headers)
    raw = [(name.encode(errors="replace"), value.encode()) for name, value in given.items()]
    judged = judging.judge(
        raw,
        body,
        secrets,
        now,
        public_keys=public_keys,
        given=given_secrets,
        is_standard_only=is_standard_only,
    )
    code = judged.refusal.code if judged.refusal else ""
    found = Diagnosis(judged.scheme, code, is_right=judged.secret is not None)
    found.platform = judged.platform
    if judged.refusal is not None and code == "missing_authentication":
        found.findings += judged.refusal.faults
    if judged.platform is not None:
        made = (given_secrets or {}).get(judged.platform.name, ())
        _shop(given, body, made if judged.platform.gives_secret else secrets, judged, found)
    elif judged.scheme == "standard_webhooks":
        _standard(given, body, secrets, public_keys, now, found)
    else:
        _api_key(given, body, secrets, found)
    if judged.secret is not None:
        found.secret = judged.secret
    if judged.refusal is not None and code in _OF_THE_FORM:
        found.findings += [judged.refusal.sentence, *judged.refusal.faults]
    return found


def as_received(headers: Mapping[str, str]) -> dict[str, str]:
    """Return headers as the server reads them, with names in lower case."""
    # White space around a value is not part of it (RFC 9110, 5.5). JSON can encode half of a
    # surrogate pair, which no header can contain.
    return {
        name.strip().lower(): value.strip(" \t").encode(errors="replace").decode()
        for name, value in headers.items()
    }


def _api_key(
    given: Mapping[str, str], body: bytes, secrets: Sequence[Secret], found: Diagnosis
) -> None:
    missing = [name for name in missing_headers.API_KEY if not given.get(name.lower())]
    if missing:
        found.findings += _similar(given, missing)
        return
    named = _named(given["x-api-key"], secrets, found)
    signature = given["x-webhook-signature"]
    if named is not None:
        key = encode_key(named.raw).encode()
        found.expected = hmac_hex.sign(key, body).decode()
        if hmac_hex.matches(key, body, signature.encode()):
            found.secret = named
            _add_state(named, found)
            return
    digest = signature_text.read(signature, "hex", found.findings)
    if digest is None:
        if named is not None and _without_zeros(signature, found.expected):
            found.secret = named
            found.findings.append("It is the right signature without its zeros: the secret fits.")
        return
    first = [named] if named is not None else []
    ordered = first + [secret for secret in secrets if secret is not named]
    _explain(digest, body, ordered, named, mistakes.of_key, found)


def _without_zeros(signature: str, expected: str) -> bool:
    """Return whether a signature is the right one, as bytes by `%x` or as a large number."""
    digest = bytes.fromhex(expected)
    return signature.strip().lower() in ("".join(f"{b:x}" for b in digest), expected.lstrip("0"))


def _shop(
    given: Mapping[str, str],
    body: bytes,
    secrets: Sequence[Secret],
    judged: Judgement[Secret],
    found: Diagnosis,
) -> None:
    platform = judged.platform
    signature = given.get(platform.signature.lower(), "") if platform is not None else ""
    if platform is None or not signature:
        return
    if not secrets:
        whose = f"that {platform.title} made" if platform.gives_secret else "of ours"
        found.findings.append(f"This account has no secret {whose}.")
    if judged.secret is not None:
        found.secret = judged.secret
        _add_state(judged.secret, found)
    else:
        digest = signature_text.read(signature, "base64", found.findings)
        if digest is not None:

            def keys(raw: bytes) -> Iterator[tuple[str, bytes]]:
                return (("", key) for key in rules.platform_keys(raw, platform))

            _explain(digest, body, secrets, None, keys, found)
    # Each of several shops has its own secret: without a match it is not known which one sent.
    active = [
        s for s in secrets if s.state == "active" and (platform.gives_secret or not s.is_test)
    ]
    under = found.secret or (active[0] if len(active) == 1 else None)
    if under is not None:
        key = rules.platform_keys(under.raw, platform)[0]
        found.expected = platforms.sign(key, body).decode()


def _standard(
    given: Mapping[str, str],
    body: bytes,
    secrets: Sequence[Secret],
    public_keys: Sequence[Secret],
    now: float,
    found: Diagnosis,
) -> None:
    if not all(given.get(name) for name in missing_headers.STANDARD):
        return
    id_, stamp, signatures = (given[name] for name in missing_headers.STANDARD)
    if not standard_webhooks.is_id(id_.encode()):
        found.findings.append(rules.BAD_ID)
    if not standard_webhooks.is_current(stamp.encode(), now):
        found.findings.append(standard_webhooks.why_not_current(stamp.encode(), now))
    head = f"{id_}.{stamp}.".encode()
    active = next((s for s in secrets if s.state == "active" and not s.is_test), None)
    if active is not None:
        found.expected = "v1," + signature_text.in_base64(_hmac(active.raw, head + body))
    signed = asymmetric.Signed(id_, stamp, body)
    is_explained = False
    asymmetric_ones = 0
    for entry in filter(None, signatures.split(" ", MAX_SIGNATURES)[:MAX_SIGNATURES]):
        version, comma, text = entry.partition(",")
        if not comma:
            text = entry
            found.findings.append(f"`{entry:.20}…` has no `v1,` before it, so it is ignored.")
        elif version == "v1a":
            asymmetric_ones += 1
            if _public(text, asymmetric_ones, signed, public_keys, found):
                return
            continue
        elif version != "v1":
            found.findings.append(
                f"Version `{version:.10}` is not known here: it must be `v1` or `v1a`."
            )
            continue
        if asymmetric.is_one(text, signed, public_keys):
            found.findings.append("This is a signature by a private key: write `v1a,` before it.")
            continue
        digest = signature_text.read(text, "base64", found.findings)
        if digest is None:
            continue
        right = next((s for s in secrets if _hmac(s.raw, head + body) == digest), None)
        if right is not None and comma and text == signature_text.in_base64(digest):
            found.secret = right
            _add_state(right, found)
            return
        if right is not None:
            found.secret = right
            continue
        # This takes a thousand HMACs, so only the first signature is explained.
        if not is_explained and not _explain_head(digest, id_, stamp, body, secrets, found):
            _explain(digest, body, secrets, None, mistakes.of_standard_key, found, head)
        is_explained = True


def _public(
    text: str,
    number: int,
    signed: asymmetric.Signed,
    public_keys: Sequence[Secret],
    found: Diagnosis,
) -> bool:
    """Return whether a `v1a` signature is right; add what is wrong with it otherwise."""
    if number > MAX_PUBLIC_SIGNATURES:
        found.findings.append(
            f"Of `v1a` the first {MAX_PUBLIC_SIGNATURES} signatures count, and this is a later one."
        )
    key, faults = asymmetric.explain(text, signed, public_keys)
    found.findings += faults
    if key is None:
        return False
    found.secret = key
    if faults or number > MAX_PUBLIC_SIGNATURES:
        return False
    _add_state(key, found)
    return True


def _explain(
    digest: bytes,
    body: bytes,
    secrets: Iterable[Secret],
    named: Secret | None,
    keys: KeyVariants,
    found: Diagnosis,
    head: bytes = b"",
) -> None:
    """Search for the key and the bytes that give `digest`, and add what differs."""
    bodies = [("", body), *mistakes.of_body(body)]
    for secret in secrets:
        for about_key, key in keys(secret.raw):
            for about_body, signed in bodies:
                if _hmac(key, head + signed) != digest:
                    continue
                found.secret = secret
                found.findings += [text for text in (about_key, about_body) if text]
                if named is not None and secret is not named:
                    found.findings.append(
                        "X-API-Key is one of your secrets, and the signature is by another, "
                        f"{secret.id} ({secret.state}): use one for both."
                    )
                return
        for text, other in mistakes.without_hmac(secret.raw, head + body):
            if other == digest:
                found.findings.append(text)
                return
    found.findings.append(
        "The signature fits none of your secrets over these bytes, nor over any usual change of "
        "them. Compare the body's `sha256` below with that of what you signed: if it differs, the "
        "bytes changed on the way; if not, the secret is another one."
    )


def _explain_head(
    digest: bytes,
    id_: str,
    stamp: str,
    body: bytes,
    secrets: Iterable[Secret],
    found: Diagnosis,
) -> bool:
    """Return whether something else than `id.timestamp.body` was signed; add what it was."""
    for secret in secrets:
        for text, head in mistakes.of_head(id_, stamp):
            if _hmac(secret.raw, head + body) == digest:
                found.secret = secret
                found.findings.append(text)
                return True
    return False


def _named(key: str, secrets: Sequence[Secret], found: Diagnosis) -> Secret | None:
    """Return the secret in X-API-Key, and add what is wrong with its form."""
    for secret in secrets:
        if key == encode_key(secret.raw):
            return secret
    bare = key.strip().strip("\"'").removeprefix("Bearer ").strip()
    for secret in secrets:
        right, standard = encode_key(secret.raw), encode_standard(secret.raw)
        if bare == standard:
            why = "X-API-Key holds the `whsec_` form of the secret. Here it is the `whsk_` form."
        elif bare.rstrip("=") == right:
            why = "X-API-Key has something around the secret: white space, quotes, `Bearer` or `=`."
        elif bare.lower() == right.lower():
            why = "X-API-Key is your secret with capital and small letters changed. They count."
        elif bare == right.partition("_")[2]:
            why = "X-API-Key is your secret without `whsk_`. The prefix is part of it."
        else:
            continue
        found.findings.append(why)
        return secret
    found.findings.append(
        "X-API-Key is none of this account's secrets. Fetch it with `GET /webhook/secret/`."
    )
    return None


def _add_state(secret: Secret, found: Diagnosis) -> None:
    found.is_right = True
    if secret.is_test:
        found.findings.append(
            "It was made with a test secret: the order is recorded as a test, and mailed to you "
            "alone."
        )
    if secret.state == "active":
        found.findings.append("The signature is right.")
    elif secret.state == "retiring":
        found.findings.append(
            "The signature is right. The secret was replaced and works until its own expiry: "
            "switch to the new one."
        )
    elif secret.state == "expired":
        found.findings.append("The signature is right, and the secret has expired.")
    elif secret.is_public:
        found.findings.append("The signature is right, and its public key was removed or revoked.")
    else:
        found.findings.append("The signature is right, and the secret was revoked.")


def _similar(given: Mapping[str, str], missing: Iterable[str]) -> list[str]:
    """Return sentences on headers that may stand for the missing ones."""
    words = {"X-API-Key": r"api.?key|authorization", "X-Webhook-Signature": r"signature|hmac"}
    return [
        f"`{name}` is present: was {header} meant?"
        for header in missing
        for name in given
        if name != header.lower() and re.search(words[header], name)
    ]


def _hmac(key: bytes, signed: bytes) -> bytes:
    return hmac.digest(key, signed, "sha256")
