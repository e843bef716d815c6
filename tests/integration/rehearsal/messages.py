"""A message of every type, about a business and an order that are there."""

from typing import get_args

import msgspec

from shared.bus.contract.delivery import RawDelivery
from shared.bus.contract.events import EVENT_TYPES, encode
from shared.bus.contract.message import message_for
from shared.db.models import Account, Order
from shared.ids import new_id
from shared.security.service_accounts import login
from tests.unit.notifier.facts import FACTS

_BY_TYPE = {fact.TYPE: fact for fact in FACTS.values()}
_MEMBERS = {
    "decision": "revoke",
    "reason": "since it is so",
    "company_name": "Kettle & Co",
    "cause": "operator",
    "address": "12 Marina Road",
    "customer_details": {"name": "Zoë Ade", "email": "zoe@shop.example", "phone": ""},
    "customer_name": "Zoë Ade",
    "customer_email": "zoe@shop.example",
    "item_summary": "2 kettles",
    "tracking_status": "IN_TRANSIT",
    "previous_status": "PENDING",
    "rate_per_second": 7,
    "blocked": True,
    "note": "with Bola",
    "address_tried": "x",
}


def body_of(type_: str, business: Account, order: Order) -> bytes:
    """The body of a message of a type."""
    event = EVENT_TYPES[type_]
    if fact := _BY_TYPE.get(type_):
        named = {"account_id": business.id, "email": business.email}
        held = {name: value for name, value in named.items() if hasattr(fact, name)}
        return encode(msgspec.structs.replace(fact, **held))
    known = _MEMBERS | {"account_id": str(business.id), "email": business.email}
    if type_ in ("order.status_changed", "order.cancelled"):
        known["order_id"] = str(order.id)
    members = {}
    for field in msgspec.structs.fields(event):
        if field.name in ("account_id", "email", "rate_per_second"):
            members[field.name] = known[field.name]
        elif field.required:
            members[field.name] = known.get(field.name) or _made(field.type)
    if type_ == "kyc.decide":
        members.pop("account_id")
    return msgspec.json.encode(members)


def _made(type_: object) -> object:
    for value in (
        *get_args(type_)[:1],
        str(new_id()),
        1,
        True,
        "2099-01-01T00:00:00Z",
        [],
        "x",
        {},
    ):
        try:
            msgspec.convert(value, type_)
        except (msgspec.ValidationError, TypeError):
            continue
        return value
    raise AssertionError(f"no value for {type_}")


def arriving(type_: str, body: bytes, exchange: str = "", key: str = "", **headers) -> RawDelivery:
    """It, as the broker would deliver it."""
    message = message_for(FACTS["kyc_received"], source="tests", correlation_id=new_id())
    properties = {"message_id": str(new_id()), "type": type_, "correlation_id": str(new_id())}
    if not exchange:
        properties["user_id"] = login("ops")
    return RawDelivery(body, properties, message.headers() | headers, exchange, False, key)
