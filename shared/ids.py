"""Identifiers: UUIDv7 where one is made, UUIDv5 where it must be derived (RFC 9562)."""

import hashlib
import unicodedata
from uuid import UUID

import uuid_utils
import uuid_utils.compat

# The namespace of every id that Order Fellow derives. Changing it would change derived ids.
NAMESPACE = UUID("6f1d2c1e-6a57-5b0b-9d0f-0f5d7c0a51e1")
_NAMESPACE = uuid_utils.UUID(str(NAMESPACE))


def new_id() -> UUID:
    """A new UUIDv7. Its leading 48 bits are the time in milliseconds, so indexes stay hot."""
    return uuid_utils.compat.uuid7()


def is_id(text: str) -> bool:
    """Whether a text is a UUID."""
    try:
        UUID(text)
    except ValueError:
        return False
    return True


def follow_up_id(cause: UUID, what: str, *of: UUID) -> UUID:
    """The id of what follows from a message or a record: the same every time that it follows.

    It has the first 48 bits of its cause, which are the time in a UUIDv7 (RFC 9562, 5.7), so that
    indexes stay hot and age can be read from it; the rest is derived. What follows from a derived
    id (UUIDv5) tells no time either, and says so by the same version.

    Args:
        cause: the id of what it follows from.
        what: tells apart several that follow from one.
        *of: the record that it is about, where a person may have given the cause an id that is
            another's already.
    """
    about = b"".join(one.bytes for one in of)
    derived = hashlib.sha256(cause.bytes + what.encode() + about).digest()[:10]
    number = int.from_bytes(cause.bytes[:6] + derived)
    version, variant = 0xF << 76, 0x3 << 62
    kind = 5 if cause.version == 5 else 7
    return UUID(int=number & ~version & ~variant | kind << 76 | 0x2 << 62)


def derived_id(*parts: object) -> UUID:
    """The UUIDv5 of `parts`: the same parts give the same id, everywhere and for ever."""
    return UUID(int=uuid_utils.uuid5(_NAMESPACE, "\x1f".join(map(str, parts))).int)


LONGEST_NUMBER = 100  # characters of an order number, as `Reference` has it


def order_of_key(account_id: UUID, key: str, *, is_test: bool = False) -> UUID:
    """The id of the order that was sent under an idempotency key, without a number of its own.

    Args:
        account_id: the sender.
        key: the sender's, to the letter.
        is_test: whether it is a test order, which is another under the same key.
    """
    return derived_id("test order" if is_test else "order", account_id, key)


def order_of_number(account_id: UUID, number: str, *, is_test: bool = False) -> UUID:
    """The id of the order that has a number of its sender's.

    So whoever hears of an order by its number knows its id, without asking anybody.

    Args:
        account_id: the sender.
        number: as `normalised_number` makes it.
        is_test: whether it is a test order, which is another under the same number.
    """
    return derived_id("test order_number" if is_test else "order_number", account_id, number)


def is_of_shop(account_id: UUID, order_id: UUID, number: object, *, is_test: bool = False) -> bool:
    """Whether a shop's platform has sent an order: of a sender's own number its id is derived.

    Args:
        account_id: whose order it is.
        order_id: its id.
        number: its number; where it has none, which an order of a shop has, it is false.
        is_test: whether it is a test order.
    """
    if not isinstance(number, str) or not number:
        return False
    return order_id != order_of_number(account_id, number, is_test=is_test)


def normalised_number(number: str) -> str:
    """An order number as it is compared and shown: in NFC (UAX 15), without white space around it.

    Nothing else is made equal: `a-1` and `A-1` are two numbers. The result may be longer than
    `LONGEST_NUMBER`, as some characters have a longer form.

    Args:
        number: as somebody wrote it.
    """
    return unicodedata.normalize("NFC", number.strip())
