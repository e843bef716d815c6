"""The schedule: rotate ahead of expiry, warn before a retiring secret ends, mark what has ended.

Any number of schedulers may run at once: each account is taken by at most one of them.
"""

from datetime import UTC, datetime, timedelta

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from services.secrets import rotation
from shared.bus.events import SecretExpiring
from shared.bus.message import message_for
from shared.config import settings
from shared.db.models import Account, WebhookSecret
from shared.outbox import store

AT_MOST = 200  # rows a run; the next run takes the rest


def tick(session: Session) -> None:
    """Do what is due now."""
    now = datetime.now(UTC)
    rotate_due(session, now)
    warn_due(session, now)
    expire_due(session, now)


def rotate_due(session: Session, now: datetime) -> None:
    """Replace the active secrets that end within `SECRET_ROTATE_AHEAD_DAYS`, or have ended."""
    until = now + timedelta(days=settings().secret_rotate_ahead_days)
    due = session.scalars(
        select(WebhookSecret)
        .where(WebhookSecret.state == "active", WebhookSecret.expires_at < until)
        .order_by(WebhookSecret.expires_at)
        .limit(AT_MOST)
    ).all()
    for secret in due:
        if not rotation.try_lock(session, secret.account_id):
            continue
        current = rotation.active(session, secret.account_id)
        account = session.get(Account, secret.account_id)
        if current is None or account is None or current.id != secret.id:
            continue
        if current.expires_at >= until:
            continue
        if rotation.is_approved(session, account.id):
            rotation.rotate(session, account, "scheduled")
        elif current.expires_at <= now:
            # Else it would be due for ever, in the place of others.
            current.state = "expired"


def warn_due(session: Session, now: datetime) -> None:
    """Tell the business once, `SECRET_WARN_AHEAD_DAYS` before a replaced secret stops working."""
    due = (
        select(WebhookSecret.id)
        .where(WebhookSecret.state == "retiring", WebhookSecret.warned_at.is_(None))
        .where(WebhookSecret.expires_at < now + timedelta(days=settings().secret_warn_ahead_days))
        .where(WebhookSecret.expires_at > now)
        .limit(AT_MOST)
        .with_for_update(skip_locked=True)
    )
    warned = session.execute(
        update(WebhookSecret)
        .where(WebhookSecret.id.in_(due))
        .values(warned_at=now)
        .returning(WebhookSecret.id, WebhookSecret.account_id, WebhookSecret.expires_at)
    ).all()
    for secret_id, account_id, expires_at in warned:
        account = session.get_one(Account, account_id)
        fact = SecretExpiring(
            account_id=account_id,
            company_name=account.company_name,
            email=account.email,
            secret_id=secret_id,
            expires_at=expires_at,
        )
        store.add(
            session, [message_for(fact, source="services.secrets", correlation_id=account_id)]
        )


def expire_due(session: Session, now: datetime) -> None:
    """Mark the replaced secrets that have ended. The ingress needs no telling: it has the time."""
    due = (
        select(WebhookSecret.id)
        .where(WebhookSecret.state == "retiring", WebhookSecret.expires_at <= now)
        .limit(AT_MOST)
        .with_for_update(skip_locked=True)
    )
    session.execute(update(WebhookSecret).where(WebhookSecret.id.in_(due)).values(state="expired"))
