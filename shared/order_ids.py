"""Which order a sender means: ids that are derived from what it calls its order.

So whoever hears of an order by its number or key knows its id, without asking anybody: the ingress
of an update, the recorder, whoever searches.
"""

import unicodedata
from uuid import UUID

from shared.ids import derived_id

LONGEST = 100  # characters of an order number, as `Reference` has it


def of_key(account_id: UUID, key: str, *, is_test: bool = False) -> UUID:
    """The id of the order that was sent under an idempotency key, without a number of its own.

    Args:
        account_id: the sender.
        key: the sender's, to the letter.
        is_test: whether it is a test order, which is another under the same key.
    """
    return derived_id("test order" if is_test else "order", account_id, key)


def of_number(account_id: UUID, number: str, *, is_test: bool = False) -> UUID:
    """The id of the order that has a number of its sender's.

    Args:
        account_id: the sender.
        number: as `normalised` makes it.
        is_test: whether it is a test order, which is another under the same number.
    """
    return derived_id("test order_number" if is_test else "order_number", account_id, number)


def normalised(number: str) -> str:
    """An order number as it is compared and shown: in NFC (UAX 15), without white space around it.

    Nothing else is made equal: `a-1` and `A-1` are two numbers. The result may be longer than
    `LONGEST`, as some characters have a longer form.

    Args:
        number: as somebody wrote it.
    """
    return unicodedata.normalize("NFC", number.strip())
