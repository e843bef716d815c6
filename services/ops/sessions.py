"""Signed-in browsers: kept on the server, found by the hash of a random token.

While a second factor's code is awaited it stands for nobody, and is good for giving one.

A session ends after some time without a request, and after a longer time in any case; and at once
when its user signs out, is removed or gets another role or password (OWASP, "Session Management").
"""

import hashlib
import hmac
import secrets
from datetime import UTC, datetime, timedelta

from sqlalchemy import ColumnElement, and_, delete, or_, select, update
from sqlalchemy.orm import Session

from services.ops.users import HAS_SECOND_FACTOR, User, rights_of
from shared.config import Settings
from shared.db.models import OpsSession, OpsUser

TOKEN_BYTES = 32
SEEN_EVERY = timedelta(minutes=1)
"""How exact `seen_at` is: a page that refreshes itself must not write at every look."""


CODE_WITHIN = timedelta(minutes=5)
"""For how long a right password waits for its code."""


def start(session: Session, user: User, config: Settings, *, awaits_code: bool = False) -> str:
    """Sign a user in; returns the token for the browser's cookie.

    Sessions that have ended are cleared away.

    Args:
        session: in a transaction.
        user: who.
        config: `ops_idle_seconds` and `ops_session_seconds` count.
        awaits_code: whether only the password was given.
    """
    session.execute(delete(OpsSession).where(_has_ended(config)))
    token = secrets.token_urlsafe(TOKEN_BYTES)
    session.add(OpsSession(token_hash=_hash(token), user_id=user.id, awaits_code=awaits_code))
    session.flush()
    return token


def find(session: Session, token: str, config: Settings) -> User | None:
    """Who a token stands for; None when it stands for nobody, or its session has ended."""
    now = datetime.now(UTC)
    found = _find(session, token, config, awaits_code=False)
    if found is None:
        return None
    user, seen_at = found
    if now - seen_at > SEEN_EVERY:
        session.execute(
            update(OpsSession).where(OpsSession.token_hash == _hash(token)).values(seen_at=now)
        )
    return user


def awaiting(session: Session, token: str, config: Settings) -> User | None:
    """Whose code is awaited; None when nobody's is, or it took too long."""
    found = _find(session, token, config, awaits_code=True)
    return found[0] if found else None


def _find(
    session: Session, token: str, config: Settings, *, awaits_code: bool
) -> tuple[User, datetime] | None:
    row = session.execute(
        select(
            OpsUser.id,
            OpsUser.name,
            OpsUser.rights,
            OpsSession.seen_at,
            HAS_SECOND_FACTOR.label("has_second_factor"),
        )
        .join(OpsSession, OpsSession.user_id == OpsUser.id)
        .where(
            OpsSession.token_hash == _hash(token),
            OpsSession.awaits_code.is_(awaits_code),
            ~_has_ended(config),
        )
    ).first()
    if row is None:
        return None
    return User(row.id, row.name, rights_of(row.rights), row.has_second_factor), row.seen_at


def end(session: Session, token: str) -> None:
    """Sign a browser out."""
    session.execute(delete(OpsSession).where(OpsSession.token_hash == _hash(token)))


def end_others(session: Session, user: User, token: str) -> None:
    """Sign a user's other browsers out."""
    session.execute(
        delete(OpsSession).where(
            OpsSession.user_id == user.id, OpsSession.token_hash != _hash(token)
        )
    )


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
        and_(OpsSession.awaits_code, OpsSession.created_at < now - CODE_WITHIN),
    )
