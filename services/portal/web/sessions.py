"""Sessions of browsers: the sealed API tokens, found by the hash of a random cookie token.

They are stored on the server, not in the cookie: a refresh token works once, and a second use ends
the session (RFC 9700, 4.14.2). With tokens in the cookie, two concurrent requests or a lost answer
would use one twice. Instead one request renews and the others wait for its result. It commits an
attempt id and a lease before it calls the API, so that no database connection is held during the
call, and a renewal that was interrupted is repeated under the same id, for which the API gives the
same tokens.
"""

import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Any

import jwt
import msgspec
from sqlalchemy import delete, func, select, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from services.portal.web.api import RENEWAL_SECONDS, Api, Refused, unavailable
from shared.db.models import PortalSession
from shared.db.session import database_time, transaction
from shared.ids import new_id
from shared.security.encryption import CannotOpenError, portal_sealer
from shared.web.tokens import hashed, new_token

RENEW_AHEAD = timedelta(seconds=30)
"""How long before its expiry an access token is renewed: longer than a page takes."""
LEASE_SECONDS = 6 * RENEWAL_SECONDS
"""How long one request owns the renewal of a session: longer than it can take."""
WAIT_SECONDS = 10.0
"""How long another request waits for that renewal."""
NOTE_CHARACTERS = 2_000
"""The most characters of the notes for a browser's next page."""
MOST_DELETED = 10_000
"""Expired sessions that one run deletes."""
POLL_SECONDS = 0.05


class StoredSession(msgspec.Struct, frozen=True):
    """The stored session of a signed-in browser.

    Attributes:
        access: the access token.
        refresh: the refresh token.
        account_id: the business.
        company_name: its name.
        email: its email address.
        attempt_id: the id of the renewal under way; empty if there is none.
        asking_until: end of the renewal's lease (Unix time of the database's clock); 0 if none.
    """

    access: str
    refresh: str
    account_id: str
    company_name: str
    email: str
    attempt_id: str = ""
    asking_until: float = 0


@dataclass(frozen=True, slots=True)
class Browser:
    """The IP address and the `User-Agent` of a request."""

    address: str
    client: str


def start(session: Session, signed_in: Mapping[str, Any]) -> str:
    """Store a new session; return the token for the browser's cookie.

    Args:
        session: the transaction.
        signed_in: the API's answer to the sign-in.
    """
    token, held = new_token(), _held(signed_in)
    key = hashed(token)
    session.add(
        PortalSession(
            token_hash=key,
            sealed=_seal(held, key),
            expires_at=_expiry(held.refresh),
        )
    )
    return token


def find(token: str, api: Api, browser: Browser) -> StoredSession | None:
    """Return a session whose access token is valid for a page; None if the browser is signed out.

    Args:
        token: the cookie's token.
        api: the API that renews the tokens.
        browser: the request's browser.

    Raises:
        PageError: 503 if the API does not answer; the next request tries again.
        Refused: it refuses to renew for another reason than the session's end.
    """
    if not token:
        return None
    with transaction() as session:
        now = database_time(session)
        held = _opened(session.get(PortalSession, hashed(token)), now)
    if held is None or _expiry(held.access) - RENEW_AHEAD > now:
        return held
    return renew(token, api, browser, held.access)


def held_of(session: Session, token: str) -> StoredSession | None:
    """Return the stored session of a browser, without asking the API; None if there is none."""
    return _opened(session.get(PortalSession, hashed(token)), database_time(session))


def renew(token: str, api: Api, browser: Browser, access: str) -> StoredSession | None:
    """Renew the tokens of a session, or wait for another request that renews them.

    Args:
        token: the cookie's token.
        api: the API that renews the tokens.
        browser: the request's browser.
        access: the access token to replace.

    Returns:
        The session, as `find`, which documents the exceptions too.
    """
    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        with transaction() as session:
            row = session.get(PortalSession, hashed(token), with_for_update=True)
            time_now = database_time(session)
            held = _opened(row, time_now)
            if row is None or held is None or held.access != access:
                return held
            now = time_now.timestamp()
            if held.asking_until <= now:
                leased = msgspec.structs.replace(
                    held,
                    attempt_id=held.attempt_id or str(new_id()),
                    asking_until=now + LEASE_SECONDS,
                )
                row.sealed = _seal(leased, row.token_hash)
                break
        if time.monotonic() > deadline:
            raise unavailable()
        time.sleep(POLL_SECONDS)
    try:
        return _put(token, held, _renewed(leased, api, browser))
    except Exception:
        with suppress(SQLAlchemyError):
            _put(token, held, msgspec.structs.replace(leased, asking_until=0))
        raise


