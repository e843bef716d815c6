"""Cookies that no script, no other site and, in production, no other host of the domain reaches."""

from datetime import UTC, datetime
from typing import Any

from falcon.asgi import Request, Response

from shared.config.settings import Settings

BOUND = "__Host-"
"""Before a cookie's name, has a browser take it over TLS and for this host alone, so that no other
host of the domain can set it (RFC 6265bis, 4.1.3.2)."""
MARK_SECONDS = 180 * 86_400
"""So long a browser keeps by what it is known to whom it has signed in (`device_tokens`)."""
LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)
"""When what a browser is to forget has ended (RFC 6265, 3.1)."""


def get(req: Request, name: str, config: Settings) -> str:
    """What a browser holds under a name; empty where it holds nothing."""
    # The quotes are what the version before left of one that it ended.
    return req.cookies.get(_called(name, config), "").strip('"')


def put(
    resp: Response, name: str, value: str, config: Settings, max_age: int | None = None
) -> None:
    """Have a browser keep something.

    Args:
        resp: the answer.
        name: under which.
        value: what.
        config: in production it is kept for TLS alone.
        max_age: for how many seconds; None: until the browser is closed.
    """
    _set(resp, name, value, config, max_age=max_age)


def forget(resp: Response, name: str, config: Settings) -> None:
    """Have a browser keep something no longer.

    Falcon leaves out a `Max-Age` of 0, and a browser would keep an empty value.
    """
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
