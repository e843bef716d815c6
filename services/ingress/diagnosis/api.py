"""`POST /webhooks/test/`: what the webhook would answer, and why. Nothing is recorded."""

import base64
import hashlib
from datetime import datetime
from uuid import UUID

import msgspec
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from services.ingress.diagnosis.reasons import Scheme, Secret, diagnose
from services.ingress.webhook import bodies
from shared.db.models import WebhookSecret
from shared.http.errors import ApiError
from shared.http.route import Answer, Call, Route
from shared.security import webhook_keys

LOOKED_AT = 10  # secrets, the newest; each is tried in many ways


class SentRequest(msgspec.Struct, kw_only=True):
    """A webhook request as it was sent: its headers, and its body in one of two forms."""

    headers: dict[str, str]
    body: str | None = None
    body_base64: str | None = None


class MatchedSecret(msgspec.Struct, kw_only=True):
    """The secret that made the signature; `active`, `retiring`, `expired` or `revoked`."""

    id: UUID
    state: str
    expires_at: datetime


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
    active secret, or the one that you named.
    """

    is_accepted: bool
    code: str | None
    scheme: Scheme
    is_signed: bool
    secret: MatchedSecret | None
    expected_signature: str | None
    findings: list[str]
    body: BodyVerdict


def verify(session: Session, call: Call[SentRequest, None]) -> Answer:
    """Verify a request against the account's own secrets, and say what differs."""
    body = _body(call.body)
    rows = session.scalars(
        select(WebhookSecret)
        .where(WebhookSecret.account_id == call.caller)
        .order_by(WebhookSecret.issued_at.desc())
        .limit(LOOKED_AT)
    ).all()
    now = session.scalars(select(func.clock_timestamp())).one()
    secrets = [
        Secret(row.id, webhook_keys.unseal(row.sealed, row.id), _state(row, now)) for row in rows
    ]
    found = diagnose(call.body.headers, body, secrets)
    findings = list(found.findings)
    if not secrets:
        findings.append("This account has no webhook secret yet.")
    verdict = _decode(body, call.caller)
    code = found.code or _media_code(call.body.headers, findings)
    if not code and not verdict.is_accepted:
        code = "invalid_body"
    matched = next((row for row in rows if found.secret and row.id == found.secret.id), None)
    return Answer(
        200,
        Verdict(
            is_accepted=not code,
            code=code or None,
            scheme=found.scheme,
            is_signed=found.is_right,
            secret=None
            if matched is None
            else MatchedSecret(
                id=matched.id, state=_state(matched, now), expires_at=matched.expires_at
            ),
            expected_signature=found.expected or None,
            findings=findings,
            body=verdict,
        ),
    )


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


def _state(row: WebhookSecret, now: datetime) -> str:
    """As it is now, also if nobody has marked it yet."""
    is_over = row.state in ("active", "retiring") and row.expires_at <= now
    return "expired" if is_over else row.state


def _decode(body: bytes, account_id: UUID) -> BodyVerdict:
    type_ = error = None
    try:
        _, message = bodies.read(body, account_id, None)
        type_ = message.type
    except bodies.BodyError as refused:
        error = str(refused)
    return BodyVerdict(
        is_accepted=error is None,
        type=type_,
        error=error,
        size=len(body),
        sha256=hashlib.sha256(body).hexdigest(),
    )


def _media_code(headers: dict[str, str], findings: list[str]) -> str:
    given = {name.strip().lower(): value for name, value in headers.items()}
    media = given.get("content-type", "application/json").partition(";")[0].strip().lower()
    encoding = given.get("content-encoding", "identity").lower()
    if media != "application/json" and not media.endswith("+json"):
        findings.append(f"Content-Type is `{media:.60}`. It must be application/json.")
    elif encoding != "identity":
        findings.append("Content-Encoding is set. Send the body plain.")
    else:
        return ""
    return "unsupported_media_type"


ROUTES = (
    Route(
        method="POST",
        path="/webhooks/test/",
        handler=verify,
        summary="Verify a signed request, and learn what differs; nothing is recorded",
        body=SentRequest,
        answers={200: Verdict},
        bearer=True,
        throttled_account=True,
        tag="Webhooks",
    ),
)
