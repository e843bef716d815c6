"""Sessions: begun by a sign-in, renewed by refresh tokens, and ended.

A refresh token works once. A second use means that it or its successor was stolen; which of the two
callers is the thief is unknown, so the session ends for both (RFC 9700, 4.14.2).

An answer may be lost. So a caller may name its attempt by a secret id and repeat it: it gets the
same successor until that one is used. The successor's id is derived from the id of the token that
it replaces, so that a repeated attempt never brings back an earlier token.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple, cast
from uuid import UUID

import structlog
from sqlalchemy import CursorResult, delete, func, select, update
from sqlalchemy.orm import Session
from sqlalchemy.sql.dml import Update

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

MAX_LIVE = 500
"""Sessions of one account. Ending them all is one statement, which must stay within the time that a
request has: otherwise a thief could prevent it by signing in often enough."""
MAX_DELETED = 1_000
"""Sessions beyond `MAX_LIVE` that one sign-in deletes."""

log = structlog.get_logger()


class Pair(NamedTuple):
    """The tokens of a session."""

    account: Account
    access: str
    refresh: str


def begin(session: Session, account: Account, network: str, client: str) -> Pair:
    """Begin a session; the least recently renewed ones beyond `MAX_LIVE` are deleted.

    Args:
        session: the transaction.
        account: the account.
        network: the client's network.
        client: the `User-Agent` header.
    """
    _delete_surplus(session, account.id)
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
    """Return the next tokens of a session; a refresh token used before ends the session.

    Args:
        session: the transaction.
        refresh: the refresh token.
        network: the client's network.
        attempt_id: the caller's id of this attempt, with which it may be repeated.

    Returns:
        The tokens, or 401 as an error: returned, not raised, so that the end is committed.
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
        outbox.add_fact(session, fact, account.id, source=SOURCE)
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
    """End an account's sessions: all, or the named one. Returns how many ended."""
    ending = _ending(account_id)
    if session_id is not None:
        ending = ending.where(AccountSession.id == session_id)
    return _ended(session, ending)


def end_others(session: Session, account_id: UUID, session_id: UUID | None) -> int:
    """End an account's sessions except the named one. Returns how many ended.

    A token of an earlier version has no session: then all end.
    """
    ending = _ending(account_id)
    if session_id is not None:
        ending = ending.where(AccountSession.id != session_id)
    return _ended(session, ending)


MOST_LISTED = 100


def live(session: Session, account_id: UUID) -> Sequence[AccountSession]:
    """Return an account's sessions, the last renewed first: up to `MOST_LISTED` + 1."""
    return session.scalars(
        select(AccountSession)
        .where(AccountSession.account_id == account_id, AccountSession.ended_at.is_(None))
        .where(AccountSession.expires_at > func.clock_timestamp())
        .order_by(AccountSession.renewed_at.desc())
        .limit(MOST_LISTED + 1)
    ).all()


def _delete_surplus(session: Session, account_id: UUID) -> None:
    surplus = (
        select(AccountSession.id)
        .where(AccountSession.account_id == account_id, AccountSession.ended_at.is_(None))
        .order_by(AccountSession.renewed_at.desc())
        .offset(MAX_LIVE - 1)
        .limit(MAX_DELETED)
    )
    # Locked rows are skipped: two sign-ins must not wait for each other, nor for a renewal.
    free = select(AccountSession.id).where(AccountSession.id.in_(surplus))
    free = free.with_for_update(skip_locked=True)
    session.execute(
        delete(AccountSession).where(AccountSession.id.in_(free)),
        execution_options={"synchronize_session": False},
    )


def _ending(account_id: UUID) -> Update:
    return (
        update(AccountSession)
        .where(AccountSession.account_id == account_id, AccountSession.ended_at.is_(None))
        .values(ended_at=func.clock_timestamp())
    )


def _ended(session: Session, ending: Update) -> int:
    return cast("CursorResult[Any]", session.execute(ending)).rowcount


def _good(refresh: str, now: datetime) -> tokens.Token | None:
    try:
        token = tokens.check(refresh, "refresh")
    except tokens.InvalidTokenError:
        return None
    # A token of before 0009 has no session: no password change and no closing would end it.
    return token if token.expires_at > now and token.session_id else None


def _pair(
    account: Account, held: AccountSession, now: datetime, refresh_id: UUID | None = None
) -> Pair:
    access = tokens.make(account.id, "access", now, held.id, held.expires_at)
    refresh = tokens.make(account.id, "refresh", now, held.id, held.expires_at, refresh_id)
    held.refresh_id = refresh.id
    return Pair(account, access.text, refresh.text)


USED = (401, "invalid_refresh_token", "Sign in again: this token is used or expired.")
