"""Signed-in browsers: the API's tokens, sealed, found by the hash of a random token in a cookie.

Kept on the server, and not sealed in the cookie: a refresh token works once, and one that comes a
second time ends the session (RFC 9700, 4.14.2). Of two requests of a browser at once, or after an
answer that never came to it, the second would bring the used one. So one renews, and the others
wait for what comes of it. Before the API is asked, the id of the attempt and until when it is made
are committed: nobody holds a connection while the API thinks, and an answer that comes to nobody,
since this process or the database ends in between, is asked for again under the same id, and the
API gives the same one.
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

from services.portal.web.api import AWAY, RENEWAL_SECONDS, Api, Refused
from shared.db.models import PortalSession
from shared.db.session import database_time, transaction
from shared.ids import new_id
from shared.security.encryption import CannotOpenError, portal_sealer
from shared.web.results import PageError
from shared.web.tokens import hashed, new_token

RENEW_AHEAD = timedelta(seconds=30)
"""So long before its end an access token is replaced: a page takes less."""
LEASE_SECONDS = 6 * RENEWAL_SECONDS
"""So long the renewal of a browser's tokens is one request's: longer than it can take."""
WAIT_SECONDS = 10.0
"""So long another request waits for that."""
LOOK_SECONDS = 0.05


class Held(msgspec.Struct, frozen=True):
    """What the portal holds of a signed-in browser.

    Attributes:
        access: the access token.
        refresh: the refresh token, which renews it.
        account_id: whose.
        company_name: its name.
        email: its address.
        attempt_id: under which the refresh token is being used; empty while it is not.
        asking_until: so long a request renews them, by the database's clock (Unix time); else 0.
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
    """From where a request comes: an address, and what the browser calls itself."""

    address: str
    client: str


def start(session: Session, signed_in: Mapping[str, Any]) -> str:
    """Keep what a sign-in answered; returns the token for the browser's cookie.

    Args:
        session: the transaction.
        signed_in: the API's answer.
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


def find(token: str, api: Api, browser: Browser) -> Held | None:
    """What is held of a browser, its access token good for a page; None where it is signed out.

    Args:
        token: of the cookie.
        api: renews the tokens.
        browser: whose request it is.

    Raises:
        PageError: 503, when the API does not answer; the next page asks it again.
        Refused: it does not renew, for another reason than the session's end.
    """
    if not token:
        return None
    with transaction() as session:
        now = database_time(session)
        held = _opened(session.get(PortalSession, hashed(token)), now)
    if held is None or _expiry(held.access) - RENEW_AHEAD > now:
        return held
    return renew(token, api, browser, held.access)


def held_of(session: Session, token: str) -> Held | None:
    """What is held of a browser, as far as that is known without the API."""
    return _opened(session.get(PortalSession, hashed(token)), database_time(session))


def renew(token: str, api: Api, browser: Browser, access: str) -> Held | None:
    """Have the API renew what is held of a browser; where another request was faster, its outcome.

    Args:
        token: of the cookie.
        api: renews the tokens.
        browser: whose request it is.
        access: the access token that shall be replaced.

    Returns:
        As `find`, which says what is raised as well.
    """
    patience = time.monotonic() + WAIT_SECONDS
    while True:
        with transaction() as session:
            row = session.get(PortalSession, hashed(token), with_for_update=True)
            time_now = database_time(session)
            held = _opened(row, time_now)
            if row is None or held is None or held.access != access:
                return held
            now = time_now.timestamp()
            if held.asking_until <= now:
                asking = msgspec.structs.replace(
                    held,
                    attempt_id=held.attempt_id or str(new_id()),
                    asking_until=now + LEASE_SECONDS,
                )
                row.sealed = _seal(asking, row.token_hash)
                break
        if time.monotonic() > patience:
            raise PageError(503, AWAY)
        time.sleep(LOOK_SECONDS)
    try:
        return _put(token, held, _renewed(asking, api, browser))
    except Exception:
        with suppress(SQLAlchemyError):
            _put(token, held, msgspec.structs.replace(asking, asking_until=0))
        raise


def _renewed(asking: Held, api: Api, browser: Browser) -> Held | None:
    """What the API gives; None where it says that the session has ended."""
    asked = api.for_browser(browser.address, browser.client)
    try:
        return _held(asked.renewed(asking.refresh, asking.attempt_id))
    except Refused as refused:
        # Only what the API says of the session itself ends it.
        if refused.status not in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            raise
        return None


def _put(token: str, before: Held, now: Held | None) -> Held | None:
    """Hold something, or nothing, in the place of what was held before; returns what is held.

    Where that is something else meanwhile, since the browser signed out or this took too long, it
    stays.
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


def end_over() -> None:
    """Forget browsers whose sessions are over."""
    with transaction() as session:
        over = PortalSession.expires_at < func.clock_timestamp()
        session.execute(delete(PortalSession).where(over))


def end(session: Session, token: str) -> Held | None:
    """Forget a browser; returns what was held of it."""
    row = session.get(PortalSession, hashed(token))
    held = _opened(row, database_time(session))
    if row is not None:
        session.delete(row)
    return held


def leave_note(session: Session, token: str, note: str) -> None:
    """Have the browser's next page say something once: what became of its last action."""
    changed = update(PortalSession).where(PortalSession.token_hash == hashed(token))
    session.execute(changed.values(note=note))


def take_note(session: Session, token: str) -> str:
    """What was left to be said; it is said once."""
    note = session.scalar(
        select(PortalSession.note).where(PortalSession.token_hash == hashed(token))
    )
    if note:
        leave_note(session, token, "")
    return note or ""


def _held(signed_in: Mapping[str, Any]) -> Held:
    return Held(
        signed_in["access"],
        signed_in["refresh"],
        signed_in["id"],
        signed_in["company_name"],
        signed_in["email"],
    )


def _seal(held: Held, key: bytes) -> bytes:
    return portal_sealer().seal(msgspec.json.encode(held), f"portal:{key.hex()}")


def _opened(row: PortalSession | None, now: datetime) -> Held | None:
    if row is None or row.expires_at <= now:
        return None
    try:
        plain = portal_sealer().open(row.sealed, f"portal:{bytes(row.token_hash).hex()}")
    except CannotOpenError:  # under a key that was taken out: then one signs in again
        return None
    return msgspec.json.decode(plain, type=Held)


def _expiry(token: str) -> datetime:
    # Whether it is good is the API's to say.
    claims = jwt.decode(token, options={"verify_signature": False})
    return datetime.fromtimestamp(claims["exp"], UTC)
