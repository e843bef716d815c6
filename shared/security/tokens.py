"""Bearer tokens: JSON Web Tokens (RFC 7519), signed with HMAC-SHA256.

The first of `JWT_SIGNING_KEY` signs and all of them verify, so that a key can be replaced without
ending sessions. The accounts service issues tokens; all APIs verify them here. Expiry is decided by
the database's clock, by which they were issued, because hosts' clocks differ.
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
    """The token was not issued by us, was changed, or is of the other kind."""


class Token(msgspec.Struct, frozen=True):
    """An issued or verified token.

    Attributes:
        text: the encoded token.
        id: the `jti` claim.
        account_id: the `sub` claim.
        expires_at: the `exp` claim.
        session_id: the `sid` claim; None in tokens of a version without sessions.
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
    """Issue a token for an account.

    Args:
        account_id: of the account.
        use: its purpose.
        now: the time by the database's clock.
        session_id: of its session.
        ends_at: end of the session, which the token does not outlive.
        token_id: its id; by default a new one.
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
    """Verify a token, which may have expired: see `Token.expires_at`.

    Args:
        text: sent by the client.
        use: its required purpose: a refresh token gives no access, and an access token no renewal.

    Raises:
        InvalidTokenError: it was not issued by us, was changed, or is of the other kind.
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
    """Return the claims of a token signed with any of the keys."""
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
        # `iat` is not verified (RFC 7519, 4.1.6), because the issuer's clock may be ahead. Expiry
        # is decided by the database; the leeway only rejects long expired tokens without a query.
        options={
            "require": ["exp", "iat", "iss", "jti", "sub"],
            "verify_iat": False,
        },
        leeway=_CLOCKS_DIFFER,
    )
