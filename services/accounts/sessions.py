"""Sessions: a sign-in, the refresh tokens that renew it one after the other, and its end.

A refresh token works once. One that comes a second time was stolen, or its successor was: nobody
can tell which of the two callers is the thief, so the session ends for both (RFC 9700, 4.14.2).

An answer may be lost. So a caller may name its attempt by an id that nobody else knows, and make
the same one again: it is given the same successor, as often as it asks and as long as that was not
used. The successor's id is derived of the token's that it succeeds, so no attempt brings back an
earlier one.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import NamedTuple
from uuid import UUID

import structlog
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session
from sqlalchemy.sql.dml import ReturningUpdate

from services.accounts import SOURCE
from shared.bus import outbox
from shared.bus.contract.events import AccountChanged, of_account
from shared.config.loading import settings
from shared.db.models import Account, AccountSession
from shared.db.session import database_time
from shared.http.errors import ApiError, account_blocked
from shared.http.standing import is_blocked
from shared.ids import derived_id, new_id
from shared.security import tokens

log = structlog.get_logger()


class Pair(NamedTuple):
    """The tokens of a session."""

    account: Account
    access: str
    refresh: str


def begin(session: Session, account: Account, network: str, client: str) -> Pair:
    """A new session of an account.

    Args:
        session: the transaction.
        account: whose.
        network: from where.
        client: what the caller calls itself.
    """
    now = database_time(session)
    begun = AccountSession(
        id=new_id(),
        account_id=account.id,
        refresh_id=new_id(),
        network=network,
        client=client.replace("\0", ""),
        created_at=now,
        expires_at=now + timedelta(seconds=settings().session_seconds),
    )
    session.add(begun)
    return _pair(account, begun, now)


def renew(
    session: Session, refresh: str, network: str, attempt_id: UUID | None = None
) -> Pair | ApiError:
    """The next tokens of a session, for its refresh token; an earlier one ends the session.

    Args:
        session: the transaction.
        refresh: the refresh token.
        network: from where.
        attempt_id: the caller's own id of this attempt; it may be made again.

    Returns:
        401 as an error, so that the end is committed.
    """
    invalid, now = ApiError(401, *USED[1:]), database_time(session)
    token = _good(refresh, now)
    if token is None:
        return invalid
    account = session.get(Account, token.account_id)
    if account is None or account.closed_at:
        return invalid
    if is_blocked(session, account.id):
        return account_blocked()
    held = session.get(AccountSession, token.session_id, with_for_update=True)
    if held is None or held.ended_at or held.expires_at <= now:
        return invalid
    successor_id = derived_id("successor", token.id, attempt_id) if attempt_id else None
    if held.refresh_id not in (token.id, successor_id):
        held.ended_at = now
        log.warning("refresh_token_used_twice", session_id=str(held.id))
        fact = AccountChanged(**of_account(account), what="refresh_token_reused", address=network)
        outbox.tell(session, fact, account.id, source=SOURCE)
        return invalid
    held.renewed_at = now
    return _pair(account, held, now, successor_id)


def end_by(session: Session, refresh: str) -> ApiError | None:
    """End the session that a refresh token belongs to."""
    now = database_time(session)
    token = _good(refresh, now)
    if token is None:
        return ApiError(401, *USED[1:])
    held = session.get(AccountSession, token.session_id, with_for_update=True)
    if held is None or held.ended_at:
        return ApiError(401, *USED[1:])
    held.ended_at = now
    return None if held.refresh_id == token.id else ApiError(401, *USED[1:])


def end(session: Session, account_id: UUID, session_id: UUID | None = None) -> int:
    """End an account's sessions: all, or the one named.

    Returns:
        How many ended.
    """
    ending = _ending(account_id)
    if session_id is not None:
        ending = ending.where(AccountSession.id == session_id)
    return len(session.scalars(ending).all())


def end_others(session: Session, account_id: UUID, session_id: UUID | None) -> int:
    """End an account's sessions but for the one named; returns how many ended.

    A token of the version before has no session, and so keeps none.
    """
    ending = _ending(account_id)
    if session_id is not None:
        ending = ending.where(AccountSession.id != session_id)
    return len(session.scalars(ending).all())


MOST_LISTED = 100


def live(session: Session, account_id: UUID) -> Sequence[AccountSession]:
    """An account's sessions, the one used last first: one more than `MOST_LISTED` at most."""
    return session.scalars(
        select(AccountSession)
        .where(AccountSession.account_id == account_id, AccountSession.ended_at.is_(None))
        .where(AccountSession.expires_at > func.clock_timestamp())
        .order_by(AccountSession.renewed_at.desc())
        .limit(MOST_LISTED + 1)
    ).all()


def _ending(account_id: UUID) -> ReturningUpdate[tuple[UUID]]:
    return (
        update(AccountSession)
        .where(AccountSession.account_id == account_id, AccountSession.ended_at.is_(None))
        .values(ended_at=func.clock_timestamp())
        .returning(AccountSession.id)
    )


def _good(refresh: str, now: datetime) -> tokens.Token | None:
    try:
        token = tokens.check(refresh, "refresh")
    except tokens.InvalidTokenError:
        return None
    # One without a session, as 0009 made them, would end with no password and no account.
    return token if token.expires_at > now and token.session_id else None


def _pair(
    account: Account, held: AccountSession, now: datetime, refresh_id: UUID | None = None
) -> Pair:
    access = tokens.make(account.id, "access", now, held.id, held.expires_at)
    refresh = tokens.make(account.id, "refresh", now, held.id, held.expires_at, refresh_id)
    held.refresh_id = refresh.id
    return Pair(account, access.text, refresh.text)


USED = (401, "invalid_refresh_token", "Sign in again: this token is used or expired.")
