"""Names of the users of the broker and the roles of the database: one per service."""

import re

PERSON = r"[a-z0-9][a-z0-9._-]{0,63}"
OPERATOR_NAME = (
    "up to 64 lower-case letters, digits, dots, underscores and hyphens, beginning with a letter "
    "or digit, but not with fellow or guest"
)
"""The rule of `is_operator_name`, for error messages."""
SERVICES = (
    "ingress",
    "kyc",
    "secrets",
    "orders",
    "notifier",
    "audit",
    "relay",
    "ops",
    "portal",
    "proof",
)
OPERATOR = "operator"
"""The broker user that operators share to publish decisions; has no database role."""
CONSOLE = "console"
"""The broker user of the ops console, which vouches for its signed-in users. In the database it is
`ops`, like `fellow`."""
BROKER_USERS = (*SERVICES, CONSOLE, OPERATOR)
"""All users with a password, which is the same on both servers."""


def is_shared_user(user: str) -> bool:
    """Return whether a broker user is a service's or the shared one, and so names no person."""
    return user in _SHARED


def is_operator_name(name: str) -> bool:
    """Return whether a person's user, on the broker or the console, may have this name."""
    return bool(re.fullmatch(PERSON, name)) and not name.startswith(("fellow", "guest"))


def login(service: str) -> str:
    """Return the user name of a service on the broker and in the database.

    Args:
        service: one of `BROKER_USERS`.
    """
    return f"fellow_{service}"


_SHARED = frozenset(login(name) for name in BROKER_USERS)
