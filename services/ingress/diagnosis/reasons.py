"""Why a webhook's signature is right or wrong, in words that a sender can act on.

Pure functions over what was sent and the account's secrets; nothing is recorded and nothing is
accepted. What the webhook would answer its own rules say (`webhook/rules.py`); here is only why.
"""

import hmac
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from uuid import UUID

from services.ingress.diagnosis import asymmetric, mistakes
from services.ingress.platforms import platform as platforms
from services.ingress.platforms.platform import Platform
from services.ingress.webhook import (
    hmac_hex,
    missing_headers,
    rules,
    signature_text,
    standard_webhooks,
)
from services.ingress.webhook.rules import Judgement, Scheme
from services.ingress.webhook.standard_webhooks import (
    MAX_PUBLIC_SIGNATURES,
    MAX_SIGNATURES,
    TOLERANCE_SECONDS,
)
from shared.security.webhook_keys import encode_key, encode_standard

# What is told by the webhook's own sentence.
_OF_THE_FORM = ("unsupported_media_type", "invalid_idempotency_key", "scheme_not_allowed")
KeyVariants = Callable[[bytes], Iterator[tuple[str, bytes]]]


@dataclass(frozen=True, slots=True)
class Secret:
    """One of the account's secrets, or public keys.

    Attributes:
        id: its id.
        raw: its bytes.
        state: `active`, `retiring`, `expired` or `revoked`, as it is now.
        is_public: whether it is a public key.
        is_test: whether what it signs is about test orders; of a secret that a platform has made
            its bytes do not say so.
    """

    id: UUID
    raw: bytes
    state: str
    is_public: bool = False
    is_test: bool = False


