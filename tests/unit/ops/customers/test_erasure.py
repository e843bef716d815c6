"""What is left of a message without a person: the sender's order, and nobody's email."""

import json
import re
from dataclasses import replace
from datetime import date

import msgspec
import pytest
from msgspec import UNSET

from services.ops.customers.erasure import TOLD, Person, without
from services.orders import tracking
from shared import erased
from shared.bus.contract.delivery import Incoming
from shared.bus.contract.events import EVENT_TYPES, OF_A_CUSTOMER, decode, encode
from shared.ids import new_id
from tests.integration.arrange import order_created
from tests.unit.notifier.facts import FACTS

ZOE = Person.of("zoe@shop.example", {"zoe@shop.example": re.escape("zoe@shop.example")})


def left(body, type_, **headers):
    return without(Incoming(body, {"type": type_}, headers, ""), type_, ZOE)


@pytest.mark.parametrize("type_", sorted(OF_A_CUSTOMER))
def test_an_order_stays_as_one_that_is_understood(type_):
    order = order_created(
        order_number="A-1",
        metadata={"gift": "x"},
        carrier="Swift",
        tracking_number="1",
        tracking_url="https://track.carrier.example/1",
        estimated_delivery=date(2026, 12, 3),
    )
    found = decode(type_, left(encode(order), type_).body)
    assert (found.order_id, found.account_id) == (order.order_id, order.account_id)
    assert found.tracking_status == order.tracking_status
    assert (found.customer_details.name, found.customer_details.phone) == (erased.TEXT, "")
    assert found.customer_details.email == erased.ADDRESS
    assert (found.item_summary, found.address) == (erased.TEXT, erased.TEXT)
    assert [found.order_number, found.metadata] == [UNSET] * 2
    assert not tracking.said_in(found)


@pytest.mark.parametrize("template", ["order_received", "order_status", "order_cancelled"])
def test_an_email_to_the_person_goes_and_one_to_somebody_else_stays(template):
    fact = FACTS[template]
    told = json.loads(encode(fact)) | {"customer_email": "Zoe@Shop.example"}
    assert left(json.dumps(told).encode(), fact.TYPE).body is None
    others = told | {"customer_email": "ada@shop.example", "item_summary": "for ZOE@shop.example"}
    kept = left(json.dumps(others).encode(), fact.TYPE).body
    assert json.loads(kept) == others | {"item_summary": f"for {erased.TEXT}"}
    assert left(json.dumps(others | {"item_summary": "x"}).encode(), fact.TYPE) is None


def test_what_is_said_of_a_business_is_left_alone():
    told = b'{"email": "zoe@shop.example"}'
    assert left(told, "account.verified") is None
    assert left(told, "kyc.decide") is None


def test_escaped_nested_and_broken_it_is_found():
    escaped = b'{"note": ["z\\u006fe@shop.example"]}'
    assert json.loads(left(escaped, "order.status_changed").body) == {"note": [erased.TEXT]}
    assert left(b'{"x": "zoe@shop.example', "").body == b'{"x": "[erased]'
    assert left(b"\xff zoe@shop.example", "").body == b"\xff [erased]"


def test_what_a_server_said_is_in_headers():
    said = "550 <zoe@shop.example>: no such user"
    found = left(b"{}", "order.created", **{"x-reason": said, "x-reasons": [said, "other"]})
    assert found.body == b"{}"
    gone = f"550 <{erased.TEXT}>: no such user"
    assert found.headers == {"x-reason": gone, "x-reasons": [gone, "other"]}


NAMED = sorted(
    type_
    for type_, event in EVENT_TYPES.items()
    if type_.startswith("order.") and "order_id" in event.__struct_fields__ and type_ not in TOLD
)


@pytest.mark.parametrize("type_", NAMED)
def test_what_is_said_of_their_order_stays_without_a_word_of_it(type_):
    """By the order's id: its customer's address is in few of them."""
    order_id = new_id()
    words = dict.fromkeys(("note", "reason", "order_number", "carrier"), "ZADE")
    told = json.dumps({"order_id": str(order_id).upper(), **words}).encode()
    theirs = replace(ZOE, orders=frozenset({str(order_id)}))
    incoming = Incoming(told, {"type": type_}, {}, "")
    assert without(incoming, type_, ZOE) is None
    cleared = without(incoming, type_, theirs)
    assert b"ZADE" not in cleared.body
    assert without(msgspec.structs.replace(incoming, body=cleared.body), type_, theirs) is None
