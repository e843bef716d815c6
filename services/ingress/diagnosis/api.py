"""`POST /webhooks/test/`: what the webhook would answer, and why. Nothing is recorded."""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from itertools import chain
from uuid import UUID

import msgspec
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from services.ingress.credentials.secret import MAX_GIVEN_TRIED, state_at
from services.ingress.diagnosis.reasons import Diagnosis, Secret, diagnose
from services.ingress.platforms.becoming import Note
from services.ingress.shops import deliveries
from services.ingress.webhook import rules
from services.ingress.webhook.refusals import UNOPENED, unopened
from services.ingress.webhook.rules import Scheme
from shared.db.models import WebhookPolicy, WebhookPublicKey, WebhookSecret
from shared.http.errors import ApiError
from shared.http.route import Answer, Call, Route
from shared.intake import bodies
from shared.security import webhook_keys
from shared.security.encryption import CannotOpenError
from shared.validation.reading import InvalidValueError

_OF_THE_SECRET = ("invalid_signature", "invalid_api_key")
MAX_REQUEST_BYTES = 512 * 1024
"""An order of 256 KiB, the most that is taken by default, in base64, and its headers."""
LOOKED_AT = 10  # secrets of a mode, the newest; each is tried in many ways


class SentRequest(msgspec.Struct, kw_only=True):
    """A webhook request as it was sent: its headers, and its body in one of two forms."""

    headers: dict[str, str]
    body: str | None = None
    body_base64: str | None = None


class MatchedSecret(msgspec.Struct, kw_only=True):
    """What the signature is by: `active`, `retiring`, `expired` or `revoked`.

    It is a secret, or a public key, which ends when you remove it.
    """

    id: UUID
    state: str
    expires_at: datetime | None
    is_public_key: bool


class BodyVerdict(msgspec.Struct, kw_only=True):
    """The body by itself: the event it is, or why it is none; and what to compare yours with."""

    is_accepted: bool
    type: str | None
    error: str | None
    size: int
    sha256: str


class Verdict(msgspec.Struct, kw_only=True):
    """What the webhook would answer.

    `code` is the error's, null for an acceptance; `expected_signature` is the right one under your
    active secret, or the one that you named; of a shop's delivery under the secret that it is by,
    null where several may be meant. `note` says why nothing is recorded of a shop's
    delivery that is accepted.
    """

    is_accepted: bool
    code: str | None
    scheme: Scheme
    is_signed: bool
    secret: MatchedSecret | None
    expected_signature: str | None
    findings: list[str]
    body: BodyVerdict
    note: Note | None


def verify(session: Session, call: Call[SentRequest, None]) -> Answer:
    """Verify a request against the account's own secrets, and say what differs."""
    body = _body(call.body)
    rows = _secrets(session, call.caller, call.body.headers)
    made = _given(session, call.caller)
    now = session.scalars(select(func.clock_timestamp())).one()
    policy = session.get(WebhookPolicy, call.caller)
    secrets = _opened(rows, now)
    theirs = {name: _opened(found, now) for name, found in made.items()}
    is_lacking = [len(secrets), *map(len, theirs.values())] != [
        len(rows),
        *map(len, made.values()),
    ]
    found = diagnose(
        call.body.headers,
        body,
        secrets,
        now.timestamp(),
        public_keys=_public_keys(session, call.caller),
        given_secrets=theirs,
        is_standard_only=policy is not None and policy.standard_webhooks_only,
    )
    if is_lacking and found.secret is None and found.code in _OF_THE_SECRET:
        raise unopened()
    findings = list(found.findings)
    if not secrets and found.platform is None:
        findings.append("This account has no webhook secret yet.")
    note: Note | None = None
    if found.platform is None:
        is_test = found.secret is not None and found.secret.is_test
        verdict = _decode(body, call.caller, now.timestamp(), is_test=is_test)
    else:
        verdict, note = _delivery(found, call.body.headers, body, call.caller, now)
    if verdict.is_accepted and found.platform is None:
        findings += bodies.left_out(body)
    code = found.code
    if not code and not verdict.is_accepted:
        code = "invalid_body"
    expires = {row.id: row.expires_at for row in [*rows, *chain.from_iterable(made.values())]}
    secret = found.secret
    return Answer(
        200,
        Verdict(
            is_accepted=not code,
            code=code or None,
            scheme=found.scheme,
            is_signed=found.is_right,
            secret=None
            if secret is None
            else MatchedSecret(
                id=secret.id,
                state=secret.state,
                expires_at=expires.get(secret.id),
                is_public_key=secret.is_public,
            ),
            expected_signature=found.expected or None,
            findings=findings,
            body=verdict,
            note=None if code else note,
        ),
    )


