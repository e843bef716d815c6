"""What remains of a message without a customer: the business's order, and no email."""

import json
import re
from dataclasses import replace
from datetime import date

import msgspec
import pytest
from msgspec import UNSET

from services.ops.customers.erasure import EMAILED_FACTS, Person, redacted
from services.orders import tracking
from shared import erased
from shared.bus.contract.delivery import RawDelivery
from shared.bus.contract.events import EVENT_TYPES, OF_A_CUSTOMER, CustomerDetails, decode, encode
from shared.ids import new_id
from tests.integration.arrange import order_created
from tests.unit.notifier.facts import FACTS

ZOE = Person.of("zoe@shop.example", {"zoe@shop.example": re.escape("zoe@shop.example")})


def left(body, type_, **headers):
    return redacted(RawDelivery(body, {"type": type_}, headers, ""), type_, ZOE)


@pytest.mark.parametrize("type_", sorted(OF_A_CUSTOMER))
def test_a_redacted_order_still_decodes(type_):
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
    assert not tracking.fields_of(found)


def test_an_error_that_quotes_the_order_is_redacted():
    said = "IntegrityError: Failing row contains (Zoe Doe, 1 kettle)"
    found = left(
        encode(order_created(customer_details=CustomerDetails(name="Zoe Doe", email=ZOE.address))),
        "order.created",
        **{"x-reason": said, "x-reasons": [f"now {said}"]},
    )
    assert found.headers == {"x-reason": erased.TEXT, "x-reasons": [erased.TEXT]}


@pytest.mark.parametrize("template", ["order_received", "order_status", "order_cancelled"])
def test_a_fact_emailed_to_the_customer_is_dropped_and_others_stay(template):
    fact = FACTS[template]
    told = json.loads(encode(fact)) | {"customer_email": "Zoe@Shop.example"}
    assert left(json.dumps(told).encode(), fact.TYPE).body is None
    others = told | {"customer_email": "ada@shop.example", "item_summary": "for ZOE@shop.example"}
    kept = left(json.dumps(others).encode(), fact.TYPE).body
    assert json.loads(kept) == others | {"item_summary": f"for {erased.TEXT}"}
    assert left(json.dumps(others | {"item_summary": "x"}).encode(), fact.TYPE) is None


def test_messages_about_a_business_are_not_redacted():
    told = b'{"email": "zoe@shop.example"}'
    assert left(told, "account.verified") is None
    assert left(told, "kyc.decide") is None


def test_an_address_is_found_escaped_nested_and_in_invalid_json():
    escaped = b'{"note": ["z\\u006fe@shop.example"]}'
    assert json.loads(left(escaped, "order.status_changed").body) == {"note": [erased.TEXT]}
    assert left(b'{"x": "zoe@shop.example', "").body == b'{"x": "[erased]'
    assert left(b"\xff zoe@shop.example", "").body == b"\xff [erased]"


def test_addresses_in_failure_headers_are_redacted():
    said = "550 <zoe@shop.example>: no such user"
    found = left(b"{}", "order.created", **{"x-reason": said, "x-reasons": [said, "other"]})
    assert found.body == b"{}"
    gone = f"550 <{erased.TEXT}>: no such user"
    assert found.headers == {"x-reason": gone, "x-reasons": [gone, "other"]}


def test_a_refused_address_of_the_customer_loses_its_order_number():
    ids = [str(new_id()), str(new_id())]
    told = {"recipients": [{"address": "x", "order_id": id_, "order_number": "A-1"} for id_ in ids]}
    theirs = replace(ZOE, orders=frozenset({ids[0]}))
    incoming = RawDelivery(json.dumps(told).encode(), {"type": "order.recipients_refused"}, {}, "")
    cleared = redacted(incoming, "order.recipients_refused", theirs)
    kept = [one.get("order_number") for one in json.loads(cleared.body)["recipients"]]
    assert kept == [None, "A-1"]


NAMED = sorted(
    type_
    for type_, event in EVENT_TYPES.items()
    if type_.startswith("order.")
    and "order_id" in event.__struct_fields__
    and type_ not in EMAILED_FACTS
)


@pytest.mark.parametrize("type_", NAMED)
def test_messages_about_the_customers_order_lose_their_texts(type_):
    """They are found by the order's id, since few contain the customer's address."""
    order_id = new_id()
    words = dict.fromkeys(("note", "reason", "order_number", "carrier"), "ZADE")
    told = json.dumps({"order_id": str(order_id).upper(), **words}).encode()
    theirs = replace(ZOE, orders=frozenset({str(order_id)}))
    incoming = RawDelivery(told, {"type": type_}, {}, "")
    assert redacted(incoming, type_, ZOE) is None
    cleared = redacted(incoming, type_, theirs)
    assert b"ZADE" not in cleared.body
    assert redacted(msgspec.structs.replace(incoming, body=cleared.body), type_, theirs) is None
