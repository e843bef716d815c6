"""Bearer tokens: JSON Web Tokens (RFC 7519), signed with HMAC-SHA256.

The accounts service makes them; every API that asks for a signed-in account checks them here.
"""

from datetime import UTC, datetime, timedelta
from typing import Literal
from uuid import UUID

import jwt
import msgspec

from shared.config import settings
from shared.ids import new_id

ALGORITHM = "HS256"
ISSUER = "order-fellow"
Use = Literal["access", "refresh"]


class InvalidTokenError(Exception):
    """The token is not one of ours, is of the other kind, was changed, or has expired."""


class Token(msgspec.Struct, frozen=True):
    """A token that was made or checked.

    Attributes:
        text: what travels.
        id: the `jti` claim.
        account_id: the `sub` claim.
        expires_at: the `exp` claim.
    """

    text: str
    id: UUID
    account_id: UUID
    expires_at: datetime


def make(account_id: UUID, use: Use) -> Token:
    """A new token for an account."""
    config = settings()
    seconds = config.access_token_seconds if use == "access" else config.refresh_token_seconds
    now = datetime.now(UTC)
    token_id, expires_at = new_id(), now + timedelta(seconds=seconds)
    claims = {
        "iss": ISSUER,
        "sub": str(account_id),
        "jti": str(token_id),
        "use": use,
        "iat": now,
        "exp": expires_at,
    }
    text = jwt.encode(claims, config.jwt_signing_key, algorithm=ALGORITHM)
    return Token(text, token_id, account_id, expires_at)


def check(text: str, use: Use) -> Token:
    """The token behind `text`.

    Args:
        text: what the client sent.
        use: what it must be for: a refresh token opens no door, and an access token is not renewed.

    Raises:
        InvalidTokenError: see there.
    """
    try:
        claims = jwt.decode(
            text,
            settings().jwt_signing_key,
            algorithms=[ALGORITHM],
            issuer=ISSUER,
            options={"require": ["exp", "iat", "iss", "jti", "sub"]},
        )
        token = Token(
            text,
            UUID(claims["jti"]),
            UUID(claims["sub"]),
            datetime.fromtimestamp(claims["exp"], UTC),
        )
    except (jwt.PyJWTError, ValueError, TypeError, AttributeError) as error:
        raise InvalidTokenError(str(error)) from None
    if claims.get("use") != use:
        raise InvalidTokenError(f"not an {use} token")
    return token
