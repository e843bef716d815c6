"""Identifiers: UUIDv7 where one is made, UUIDv5 where it must be derived (RFC 9562)."""

from uuid import UUID, uuid5

import uuid_utils.compat

# The namespace of every id that Order Fellow derives. Changing it would change derived ids.
NAMESPACE = UUID("6f1d2c1e-6a57-5b0b-9d0f-0f5d7c0a51e1")


def new_id() -> UUID:
    """A new UUIDv7. Its leading 48 bits are the time in milliseconds, so indexes stay hot."""
    return uuid_utils.compat.uuid7()


def derived_id(*parts: object) -> UUID:
    """The UUIDv5 of `parts`: the same parts give the same id, everywhere and for ever."""
    return uuid5(NAMESPACE, "\x1f".join(str(part) for part in parts))
