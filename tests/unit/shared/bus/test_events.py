import msgspec
import pytest

from shared.bus.contract.events import EVENT_TYPES, OrderCreated, TrackingStatus, decode, encode
from shared.bus.contract.message import message_for
from shared.ids import derived_id, new_id


def order(**changes):
    body = {
        "order_id": str(new_id()),
        "account_id": str(new_id()),
        "customer_details": {"name": "Zoë", "email": "zoe@example.com", "phone": "+234"},
        "item_summary": "2 kettles",
        "address": "12 Marina Road\nLagos",
        "tracking_status": "PENDING",
    }
    return body | changes


def test_a_body_survives_the_journey():
    event = decode("order.created", msgspec.json.encode(order()))
    assert isinstance(event, OrderCreated)
    assert decode("order.created", encode(event)) == event


@pytest.mark.parametrize(
    "spelling", ["IN_TRANSIT", "IN TRANSIT", "in transit", "In-Transit", " in_transit "]
)
def test_spellings_of_a_status(spelling):
    event = decode("order.created", msgspec.json.encode(order(tracking_status=spelling)))
    assert isinstance(event, OrderCreated)
    assert event.tracking_status is TrackingStatus.IN_TRANSIT


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"tracking_status": "LOST"}, "tracking_status"),
        ({"tracking_status": 3}, "tracking_status"),
        ({"customer_details": {"name": "Z", "email": "not an address"}}, "email"),
        ({"customer_details": {"name": "Z", "email": "a@b.example\r\nBcc: x@y.z"}}, "email"),
        ({"customer_details": {"name": "Z", "email": "a@b.example\n"}}, "email"),
        ({"customer_details": {"name": "Z\r\nBcc: x", "email": "a@b.example"}}, "name"),
        ({"customer_details": {"name": "Z\n", "email": "a@b.example"}}, "name"),
        ({"customer_details": {"name": "", "email": "a@b.example"}}, "name"),
        ({"customer_details": None}, "customer_details"),
        ({"item_summary": "nul \x00"}, "item_summary"),
        ({"item_summary": ""}, "item_summary"),
        ({"address": "x" * 4001}, "address"),
        ({"order_id": "7"}, "order_id"),
    ],
)
def test_a_wrong_member_is_refused_by_name(changes, where):
    with pytest.raises(msgspec.ValidationError, match=where):
        decode("order.created", msgspec.json.encode(order(**changes)))


def test_an_unknown_type_is_refused():
    with pytest.raises(msgspec.DecodeError, match="unknown message type"):
        decode("order.exploded", b"{}")


def test_a_body_nested_too_deep_is_a_decode_error():
    body = b'{"unknown":' + b"[" * 9_999 + b"]" * 9_999 + b"}"
    with pytest.raises(msgspec.DecodeError, match="nested too deep"):
        decode("order.created", body)


def test_every_type_names_its_exchange():
    assert {event.EXCHANGE for event in EVENT_TYPES.values()} == {"intake", "commands", "events"}
    assert all(type_ == event.TYPE for type_, event in EVENT_TYPES.items())


def test_a_message_is_a_cloud_event():
    event = decode("order.created", msgspec.json.encode(order()))
    message = message_for(event, source="services.ingress", correlation_id="o")
    headers = message.headers()
    assert headers["ce-specversion"] == "1.0"
    assert headers["ce-id"] == message.message_id
    assert (headers["ce-type"], headers["ce-source"]) == ("order.created", "services.ingress")
    assert "traceparent" not in headers


def test_derived_ids_are_stable_and_apart():
    assert derived_id("a", "b") == derived_id("a", "b")
    assert derived_id("a", "b") != derived_id("ab")
    assert derived_id("a", "b") != derived_id("b", "a")
