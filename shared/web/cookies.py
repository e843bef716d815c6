"""Cookies that are HttpOnly, SameSite=Strict and, in production, bound to the host."""

from datetime import UTC, datetime
from typing import Any

from falcon.asgi import Request, Response

from shared.config.settings import Settings

BOUND = "__Host-"
"""Prefix of a cookie's name that makes browsers accept it only over TLS and for this host, so that
other hosts of the domain cannot set it (RFC 6265bis, 4.1.3.2)."""
MARK_SECONDS = 180 * 86_400
"""Lifetime of the device cookie (`device_tokens`)."""
LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)
"""Expiry of a deleted cookie (RFC 6265, 3.1)."""


def get(req: Request, name: str, config: Settings) -> str:
    """Return the value of a cookie; empty if there is none."""
    # The previous version deleted cookies by setting them to `""`.
    return req.cookies.get(_called(name, config), "").strip('"')


def put(
    resp: Response, name: str, value: str, config: Settings, max_age: int | None = None
) -> None:
    """Set a cookie.

    Args:
        resp: the response.
        name: of the cookie.
        value: of the cookie.
        config: in production it is bound to the host, and secure.
        max_age: seconds; None: until the browser is closed.
    """
    _set(resp, name, value, config, max_age=max_age)


def forget(resp: Response, name: str, config: Settings) -> None:
    """Delete a cookie, by its expiry, because Falcon omits a `Max-Age` of 0."""
    _set(resp, name, "", config, expires=LONG_AGO)


def _set(resp: Response, name: str, value: str, config: Settings, **ends: Any) -> None:
    resp.set_cookie(
        _called(name, config),
        value,
        **ends,
        path="/",
        http_only=True,
        same_site="Strict",
        secure=_is_secure(config),
    )


def _called(name: str, config: Settings) -> str:
    return f"{BOUND}{name}" if _is_secure(config) else name


def _is_secure(config: Settings) -> bool:
    return config.environment == "production"