@dataclass(slots=True)
class Diagnosis:
    """What was found.

    Attributes:
        scheme: which it was taken for.
        code: the error code that the webhook answers, empty when the signature is accepted.
        is_right: whether the signature is right, also where its secret is good no more.
        secret: the secret whose signature it is, also where that was made in a wrong way.
        expected: the signature that would have been right, where the secret is known.
        findings: sentences, the most important first.
        platform: whose delivery it is, where it is one.
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
    """Verify a request and say what differs.

    Args:
        headers: as they were sent; names in any case.
        body: the raw body.
        secrets: all of the account's, the newest first.
        now: seconds since 1970.
        public_keys: all of the account's, the oldest first.
        given_secrets: those that platforms have made for it, by the platform's name.
        is_standard_only: whether the account takes Standard Webhooks only.
    """
    # JSON can write half of a surrogate pair, which no header can hold.
    given = {
        # White space around a value is none of it (RFC 9110, 5.5).
        name.strip().lower(): value.strip(" \t").encode(errors="replace").decode()
        for name, value in headers.items()
    }
    raw = [(name.encode(errors="replace"), value.encode()) for name, value in given.items()]
    judged = rules.judge(
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
        theirs = (given_secrets or {}).get(judged.platform.name, ())
        _shop(given, body, theirs if judged.platform.gives_secret else secrets, judged, found)
    elif judged.scheme == "standard_webhooks":
        _standard(given, body, secrets, public_keys, now, found)
    else:
        _api_key(given, body, secrets, found)
    if judged.secret is not None:
        found.secret = judged.secret
    if judged.refusal is not None and code in _OF_THE_FORM:
        found.findings.append(judged.refusal.sentence)
    return found


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
            _tell_state(named, found)
            return
    digest = signature_text.read(signature, "hex", found.findings)
    if digest is None:
        return
    first = [named] if named is not None else []
    ordered = first + [secret for secret in secrets if secret is not named]
    _explain(digest, body, ordered, named, mistakes.of_key, found)


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
        _tell_state(judged.secret, found)
    else:
        digest = signature_text.read(signature, "base64", found.findings)
        if digest is not None:

            def keys(raw: bytes) -> Iterator[tuple[str, bytes]]:
                return (("", key) for key in rules.platform_keys(raw, platform))

            _explain(digest, body, secrets, None, keys, found)
    # Of several shops each has its own: which of them sent is known by what fits alone.
    active = [
        s for s in secrets if s.state == "active" and (platform.gives_secret or not s.is_test)
    ]
    under = found.secret or (active[0] if len(active) == 1 else None)
    if under is not None:
        key = next(rules.platform_keys(under.raw, platform))
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
    _explain_stamp(stamp, now, found)
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
            found.findings.append(
                f"`{entry:.20}…` has no `v1,` before it, so it counts for nothing."
            )
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
            _tell_state(right, found)
            return
        if right is not None:
            found.secret = right
            continue
        # That takes a thousand HMACs, so the first must do.
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
    """Whether a signature of `v1a` is right; says what is wrong with it otherwise."""
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
    _tell_state(key, found)
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
    """Look for the key and the bytes that give `digest`, and say what that means."""
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
    """Whether other things than `id.timestamp.body` were signed; says which."""
    for secret in secrets:
        for text, head in mistakes.of_head(id_, stamp):
            if _hmac(secret.raw, head + body) == digest:
                found.secret = secret
                found.findings.append(text)
                return True
    return False


def _named(key: str, secrets: Sequence[Secret], found: Diagnosis) -> Secret | None:
    """The secret that X-API-Key stands for, with what is wrong about how it stands there."""
    for secret in secrets:
        if key == encode_key(secret.raw):
            return secret
    bare = key.strip().strip("\"'").removeprefix("Bearer ").strip()
    for secret in secrets:
        right, standard = encode_key(secret.raw), encode_standard(secret.raw)
        if bare == standard:
            say = "X-API-Key holds the `whsec_` form of the secret. Here it is the `whsk_` form."
        elif bare.rstrip("=") == right:
            say = "X-API-Key has something around the secret: white space, quotes, `Bearer` or `=`."
        elif bare.lower() == right.lower():
            say = "X-API-Key is your secret with capital and small letters changed. They count."
        elif bare == right.partition("_")[2]:
            say = "X-API-Key is your secret without `whsk_`. The prefix is part of it."
        else:
            continue
        found.findings.append(say)
        return secret
    found.findings.append(
        "X-API-Key is none of this account's secrets. Fetch it with `GET /webhook/secret/`."
    )
    return None


def _explain_stamp(stamp: str, now: float, found: Diagnosis) -> None:
    if standard_webhooks.is_current(stamp.encode(), now):
        return
    if not re.fullmatch(r"[0-9]{1,15}", stamp):
        found.findings.append("webhook-timestamp must be whole seconds since 1970, in digits.")
    else:
        off = int(stamp) - now
        if len(stamp) > 12 and abs(off) <= TOLERANCE_SECONDS:
            found.findings.append("webhook-timestamp may have 12 digits at most.")
        elif abs(int(stamp) / 1000 - now) <= TOLERANCE_SECONDS:
            found.findings.append("webhook-timestamp is in milliseconds. It must be in seconds.")
        else:
            found.findings.append(
                f"webhook-timestamp is {abs(off):.0f} s {'ahead of' if off > 0 else 'behind'} our "
                f"clock; {TOLERANCE_SECONDS} s are tolerated. Set your clock, and make a new "
                "timestamp and signature for each try."
            )


def _tell_state(secret: Secret, found: Diagnosis) -> None:
    found.is_right = True
    if secret.is_test:
        found.findings.append(
            "It is by a test secret: the order is recorded as a test, and mailed to you alone."
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
    """Headers that may have been meant."""
    words = {"X-API-Key": r"api.?key|authorization", "X-Webhook-Signature": r"signature|hmac"}
    return [
        f"`{name}` is there: was {header} meant?"
        for header in missing
        for name in given
        if name != header.lower() and re.search(words[header], name)
    ]


def _hmac(key: bytes, signed: bytes) -> bytes:
    return hmac.digest(key, signed, "sha256")
