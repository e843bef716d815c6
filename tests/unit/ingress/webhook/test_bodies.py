"""What a sender may write, and what becomes of it."""

import contextlib
import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.ingress.webhook.bodies import BodyError, read
from shared.bus.contract.events import (
    OrderCancelled,
    OrderCreated,
    OrderStatusChanged,
    TrackingStatus,
    decode,
)
from shared.ids import new_id

ACCOUNT = new_id()
ORDER = {
    "customer_details": {"name": "Zoë Ade", "email": "zoe@shop.example", "phone": "+234"},
    "item_summary": "2 × blue kettle",
    "address": "12 Marina Road\nLagos",
    "tracking_status": "PENDING",
}


def event_of(body):
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    order_id, message = read(raw, ACCOUNT, None)
    event = decode(message.type, message.body)
    assert event.account_id == ACCOUNT
    assert event.order_id == order_id
    assert message.correlation_id == str(order_id)
    return event, message


@pytest.mark.parametrize(
    "body",
    [
        ORDER,
        {"type": "order.created", **ORDER},
        {"type": "order.created", "timestamp": "2026-01-02T03:04:05Z", "data": ORDER},
        {"data": ORDER, "type": "order.created"},
        {**ORDER, "unknown": {"kept": "out"}},
    ],
)
def test_an_order_in_every_shape(body):
    event, message = event_of(body)
    assert isinstance(event, OrderCreated)
    assert event.customer_details.name == "Zoë Ade"
    assert message.exchange == "intake"
    assert message.message_id == str(event.order_id)


def ids(body, key, account=ACCOUNT):
    order_id, message = read(json.dumps(body).encode(), account, None, key)
    return order_id, message.message_id


def test_a_key_makes_the_same_order_each_time_and_the_same_message_of_the_same_body():
    first = ids(ORDER, "order-7")
    assert ids(ORDER, "order-7") == first
    other_body = ids(ORDER | {"address": "elsewhere"}, "order-7")
    assert other_body[0] == first[0]
    assert other_body[1] != first[1]
    other_key, other_account = ids(ORDER, "order-8"), ids(ORDER, "order-7", new_id())
    assert len({first, other_key, other_account}) == 3
    assert len({x for pair in (first, other_key, other_account) for x in pair}) == 6
    assert ids(ORDER, None)[0] != ids(ORDER, None)[0]


def test_a_key_makes_one_message_of_an_update():
    update = {
        "type": "order.status_changed",
        "order_id": str(new_id()),
        "tracking_status": "DELIVERED",
    }
    first = ids(update, "update-1")
    assert ids(update, "update-1") == first
    assert ids(update | {"note": "At the door."}, "update-1")[1] != first[1]
    assert ids(update, "update-2")[1] != first[1]
    assert ids(update, None)[1] != ids(update, None)[1]


def test_the_status_may_be_left_out_and_written_with_a_space():
    event, _ = event_of({k: v for k, v in ORDER.items() if k != "tracking_status"})
    assert event.tracking_status is TrackingStatus.PENDING
    event, _ = event_of(ORDER | {"tracking_status": "IN TRANSIT"})
    assert event.tracking_status is TrackingStatus.IN_TRANSIT


def test_the_word_type_inside_the_text_is_no_type():
    event, _ = event_of(ORDER | {"item_summary": 'a "type" writer'})
    assert isinstance(event, OrderCreated)


def test_updates():
    order_id = str(new_id())
    event, message = event_of(
        {"type": "order.status_changed", "order_id": order_id, "tracking_status": "DELIVERED"}
    )
    assert isinstance(event, OrderStatusChanged)
    assert message.message_id != order_id
    event, _ = event_of(
        {"type": "order.cancelled", "data": {"order_id": order_id, "reason": "too late"}}
    )
    assert isinstance(event, OrderCancelled)
    assert event.reason == "too late"


def test_a_stamp_is_taken_unless_it_lies_in_the_future():
    then = datetime.now(UTC) - timedelta(hours=1)
    update = {"order_id": str(new_id()), "tracking_status": "DELIVERED"}
    shaped = {"type": "order.status_changed", "timestamp": then.isoformat(), "data": update}
    assert event_of(shaped)[1].time == then
    shaped["timestamp"] = (then + timedelta(days=1)).isoformat()
    assert event_of(shaped)[1].time <= datetime.now(UTC)


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"customer_details": None}, "customer_details"),
        ({"customer_details": {"name": "Z"}}, "email"),
        ({"customer_details": {"name": "Z", "email": "zoe"}}, "customer_details.email"),
        (
            {"customer_details": {"name": "Z\r\nBcc: all@x.example", "email": "z@x.example"}},
            "customer_details.name",
        ),
        (
            {"customer_details": {"name": "Z", "email": "z@x.example\n"}},
            "customer_details.email",
        ),
        ({"item_summary": ""}, "item_summary"),
        ({"item_summary": 5}, "item_summary"),
        ({"item_summary": "nul \x00"}, "item_summary"),
        ({"address": "x" * 4001}, "address"),
        ({"tracking_status": "LOST"}, "tracking_status"),
        ({"type": "order.exploded"}, "order.created, order.status_changed, order.cancelled"),
        ({"type": 5}, "type"),
        ({"type": "order.created", "timestamp": "yesterday"}, "timestamp"),
        ({"type": "order.created", "timestamp": "2026-01-01T00:00:00"}, "timestamp"),
        ({"type": "order.created", "data": [1]}, "object"),
        ({"type": "order.status_changed", "order_id": "7"}, "order_id"),
    ],
)
def test_a_bad_body_is_told_where_it_is_bad(changes, where):
    with pytest.raises(BodyError, match=where.replace(".", r"\.")):
        event_of(ORDER | changes)


@pytest.mark.parametrize(
    "raw",
    [b"", b" ", b"{", b"null", b"[]", b'"x"', b"\xff\xfe", b"\xef\xbb\xbf{}", b"[" * 100_000],
)
def test_what_is_no_order_at_all(raw):
    with pytest.raises(BodyError):
        event_of(raw)


@given(
    st.binary(max_size=300)
    | st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(
                st.sampled_from(
                    ["type", "data", "timestamp", "order_id", "tracking_status", *ORDER]
                ),
                inner,
                max_size=6,
            )
        ),
        max_leaves=12,
    ).map(lambda value: json.dumps(value).encode())
)
def test_anything_is_read_or_refused(raw):
    with contextlib.suppress(BodyError):
        event_of(raw)


@pytest.mark.parametrize("stamp", ["1969-12-31T23:59:59Z", "0001-01-01T00:00:00+23:59"])
def test_a_stamp_that_no_message_can_carry_is_refused(stamp):
    with pytest.raises(BodyError, match="before 1970"):
        event_of({"type": "order.created", "timestamp": stamp, "data": ORDER})


def test_a_stamp_of_any_offset_is_kept_in_utc():
    stamp = "2026-01-01T00:00:00-22:07"
    _, message = event_of({"type": "order.created", "timestamp": stamp, "data": ORDER})
    assert message.time.isoformat() == "2026-01-01T22:07:00+00:00"
