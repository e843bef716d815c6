"""Signed-in browsers: kept on the server, found by the hash of a random token.

A session ends after some time without a request, and after a longer time in any case; and at once
when its user signs out, is removed or gets another role or password (OWASP, "Session Management").
"""

import hashlib
import hmac
import secrets
from datetime import UTC, datetime, timedelta

from sqlalchemy import ColumnElement, delete, or_, select, update
from sqlalchemy.orm import Session

from services.ops.users import User, role_of
from shared.config import Settings
from shared.db.models import OpsSession, OpsUser

TOKEN_BYTES = 32
SEEN_EVERY = timedelta(minutes=1)
"""How exact `seen_at` is: a page that refreshes itself must not write at every look."""


def start(session: Session, user: User, config: Settings) -> str:
    """Sign a user in; returns the token for the browser's cookie.

    Sessions that have ended are cleared away.
    """
    session.execute(delete(OpsSession).where(_has_ended(config)))
    token = secrets.token_urlsafe(TOKEN_BYTES)
    session.add(OpsSession(token_hash=_hash(token), user_id=user.id))
    session.flush()
    return token


def find(session: Session, token: str, config: Settings) -> User | None:
    """Who a token stands for; None when it stands for nobody, or its session has ended."""
    now = datetime.now(UTC)
    row = session.execute(
        select(OpsUser.id, OpsUser.name, OpsUser.role, OpsSession.seen_at)
        .join(OpsSession, OpsSession.user_id == OpsUser.id)
        .where(OpsSession.token_hash == _hash(token), ~_has_ended(config))
    ).first()
    if row is None:
        return None
    if now - row.seen_at > SEEN_EVERY:
        session.execute(
            update(OpsSession).where(OpsSession.token_hash == _hash(token)).values(seen_at=now)
        )
    return User(row.id, row.name, role_of(row.role))


def end(session: Session, token: str) -> None:
    """Sign a browser out."""
    session.execute(delete(OpsSession).where(OpsSession.token_hash == _hash(token)))


def leave_note(session: Session, token: str, note: str) -> None:
    """Have the browser's next page say something once: what became of its last action."""
    session.execute(
        update(OpsSession).where(OpsSession.token_hash == _hash(token)).values(note=note)
    )


def take_note(session: Session, token: str) -> str:
    """What was left to be said; it is said once."""
    note = session.scalar(select(OpsSession.note).where(OpsSession.token_hash == _hash(token)))
    if note:
        leave_note(session, token, "")
    return note or ""


def form_token(token: str) -> str:
    """What every form of this browser must carry (OWASP, "Cross-Site Request Forgery")."""
    return hmac.new(token.encode(), b"form", hashlib.sha256).hexdigest()


def is_form_token(given: str, token: str) -> bool:
    """Whether a form came from a page of ours."""
    return hmac.compare_digest(given.encode(), form_token(token).encode())


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def _has_ended(config: Settings) -> ColumnElement[bool]:
    now = datetime.now(UTC)
    return or_(
        OpsSession.seen_at < now - timedelta(seconds=config.ops_idle_seconds),
        OpsSession.created_at < now - timedelta(seconds=config.ops_session_seconds),
    )
