"""Bearer tokens: JSON Web Tokens (RFC 7519), signed with HMAC-SHA256.

The first of `JWT_SIGNING_KEY` signs and all of them verify, so that a key is replaced without
signing anybody out.
The accounts service makes them; every API that asks for a signed-in account checks them here.
Whether one is over is asked of the database's clock, by which it was made: hosts' clocks differ.
"""

from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any, Literal
from uuid import UUID

import jwt
import msgspec

from shared.config.loading import settings
from shared.ids import new_id

ALGORITHM = "HS256"
ISSUER = "order-fellow"
Use = Literal["access", "refresh"]


_CLOCKS_DIFFER = timedelta(days=1)


class InvalidTokenError(Exception):
    """The token is not one of ours, is of the other kind, or was changed."""


class Token(msgspec.Struct, frozen=True):
    """A token that was made or checked.

    Attributes:
        text: what travels.
        id: the `jti` claim.
        account_id: the `sub` claim.
        expires_at: the `exp` claim.
        session_id: the `sid` claim; None in a token of the version before sessions.
    """

    text: str
    id: UUID
    account_id: UUID
    expires_at: datetime
    session_id: UUID | None = None


def make(
    account_id: UUID,
    use: Use,
    now: datetime,
    session_id: UUID | None = None,
    ends_at: datetime | None = None,
    token_id: UUID | None = None,
) -> Token:
    """A new token for an account.

    Args:
        account_id: whose.
        use: what for.
        now: the time, by the database's clock.
        session_id: the session that it ends with.
        ends_at: when the session ends at the latest; no token lives longer.
        token_id: its id; a new one when not given.
    """
    config = settings()
    seconds = config.access_token_seconds if use == "access" else config.refresh_token_seconds
    token_id, expires_at = token_id or new_id(), now + timedelta(seconds=seconds)
    expires_at = min(expires_at, ends_at or expires_at)
    claims: dict[str, object] = {
        "iss": ISSUER,
        "sub": str(account_id),
        "jti": str(token_id),
        "use": use,
        "iat": now,
        "exp": expires_at,
    }
    if session_id is not None:
        claims["sid"] = str(session_id)
    text = jwt.encode(claims, config.listed("JWT_SIGNING_KEY")[0], algorithm=ALGORITHM)
    return Token(text, token_id, account_id, expires_at, session_id)


def check(text: str, use: Use) -> Token:
    """The token behind `text`, which may be over: see `Token.expires_at`.

    Args:
        text: what the client sent.
        use: what it must be for: a refresh token opens no door, and an access token is not renewed.

    Raises:
        InvalidTokenError: see there.
    """
    try:
        claims = _claims(text)
        token = Token(
            text,
            UUID(claims["jti"]),
            UUID(claims["sub"]),
            datetime.fromtimestamp(claims["exp"], UTC),
            UUID(claims["sid"]) if "sid" in claims else None,
        )
    except (jwt.PyJWTError, ValueError, TypeError, AttributeError) as error:
        raise InvalidTokenError(str(error)) from None
    if claims.get("use") != use:
        raise InvalidTokenError(f"not an {use} token")
    return token


def _claims(text: str) -> dict[str, Any]:
    """What a token says that any of the keys has signed."""
    *others, last = settings().listed("JWT_SIGNING_KEY")
    for key in others:
        with suppress(jwt.InvalidSignatureError):
            return _verified(text, key)
    return _verified(text, last)


def _verified(text: str, key: str) -> dict[str, Any]:
    return jwt.decode(
        text,
        key,
        algorithms=[ALGORITHM],
        issuer=ISSUER,
        # When it was made decides nothing (RFC 7519, 4.1.6): who made it may have a clock ahead of
        # ours. Whether it is over the database says; what has been so for long costs no question.
        options={
            "require": ["exp", "iat", "iss", "jti", "sub"],
            "verify_iat": False,
        },
        leeway=_CLOCKS_DIFFER,
    )
