"""`POST /webhooks/test/`: reports what the webhook would answer, and why. Records nothing."""

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
from services.ingress.diagnosis.reasons import Diagnosis, Secret, as_received, diagnose
from services.ingress.platforms.order_events import Note
from services.ingress.shops import deliveries
from services.ingress.webhook import rules
from services.ingress.webhook.refusals import UNOPENED, unopened
from services.ingress.webhook.rules import Scheme
from shared.db.models import WebhookPolicy, WebhookPublicKey, WebhookSecret
from shared.http.errors import ApiError
from shared.http.route import Answer, Call, Route
from shared.intake import bodies, unread_members
from shared.security import webhook_keys
from shared.security.encryption import CannotOpenError
from shared.validation.reading import InvalidValueError

_OF_THE_SECRET = ("invalid_signature", "invalid_api_key")
MAX_REQUEST_BYTES = 512 * 1024
"""An order of 256 KiB, the default limit, in base64, and its headers."""
MOST_SECRETS = 10  # of a mode, the newest; each is tried in many ways


class SentRequest(msgspec.Struct, kw_only=True):
    """A webhook request: its headers, and its body as text or in base64."""

    headers: dict[str, str]
    body: str | None = None
    body_base64: str | None = None


class MatchedSecret(msgspec.Struct, kw_only=True):
    """The secret or public key that signed; `active`, `retiring`, `expired` or `revoked`.

    A public key has no `expires_at`.
    """

    id: UUID
    state: str
    expires_at: datetime | None
    is_public_key: bool


class BodyVerdict(msgspec.Struct, kw_only=True):
    """The body alone: its event, or why it has none; size and hash to compare with your own."""

    is_accepted: bool
    type: str | None
    error: str | None
    size: int
    sha256: str


class Verdict(msgspec.Struct, kw_only=True):
    """The answer that the webhook would give.

    `code` is the error code, null for an acceptance. `expected_signature` is the right one under
    your active secret, or the one that `X-API-Key` names; of a shop's delivery under the secret
    that signed it, null if that may be one of several. `note` states why nothing is recorded of an
    accepted delivery of a shop.
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
    """Verify a request against the account's secrets, and report what differs."""
    body = _body(call.body)
    rows = _secrets(session, call.caller, call.body.headers)
    made = _given(session, call.caller)
    now = session.scalars(select(func.clock_timestamp())).one()
    policy = session.get(WebhookPolicy, call.caller)
    secrets = _opened(rows, now)
    given = {name: _opened(found, now) for name, found in made.items()}
    is_lacking = [len(secrets), *map(len, given.values())] != [
        len(rows),
        *map(len, made.values()),
    ]
    found = diagnose(
        call.body.headers,
        body,
        secrets,
        now.timestamp(),
        public_keys=_public_keys(session, call.caller),
        given_secrets=given,
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
        findings += unread_members.of_body(body) if verdict.is_accepted else []
    else:
        verdict, note, fault = _delivery(found, call.body.headers, body, call.caller, now)
        findings += [fault] if fault else []

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
    """Return the account's newest secrets, more than the webhook tries, and the named one."""
    of_account = select(WebhookSecret).where(
        WebhookSecret.account_id == account_id, WebhookSecret.platform == ""
    )
    found: dict[UUID, WebhookSecret] = {}
    for is_test in (False, True):
        newest = of_account.where(WebhookSecret.is_test == is_test).order_by(
            WebhookSecret.state == "revoked", WebhookSecret.issued_at.desc()
        )
        found |= {row.id: row for row in session.scalars(newest.limit(MOST_SECRETS))}
    if key := as_received(headers).get("x-api-key"):
        named = of_account.where(WebhookSecret.key_hash == webhook_keys.key_hash(key.encode()))
        found |= {row.id: row for row in session.scalars(named)}
    return sorted(found.values(), key=lambda row: row.issued_at, reverse=True)


def _given(session: Session, account_id: UUID) -> dict[str, Sequence[WebhookSecret]]:
    """Return the secrets that platforms made for the account, in the order that they are tried."""
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
    """Return the secrets that a configured key decrypts."""
    secrets = []
    for row in rows:
        with suppress(CannotOpenError):
            raw = webhook_keys.unseal(row.sealed, row.id)
            state = state_at(row.state, is_over=now >= row.expires_at)
            secrets.append(Secret(row.id, raw, state, is_test=row.is_test))
    return secrets


def _public_keys(session: Session, account_id: UUID) -> list[Secret]:
    """Return the account's public keys, in the order that they are tried."""
    rows = session.scalars(
        select(WebhookPublicKey)
        .where(WebhookPublicKey.account_id == account_id)
        .order_by(WebhookPublicKey.state == "revoked", WebhookPublicKey.added_at.desc())
        .limit(MOST_SECRETS)
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
        raise ApiError(400, "invalid_body", "body is not Unicode text: use body_base64.") from None
    except ValueError:
        raise ApiError(400, "invalid_body", "body_base64 is not base64.") from None


def _delivery(
    found: Diagnosis, headers: Mapping[str, str], body: bytes, account_id: UUID, now: datetime
) -> tuple[BodyVerdict, Note | None, str]:
    """Return what the webhook makes of a shop's delivery: event, note, and the log's `fault`."""
    platform, given = found.platform, as_received(headers)
    if platform is None:
        raise ValueError("not a platform's delivery")
    note: Note | None = None
    type_ = error = None
    fault = ""
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
            fault = read.fault
    except InvalidValueError as refused:
        error = str(refused)
    return _verdict(body, type_, error), note, fault


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