def _renewed(leased: StoredSession, api: Api, browser: Browser) -> StoredSession | None:
    """Return the renewed session; None if the API says that it has ended."""
    client = api.for_browser(browser.address, browser.client)
    try:
        return _held(client.renewed(leased.refresh, leased.attempt_id))
    except Refused as refused:
        # Other errors are not about the session and must not end it.
        if refused.status not in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            raise
        return None


def _put(token: str, before: StoredSession, now: StoredSession | None) -> StoredSession | None:
    """Replace or delete a stored session; return the one that is stored now.

    It is left alone if it changed in the meantime: the browser signed out, or the lease ended.
    """
    with transaction() as session:
        row = session.get(PortalSession, hashed(token), with_for_update=True)
        held = _opened(row, database_time(session))
        if row is None or held is None or held.refresh != before.refresh:
            return held
        if now is None:
            session.delete(row)
        else:
            row.sealed, row.expires_at = _seal(now, row.token_hash), _expiry(now.refresh)
        return now


def delete_expired() -> None:
    """Delete up to `MOST_DELETED` sessions that have expired; the next run deletes the rest."""
    with transaction() as session:
        expired = select(PortalSession.token_hash).where(
            PortalSession.expires_at < func.clock_timestamp()
        )
        # A page may hold its browser's session.
        free = expired.limit(MOST_DELETED).with_for_update(skip_locked=True)
        session.execute(delete(PortalSession).where(PortalSession.token_hash.in_(free)))


def end(session: Session, token: str) -> StoredSession | None:
    """Delete the session of a browser; return what was stored."""
    row = session.get(PortalSession, hashed(token))
    held = _opened(row, database_time(session))
    if row is not None:
        session.delete(row)
    return held


def leave_note(session: Session, token: str, note: str) -> None:
    """Store a note for the browser's next page, after any that was not shown yet.

    Of several that are too long together the end is kept.
    """
    of_browser = update(PortalSession).where(PortalSession.token_hash == hashed(token))
    notes = func.concat_ws(" ", func.nullif(PortalSession.note, ""), note)
    session.execute(of_browser.values(note=func.right(notes, NOTE_CHARACTERS)))


def take_note(session: Session, token: str) -> str:
    """Return the notes for the browser's next page, once: of two tabs one gets them."""
    is_browsers = PortalSession.token_hash == hashed(token)
    stored = select(PortalSession.note).where(is_browsers)
    if not session.scalar(stored):  # without a lock, as for almost every page
        return ""
    note = session.scalar(stored.with_for_update())
    session.execute(update(PortalSession).where(is_browsers).values(note=""))
    return note or ""


def _held(signed_in: Mapping[str, Any]) -> StoredSession:
    return StoredSession(
        signed_in["access"],
        signed_in["refresh"],
        signed_in["id"],
        signed_in["company_name"],
        signed_in["email"],
    )


def _seal(held: StoredSession, key: bytes) -> bytes:
    return portal_sealer().seal(msgspec.json.encode(held), f"portal:{key.hex()}")


def _opened(row: PortalSession | None, now: datetime) -> StoredSession | None:
    if row is None or row.expires_at <= now:
        return None
    try:
        plain = portal_sealer().open(row.sealed, f"portal:{bytes(row.token_hash).hex()}")
    except CannotOpenError:  # sealed under a removed key: sign in again
        return None
    return msgspec.json.decode(plain, type=StoredSession)


def _expiry(token: str) -> datetime:
    # The API verifies the signature.
    claims = jwt.decode(token, options={"verify_signature": False})
    return datetime.fromtimestamp(claims["exp"], UTC)
