"""The names of those who sign in to the broker and to the database: one a service."""

import re

PERSON = r"[a-z0-9][a-z0-9._-]{0,63}"
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
"""Publishes decisions; has no business in the database."""
CONSOLE = "console"
"""The ops console on the broker, which vouches for the persons who are signed in to it. In the
database it is `ops`, as the command is."""
BROKER_USERS = (*SERVICES, CONSOLE, OPERATOR)
"""Who has a password; each has it wherever they sign in."""


def is_services(user: str) -> bool:
    """Whether a user of the broker is a service's, and so nobody's name."""
    return user in {login(name) for name in (*SERVICES, CONSOLE)}


def is_operators(name: str) -> bool:
    """Whether an operator's user on the broker may have this name; the console's users may too."""
    return bool(re.fullmatch(PERSON, name)) and not name.startswith(("fellow", "guest"))


def login(service: str) -> str:
    """The user of a service, on either server.

    Args:
        service: one of `BROKER_USERS`.
    """
    return f"fellow_{service}"
