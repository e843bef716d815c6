"""The schedule of secrets: rotate before expiry, warn before the end, mark expired ones.

Schedulers may run in parallel: at most one takes an account.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, select, update
from sqlalchemy.orm import Session

from services.secrets import SOURCE, rotation, usage
from services.secrets.usage import SecretUse
from shared.bus import outbox
from shared.bus.contract.events import SecretExpiring, of_account
from shared.config.loading import settings
from shared.db.models import Account, WebhookSecret
from shared.db.session import time_by_both_clocks

AT_MOST = 200  # rows a run; the next run takes the rest
LAST_WARNING = timedelta(days=1)  # before the end


def tick(session: Session) -> None:
    """Do what is due now.

    By the earlier of both clocks, since an expiry mark or a rotation is not undone when a clock
    that was ahead is corrected. Workers reject expired secrets by the time itself.
    """
    now = time_by_both_clocks(session)
    rotate_due(session, now)
    warn_due(session, now)
    warn_last(session, now)
    expire_due(session, now)


def rotate_due(session: Session, now: datetime) -> None:
    """Replace the active secrets that end within `SECRET_ROTATE_AHEAD_DAYS`, or have ended.

    Not in the first half of a secret's life, whatever is configured: the new one would be due as
    well, and a business gets an email for each.
    """
    until = now + timedelta(days=settings().secret_rotate_ahead_days)
    due = session.scalars(
        select(WebhookSecret)
        .where(WebhookSecret.state == "active", WebhookSecret.expires_at < until, rotation.OURS)
        .where(WebhookSecret.expires_at - now < now - WebhookSecret.issued_at)
        .order_by(WebhookSecret.expires_at)
        .limit(AT_MOST)
    ).all()
    for secret in due:
        if not rotation.try_lock(session, secret.account_id):
            continue
        current = rotation.active(session, secret.account_id, is_test=secret.is_test)
        account = session.get(Account, secret.account_id)
        if current is None or account is None or current.id != secret.id:
            continue
        if current.expires_at >= until:
            continue
        if rotation.hold_approval(session, account.id):
            rotation.rotate(session, account, "scheduled", is_test=secret.is_test)


def warn_due(session: Session, now: datetime) -> None:
    """Warn the business `SECRET_WARN_AHEAD_DAYS` before a replaced secret expires."""
    ahead = timedelta(days=settings().secret_warn_ahead_days)
    for secret in _ending(session, now, ahead, WebhookSecret.warned_at.is_(None)):
        secret.warned_at = now
        use = _use(session, secret, now)
        _warn(session, secret, use, is_last=secret.expires_at <= now + LAST_WARNING)


def warn_last(session: Session, now: datetime) -> None:
    """Warn once more, a day before, if requests are still signed with the secret."""
    for secret in _ending(session, now, LAST_WARNING, WebhookSecret.last_warned_at.is_(None)):
        # Also without a warning, else every run would check it again.
        secret.last_warned_at = now
        use = _use(session, secret, now)
        warned_before = secret.warned_at is not None and secret.warned_at < now - LAST_WARNING / 2
        if use.share_of_last_day and warned_before:
            _warn(session, secret, use, is_last=True)


def _ending(
    session: Session, now: datetime, within: timedelta, condition: ColumnElement[bool]
) -> Sequence[WebhookSecret]:
    return session.scalars(
        select(WebhookSecret)
        .where(WebhookSecret.state == "retiring", condition, rotation.OURS)
        .where(WebhookSecret.expires_at < now + within, WebhookSecret.expires_at > now)
        .limit(AT_MOST)
        .with_for_update(skip_locked=True)
    ).all()


def _use(session: Session, secret: WebhookSecret, now: datetime) -> SecretUse:
    used = usage.of_account(session, secret.account_id, now, is_test=secret.is_test)
    return used.get(secret.id, usage.UNUSED)


def _warn(session: Session, secret: WebhookSecret, use: SecretUse, *, is_last: bool) -> None:
    account = session.get_one(Account, secret.account_id)
    fact = SecretExpiring(
        **of_account(account),
        secret_id=secret.id,
        expires_at=secret.expires_at,
        last_used_at=use.last_used_at,
        share_of_last_day=use.share_of_last_day,
        is_last=is_last,
        is_test=secret.is_test,
    )
    outbox.add_fact(session, fact, account.id, source=SOURCE)


def expire_due(session: Session, now: datetime) -> None:
    """Mark the replaced secrets that have expired. The ingress rejects them by their time."""
    due = (
        select(WebhookSecret.id)
        .where(WebhookSecret.state == "retiring", WebhookSecret.expires_at <= now)
        .limit(AT_MOST)
        .with_for_update(skip_locked=True)
    )
    session.execute(update(WebhookSecret).where(WebhookSecret.id.in_(due)).values(state="expired"))