def _secrets(
    session: Session, account_id: UUID, headers: Mapping[str, str]
) -> Sequence[WebhookSecret]:
    """Those that the webhook would try and more, the newest first; and the one that is named."""
    theirs = select(WebhookSecret).where(
        WebhookSecret.account_id == account_id, WebhookSecret.platform == ""
    )
    found: dict[UUID, WebhookSecret] = {}
    for is_test in (False, True):
        newest = theirs.where(WebhookSecret.is_test == is_test).order_by(
            WebhookSecret.state == "revoked", WebhookSecret.issued_at.desc()
        )
        found |= {row.id: row for row in session.scalars(newest.limit(LOOKED_AT))}
    for name, value in headers.items():
        if name.strip().lower() == "x-api-key":
            key = value.strip(" \t").encode(errors="replace")
            named = theirs.where(WebhookSecret.key_hash == webhook_keys.key_hash(key))
            found |= {row.id: row for row in session.scalars(named)}
    return sorted(found.values(), key=lambda row: row.issued_at, reverse=True)


def _given(session: Session, account_id: UUID) -> dict[str, Sequence[WebhookSecret]]:
    """What platforms have made for the account: those in use first, as the webhook tries them."""
    return {
        name: session.scalars(
            select(WebhookSecret)
            .where(WebhookSecret.account_id == account_id, WebhookSecret.platform == name)
            .order_by(WebhookSecret.state != "active", WebhookSecret.issued_at.desc())
            .limit(MAX_GIVEN_TRIED)
        ).all()
        for name in webhook_keys.GIVEN_BY
    }


def _opened(rows: Sequence[WebhookSecret], now: datetime) -> list[Secret]:
    """Those of them that a key of ours opens."""
    secrets = []
    for row in rows:
        with suppress(CannotOpenError):
            raw = webhook_keys.unseal(row.sealed, row.id)
            state = state_at(row.state, is_over=now >= row.expires_at)
            secrets.append(Secret(row.id, raw, state, is_test=row.is_test))
    return secrets


def _public_keys(session: Session, account_id: UUID) -> list[Secret]:
    """The account's public keys, those in use first: in the order in which the webhook tries."""
    rows = session.scalars(
        select(WebhookPublicKey)
        .where(WebhookPublicKey.account_id == account_id)
        .order_by(WebhookPublicKey.state == "revoked", WebhookPublicKey.added_at.desc())
        .limit(LOOKED_AT)
    )
    return [Secret(row.id, row.public_key, row.state, is_public=True) for row in rows]


def _body(sent: SentRequest) -> bytes:
    if (sent.body is None) == (sent.body_base64 is None):
        raise ApiError(400, "invalid_body", "Give either body or body_base64.")
    try:
        if sent.body is not None:
            return sent.body.encode()
        return base64.b64decode(sent.body_base64 or "", validate=True)
    except UnicodeEncodeError:
        raise ApiError(400, "invalid_body", "body is no Unicode text: use body_base64.") from None
    except ValueError:
        raise ApiError(400, "invalid_body", "body_base64 is no base64.") from None


def _delivery(
    found: Diagnosis, headers: Mapping[str, str], body: bytes, account_id: UUID, now: datetime
) -> tuple[BodyVerdict, Note | None]:
    """What a shop's delivery comes to, by the webhook's own reading of it."""
    platform, given = found.platform, {n.strip().lower(): v for n, v in headers.items()}
    if platform is None:
        raise ValueError("no platform's")
    note: Note | None = None
    type_ = error = None
    try:
        if platform.ping is not None and rules.is_form(given.get("content-type")):
            note = "ping"
        else:
            read = deliveries.read(
                platform,
                lambda name: given.get(name.lower()),
                body,
                account_id,
                now,
                is_test=found.secret is not None and found.secret.is_test,
            )
            note, type_ = read.note, read.message.type if read.message is not None else None
    except (InvalidValueError, deliveries.UnfitError) as refused:
        error = str(refused)
    return _verdict(body, type_, error), note


def _decode(body: bytes, account_id: UUID, now: float, *, is_test: bool) -> BodyVerdict:
    type_ = error = None
    try:
        _, message = bodies.read(body, account_id, now, None, is_test=is_test)
        type_ = message.type
    except bodies.BodyError as refused:
        error = str(refused)
    return _verdict(body, type_, error)


def _verdict(body: bytes, type_: str | None, error: str | None) -> BodyVerdict:
    return BodyVerdict(
        is_accepted=error is None,
        type=type_,
        error=error,
        size=len(body),
        sha256=hashlib.sha256(body).hexdigest(),
    )


ROUTES = (
    Route(
        method="POST",
        path="/webhooks/test/",
        handler=verify,
        summary="Verify a signed request, and learn what differs; nothing is recorded",
        body=SentRequest,
        answers={200: Verdict},
        errors=((503, *UNOPENED),),
        bearer=True,
        max_body_bytes=MAX_REQUEST_BYTES,
        tag="Webhooks",
    ),
)
