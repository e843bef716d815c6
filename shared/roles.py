"""The names of those who sign in to the broker and to the database: one a service."""

SERVICES = ("ingress", "kyc", "secrets", "orders", "notifier", "audit", "relay", "ops", "proof")
OPERATOR = "operator"
"""Publishes decisions; has no business in the database."""


def login(service: str) -> str:
    """The user of a service, on either server.

    Args:
        service: one of `SERVICES`, or `OPERATOR`.
    """
    return f"fellow_{service}"
