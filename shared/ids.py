"""Identifiers: UUIDv7 for new ids, UUIDv5 for derived ones (RFC 9562)."""

import hashlib
import unicodedata
from uuid import UUID

import uuid_utils
import uuid_utils.compat

# The namespace of all derived ids. Changing it would change them.
NAMESPACE = UUID("6f1d2c1e-6a57-5b0b-9d0f-0f5d7c0a51e1")
_NAMESPACE = uuid_utils.UUID(str(NAMESPACE))


def new_id() -> UUID:
    """Return a new UUIDv7. It begins with the time in milliseconds, so inserts into an index are
    local."""
    return uuid_utils.compat.uuid7()


def is_id(text: str) -> bool:
    """Return whether a text is a UUID."""
    try:
        UUID(text)
    except ValueError:
        return False
    return True


def follow_up_id(cause: UUID, what: str, *of: UUID) -> UUID:
    """Derive the id of a message or record caused by another, the same at each call.

    It keeps the first 48 bits of its cause, the time of a UUIDv7 (RFC 9562, 5.7), so that inserts
    into an index are local and it has a time; the rest is derived. If the cause is a UUIDv5, which
    has no time, the result is marked as version 5 too.

    Args:
        cause: the id of the cause.
        what: distinguishes several effects of one cause.
        *of: the subject's id, if the cause's id is chosen by a person and may not be unique.
    """
    about = b"".join(subject.bytes for subject in of)
    derived = hashlib.sha256(cause.bytes + what.encode() + about).digest()[:10]
    number = int.from_bytes(cause.bytes[:6] + derived)
    version, variant = 0xF << 76, 0x3 << 62
    kind = 5 if cause.version == 5 else 7
    return UUID(int=number & ~version & ~variant | kind << 76 | 0x2 << 62)


def derived_id(*parts: object) -> UUID:
    """Return the UUIDv5 of `parts`; equal parts always give the same id."""
    return UUID(int=uuid_utils.uuid5(_NAMESPACE, "\x1f".join(map(str, parts))).int)


LONGEST_NUMBER = 100  # characters of an order number, as in `Reference`


def order_of_key(account_id: UUID, key: str, *, is_test: bool = False) -> UUID:
    """Return the id of an order without a number, sent under an idempotency key.

    Args:
        account_id: of the sender.
        key: the idempotency key, unmodified.
        is_test: whether it is a test order, whose id differs from that of the live order.
    """
    return derived_id("test order" if is_test else "order", account_id, key)


def order_of_number(account_id: UUID, number: str, *, is_test: bool = False) -> UUID:
    """Return the id of an order by the sender's number, without a query.

    Args:
        account_id: of the sender.
        number: normalised by `normalised_number`.
        is_test: whether it is a test order, whose id differs from that of the live order.
    """
    return derived_id("test order_number" if is_test else "order_number", account_id, number)


def is_of_shop(account_id: UUID, order_id: UUID, number: object, *, is_test: bool = False) -> bool:
    """Return whether a shop's platform sent an order: its id is not derived from its number.

    Args:
        account_id: of the business.
        order_id: of the order.
        number: of the order. Orders of shops always have one; without it the result is false.
        is_test: whether it is a test order.
    """
    if not isinstance(number, str) or not number:
        return False
    return order_id != order_of_number(account_id, number, is_test=is_test)


def normalised_number(number: str) -> str:
    """Return an order number in NFC (UAX 15), without surrounding white space.

    Nothing else is normalised: `a-1` and `A-1` are two numbers. The result may be longer than
    `LONGEST_NUMBER`, because NFC makes some characters longer.

    Args:
        number: as sent.
    """
    return unicodedata.normalize("NFC", number.strip())
