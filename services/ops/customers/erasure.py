"""What is left of a message when a customer is taken out of it; pure.

An email to the person must not go, so its fact goes. An order is the business's and stays, without
the person in it, and so does what is said of one; in what else mentions the address, the address
alone is replaced.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from shared import erased
from shared.bus.contract.delivery import Incoming
from shared.bus.contract.events import (
    IN_TEST,
    OF_A_CUSTOMER,
    OrderCancellationRecorded,
    OrderRecorded,
    OrderStatusRecorded,
)
from shared.bus.contract.headers import REASON_HEADER, REASONS_HEADER
from shared.validation.email_addresses import compared

TOLD = {
    fact.TYPE: "order_email" if fact.IS_TEST else "customer_email"
    for live in (OrderRecorded, OrderStatusRecorded, OrderCancellationRecorded)
    for fact in (live, IN_TEST[live])
}
"""The facts that are emailed, by which of their members is the customer's address; those of test
orders are emailed to the business."""
OF_BUSINESSES = ("account.", "kyc.", "secret.", "webhook.", "ops.")
"""The types of messages about a business, whose own address is not a customer's."""
_ORDER_WITHOUT = {
    "customer_details": {"name": erased.TEXT, "email": erased.ADDRESS, "phone": erased.EMPTY},
    "item_summary": erased.TEXT,
    "address": erased.TEXT,
}
_DROPPED = frozenset(
    {
        "order_number", "metadata", "carrier", "tracking_number", "tracking_url",
        "estimated_delivery", "note", "reason",
    }
)  # fmt: skip
_HEADERS = (REASON_HEADER, REASONS_HEADER)
"""The headers in which what a server said of an address may stand."""


@dataclass(frozen=True, slots=True)
class Person:
    """A customer.

    Attributes:
        address: in small letters.
        spellings: it, and as it may stand in a text: with a domain of letters beyond ASCII.
        mention: finds the address in a text, in either spelling.
        orders: the ids of their orders: most of what is said of one has no address in it.
    """

    address: str
    spellings: tuple[str, ...]
    mention: re.Pattern[str]
    orders: frozenset[str] = frozenset()

    @classmethod
    def of(cls, address: str, expressions: Mapping[str, str]) -> "Person":
        """Who has an address.

        Args:
            address: in whatever case.
            expressions: what the database's `customer_mention` makes of each of its spellings.
        """
        pattern = re.compile("|".join(expressions.values()), re.IGNORECASE)
        return cls(compared(address), tuple(expressions), pattern)


@dataclass(frozen=True, slots=True)
class Left:
    """What is left of a message.

    Attributes:
        body: the new one; None when nothing is to be left of the message.
        headers: those that change.
    """

    body: bytes | None
    headers: dict[str, Any]


def without(incoming: Incoming, type_: str, person: Person) -> Left | None:
    """What is left of a message without a person; None when the person is not in it.

    Args:
        incoming: the message.
        type_: what it says it is.
        person: who.
    """
    if type_.startswith(OF_BUSINESSES):
        return None
    headers = {
        name: cleared
        for name in _HEADERS
        if (cleared := _replaced(incoming.headers.get(name), person)) != incoming.headers.get(name)
    }
    body = _body(incoming.body, type_, person)
    if body == incoming.body and not headers:
        return None
    return Left(body, headers)


def _body(body: bytes, type_: str, person: Person) -> bytes | None:
    try:
        data = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        text = body.decode(errors="surrogateescape")
        return person.mention.sub(erased.TEXT, text).encode(errors="surrogateescape")
    left = data
    if isinstance(data, dict):
        if type_ in TOLD and _is(data.get(TOLD[type_]), person):
            return None
        customer = data.get("customer_details")
        is_theirs = type_ not in TOLD and str(data.get("order_id")).lower() in person.orders
        if type_ in OF_A_CUSTOMER and isinstance(customer, dict):
            is_theirs |= _is(customer.get("email"), person)
        if is_theirs:
            left = {name: value for name, value in data.items() if name not in _DROPPED}
            if type_ in OF_A_CUSTOMER:
                left |= _ORDER_WITHOUT
    left = _replaced(left, person)
    return body if left == data else msgspec.json.encode(left)


def _is(address: object, person: Person) -> bool:
    return isinstance(address, str) and compared(address) == person.address


def _replaced(data: Any, person: Person) -> Any:
    """The same with each mention replaced, however deep it lies."""

    def replace(text: str) -> str:
        return person.mention.sub(erased.TEXT, text)

    return _mapped(data, replace)


def _mapped(data: Any, replace: Callable[[str], str]) -> Any:
    if isinstance(data, str):
        return replace(data)
    if isinstance(data, list):
        return [_mapped(one, replace) for one in data]
    if isinstance(data, dict):
        return {replace(name): _mapped(one, replace) for name, one in data.items()}
    return data
