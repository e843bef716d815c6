"""What remains of a message when a customer is erased from it; pure.

A fact that would be emailed to the customer is dropped. A message about the customer's order loses
its personal fields. In any other message each mention of the address is replaced.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from shared import erased
from shared.bus.contract.delivery import RawDelivery
from shared.bus.contract.events import (
    IN_TEST,
    OF_A_CUSTOMER,
    OrderCancellationRecorded,
    OrderRecorded,
    OrderStatusRecorded,
)
from shared.bus.contract.headers import REASON_HEADER, REASONS_HEADER
from shared.validation.email_addresses import compared

EMAILED_FACTS = {
    fact.TYPE: "order_email" if fact.IS_TEST else "customer_email"
    for live in (OrderRecorded, OrderStatusRecorded, OrderCancellationRecorded)
    for fact in (live, IN_TEST[live])
}
"""The emailed facts, with the field that contains the customer's address. Facts of test orders are
emailed to the business."""
OF_BUSINESSES = ("account.", "kyc.", "secret.", "webhook.", "ops.")
"""Types of messages about a business, whose own address is not a customer's."""
_REDACTED_ORDER = {
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
"""Headers that may quote a server's answer with an address."""


@dataclass(frozen=True, slots=True)
class Person:
    """A customer.

    Attributes:
        address: the address, in lower case.
        spellings: the address as texts may contain it; a second one for a non-ASCII domain.
        mention: matches the address in a text, in any spelling.
        orders: the ids of the customer's orders, whose messages mostly lack the address.
    """

    address: str
    spellings: tuple[str, ...]
    mention: re.Pattern[str]
    orders: frozenset[str] = frozenset()

    @classmethod
    def of(cls, address: str, expressions: Mapping[str, str]) -> "Person":
        """Return the customer with an address.

        Args:
            address: the address, in any case.
            expressions: the database's `customer_mention` of each spelling.
        """
        pattern = re.compile("|".join(expressions.values()), re.IGNORECASE)
        return cls(compared(address), tuple(expressions), pattern)


@dataclass(frozen=True, slots=True)
class Remainder:
    """What remains of a message.

    Attributes:
        body: the redacted body; None to drop the message.
        headers: the changed headers.
    """

    body: bytes | None
    headers: dict[str, Any]


def redacted(incoming: RawDelivery, type_: str, person: Person) -> Remainder | None:
    """Return what remains of a message without a customer; None if it does not concern them.

    Args:
        incoming: the message.
        type_: its stated type.
        person: the customer.
    """
    if type_.startswith(OF_BUSINESSES):
        return None
    body, is_theirs = _body(incoming.body, type_, person)
    headers = {}
    for name in _HEADERS:
        value = incoming.headers.get(name)
        # An error about an order may quote any part of it.
        cleared = _mapped(value, lambda _: erased.TEXT) if is_theirs else _replaced(value, person)
        if cleared != value:
            headers[name] = cleared
    if body == incoming.body and not headers:
        return None
    return Remainder(body, headers)


def _body(body: bytes, type_: str, person: Person) -> tuple[bytes | None, bool]:
    """Return the redacted body, and whether it concerns the customer's order."""
    try:
        data = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        text = body.decode(errors="surrogateescape")
        return person.mention.sub(erased.TEXT, text).encode(errors="surrogateescape"), False
    remaining, is_theirs = data, False
    if isinstance(data, dict):
        if type_ in EMAILED_FACTS and _is(data.get(EMAILED_FACTS[type_]), person):
            return None, True
        customer = data.get("customer_details")
        is_theirs = (
            type_ not in EMAILED_FACTS and str(data.get("order_id")).lower() in person.orders
        )
        if type_ in OF_A_CUSTOMER and isinstance(customer, dict):
            is_theirs |= _is(customer.get("email"), person)
        if is_theirs:
            remaining = {name: value for name, value in data.items() if name not in _DROPPED}
            if type_ in OF_A_CUSTOMER:
                remaining |= _REDACTED_ORDER
        elif isinstance(recipients := data.get("recipients"), list):
            remaining = data | {
                "recipients": [_without_order_number(one, person) for one in recipients]
            }
    remaining = _replaced(remaining, person)
    return body if remaining == data else msgspec.json.encode(remaining), is_theirs


def _without_order_number(recipient: Any, person: Person) -> Any:
    order_id = str(recipient.get("order_id")).lower() if isinstance(recipient, dict) else ""
    if order_id not in person.orders:
        return recipient
    return {name: value for name, value in recipient.items() if name not in _DROPPED}


def _is(address: object, person: Person) -> bool:
    return isinstance(address, str) and compared(address) == person.address


def _replaced(data: Any, person: Person) -> Any:
    """Return the data with each mention replaced, at any depth."""

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
