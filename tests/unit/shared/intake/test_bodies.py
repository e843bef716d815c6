"""Bodies of order webhooks, and the resulting messages."""

import contextlib
import json
import time
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.ingress.platforms.platform import moment
from shared.bus.contract.events import (
    OrderCancelled,
    OrderCreated,
    OrderStatusChanged,
    TrackingStatus,
    decode,
)
from shared.ids import new_id
from shared.intake.bodies import BODIES, BodyError, read, read_with_warnings
from shared.intake.unread_members import MOST_WARNINGS, of_body

ACCOUNT = new_id()
DATA_OF = {event.TYPE: event for event in (OrderStatusChanged, OrderCancelled)}
ORDER = {
    "customer_details": {"name": "Zoë Ade", "email": "zoe@shop.example", "phone": "+234"},
    "item_summary": "2 × blue kettle",
    "address": "12 Marina Road\nLagos",
    "tracking_status": "PENDING",
}


def event_of(body):
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    order_id, message = read(raw, ACCOUNT, time.time(), None)
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
    order_id, message = read(json.dumps(body).encode(), account, time.time(), None, key)
    return order_id, message.message_id


def test_a_key_determines_the_order_and_with_the_body_the_message():
    first = ids(ORDER, "order-7")
    assert ids(ORDER, "order-7") == first
    other_body = ids(ORDER | {"address": "elsewhere"}, "order-7")
    assert other_body[0] == first[0]
    assert other_body[1] != first[1]
    other_key, other_account = ids(ORDER, "order-8"), ids(ORDER, "order-7", new_id())
    assert len({first, other_key, other_account}) == 3
    assert len({x for pair in (first, other_key, other_account) for x in pair}) == 6
    assert ids(ORDER, None)[0] != ids(ORDER, None)[0]


def test_a_key_and_the_body_determine_the_message_of_an_update():
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


def test_the_word_type_in_a_text_is_ignored():
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


def test_a_timestamp_in_the_future_is_replaced_by_now():
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
            {"customer_details": {"name": "Z", "email": "z@x.example\nBcc: all@x.example"}},
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
def test_faults_name_their_path(changes, where):
    with pytest.raises(BodyError, match=where.replace(".", r"\.")):
        event_of(ORDER | changes)


@pytest.mark.parametrize(
    "raw",
    [b"", b" ", b"{", b"null", b"[]", b'"x"', b"\xff\xfe", b"\xef\xbb\xbf{}", b"[" * 100_000],
)
def test_other_bodies_are_refused(raw):
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
def test_an_unrepresentable_timestamp_is_refused(stamp):
    with pytest.raises(BodyError, match="before 1970"):
        event_of({"type": "order.created", "timestamp": stamp, "data": ORDER})


def test_a_timestamp_is_converted_to_utc():
    stamp = "2026-01-01T00:00:00-22:07"
    _, message = event_of({"type": "order.created", "timestamp": stamp, "data": ORDER})
    assert message.time.isoformat() == "2026-01-01T22:07:00+00:00"


@pytest.mark.parametrize(
    ("stamp", "taken"),
    [
        ("2016-12-31T23:59:60Z", "2016-12-31T23:59:59+00:00"),
        ("2016-12-31 18:59:60.25-05:00", "2016-12-31T23:59:59.250000+00:00"),
    ],
)
def test_a_leap_second_is_replaced_by_the_second_before(stamp, taken):
    """RFC 3339, 5.7, allows it; our parsers do not."""
    sent = {"order_id": str(new_id()), "tracking_status": "DELIVERED"}
    for body in ({"data": sent}, sent):
        _, message = event_of({"type": "order.status_changed", "timestamp": stamp} | body)
        assert message.time.isoformat() == taken
    assert moment(stamp).isoformat() == taken


@pytest.mark.parametrize(
    ("stamp", "taken"),
    [
        ("2026-11-24T10:00Z", "2026-11-24T10:00:00+00:00"),  # Java, OffsetDateTime.toString()
        ("2026-11-24T10:00+01:00", "2026-11-24T09:00:00+00:00"),
        ("2026-11-24 10:00:00+00", "2026-11-24T10:00:00+00:00"),  # PostgreSQL, timestamptz
        ("2026-11-24 10:00:00.5-0330", "2026-11-24T13:30:00.500000+00:00"),
        ("2026-11-24T10:00:00,123Z", "2026-11-24T10:00:00.123000+00:00"),  # ISO 8601
    ],
)
def test_unambiguous_forms_of_a_time_are_accepted(stamp, taken):
    """Java omits zero seconds, so one update in sixty was refused."""
    sent = {"order_id": str(new_id()), "tracking_status": "DELIVERED"}
    for body in ({"data": sent}, sent):
        _, message = event_of({"type": "order.status_changed", "timestamp": stamp} | body)
        assert message.time.isoformat() == taken


def test_an_empty_timestamp_counts_as_missing():
    sent = {"order_id": str(new_id()), "tracking_status": "DELIVERED"}
    event_of({"type": "order.status_changed", "timestamp": "", "data": sent})


@pytest.mark.parametrize(
    "stamp", ["2026-11-24T10:00:00", "2026-11-24T10:00", "2026-11-24 10:00:00.5"]
)
def test_a_time_without_a_zone_is_refused(stamp):
    sent = {"order_id": str(new_id()), "tracking_status": "DELIVERED", "timestamp": stamp}
    with pytest.raises(BodyError, match=r"\$\.timestamp must be a time .* has no zone"):
        event_of({"type": "order.status_changed"} | sent)


@pytest.mark.parametrize("stamp", ["2026-11-24T10Z", "2026-11-24T10:00.5Z"])
def test_a_time_without_minutes_is_refused(stamp):
    sent = {"order_id": str(new_id()), "tracking_status": "DELIVERED"}
    with pytest.raises(BodyError, match="timestamp must be a time with a zone"):
        event_of({"type": "order.status_changed", "timestamp": stamp, "data": sent})


@pytest.mark.parametrize("stamp", ["2016-12-31T23:60:00Z", "2016-12-31T23:59:61Z"])
def test_no_other_minute_has_more_seconds(stamp):
    sent = {"order_id": str(new_id()), "tracking_status": "DELIVERED"}
    with pytest.raises(BodyError, match="timestamp"):
        event_of({"type": "order.status_changed", "timestamp": stamp, "data": sent})
    assert moment(stamp) is None


@pytest.mark.parametrize("inside", [{"type": "gift"}, {"lines": [{"type": "order.cancelled"}]}])
@pytest.mark.parametrize(
    "beside",
    [
        {"timestamp": 1700000000},
        {"timestamp": "yesterday"},
        {"timestamp": "1960-01-01T00:00:00Z"},
        {"data": {"anything": 1}},
        {"data": 5},
        {"type": None},
    ],
)
def test_only_a_type_at_the_top_level_counts(inside, beside):
    plain, _ = event_of(ORDER | beside)
    nested, message = event_of(ORDER | beside | {"lines": inside})
    assert isinstance(nested, OrderCreated)
    assert nested.customer_details == plain.customer_details
    assert datetime.now(UTC) - message.time < timedelta(minutes=1)


def escaped(name):
    return "".join(f"\\u{ord(letter):04x}" for letter in name)


@pytest.mark.parametrize(
    "body",
    [
        {"type": "order.cancelled", "order_id": str(new_id())},
        {"type": "order.cancelled", "order_id": str(new_id()), **ORDER},
        {"type": "order.created", "data": ORDER},
        {"type": "order.exploded", **ORDER},
        {"type": 5, **ORDER},
    ],
)
def test_a_type_with_escapes_in_its_name_counts(body):
    """JSON may write any character of a name as an escape (RFC 8259, 7)."""
    plain = json.dumps(body).encode()
    other = plain.replace(b'"type"', f'"{escaped("type")}"'.encode())
    assert plain != other
    assert outcome(other) == outcome(plain)


def outcome(raw):
    try:
        return type(event_of(raw)[0])
    except BodyError as error:
        return error.faults


def faults_of(body):
    with pytest.raises(BodyError) as refused:
        event_of(body)
    return refused.value.faults


@pytest.mark.parametrize("name", [{"order_id": str(new_id())}, {"order_number": "A-1001"}])
@pytest.mark.parametrize(
    ("sent", "type_"),
    [
        ({"tracking_status": "IN_TRANSIT"}, "order.status_changed"),
        ({"note": "Left the depot."}, "order.status_changed"),
        ({"tracking_url": "https://track.example/1"}, "order.status_changed"),
        ({"tracking_status": "CANCELLED", "reason": "Gone."}, "order.status_changed"),
        ({"reason": "Out of stock."}, "order.cancelled"),
    ],
)
def test_an_update_without_a_type_is_recognised(name, sent, type_):
    body = name | sent
    first, *others = faults_of(body)
    assert first == f'This looks like an update: add `"type": "{type_}"`.'
    assert not any("customer_details" in fault for fault in others)
    if not others:
        named, _ = event_of({"type": type_, **body})
        assert isinstance(named, DATA_OF[type_])
    (_, second) = faults_of(name | {"tracking_status": "GONE"})
    assert second.startswith("$.tracking_status must be")


@pytest.mark.parametrize("name", ["event", "event_type", "topic"])
def test_a_type_under_another_name_is_recognised(name):
    for type_, sent in (
        ("order.cancelled", {"order_number": "A-1", "reason": "Gone."}),
        ("order.status_changed", {"data": {"order_number": "A-1", "tracking_status": "DELIVERED"}}),
        ("order.cancelled", {"order_number": "A-1"}),
    ):
        body = {name: type_, **sent}
        assert faults_of(body) == (f"`{name}` says which event it is: call that member `type`.",)
        event_of({"type": body.pop(name), **body})
    # A valid order is accepted, whatever else it has.
    order = ORDER | {name: "order.cancelled", "metadata": None}
    assert isinstance(event_of(order)[0], OrderCreated)


@pytest.mark.parametrize("wrapper", ["order", "data", "payload", "event", "order_data"])
@pytest.mark.parametrize("inner", [ORDER, {"order_number": "A-1", "tracking_status": "DELIVERED"}])
def test_a_wrapped_order_is_recognised(wrapper, inner):
    (fault,) = faults_of({"id": 7, wrapper: inner})
    assert fault.startswith(f"The order is inside `{wrapper}`: ")
    # The top level is read.
    assert isinstance(event_of(ORDER | {wrapper: inner})[0], OrderCreated)


@pytest.mark.parametrize(
    ("word", "sent", "meant"),
    [
        ("order.create", ORDER, "order.created"),
        ("ORDER_CREATED", ORDER, "order.created"),
        ("created", ORDER, "order.created"),
        (5, ORDER, "order.created"),
        (5, {"order_id": str(new_id()), "tracking_status": "GONE"}, "order.status_changed"),
        ("order.updated", ORDER | {"order_number": "A-1"}, "order.status_changed"),
        ("order.shipped", {"order_number": "A-1", "note": "x"}, "order.status_changed"),
        ("order.canceled", {"order_number": "A-1"}, "order.cancelled"),
        ("cancellation", {"order_number": "A-1"}, "order.cancelled"),
    ],
)
def test_further_faults_are_reported_with_an_unknown_type(word, sent, meant):
    for wrong in ({"order_number": 1.5}, {"order_number": None, "tracking_status": "GONE"}):
        whole = sent | wrong
        lacking = {name: value for name, value in whole.items() if value is not None}
        others = outcome(json.dumps({"type": meant} | lacking).encode())
        if not isinstance(others, tuple):
            continue
        first, *found = faults_of({"type": word} | lacking)
        assert first.startswith("$.type must be ")
        assert first.endswith(f" Was {meant} meant?")
        assert tuple(found) == others


def test_further_faults_are_reported_of_a_wrapped_order():
    order, update = ORDER | {"address": ""}, {"order_number": "A-1", "tracking_status": "GONE"}
    for body, start in (
        ({"order": order}, "$.order.address"),
        ({"order": update}, "$.order.tracking_status"),
        ({"type": "order.created", "payload": order}, "$.payload.address"),
        ({"event": "order.status_changed"} | update, "$.tracking_status"),
        ({"event": "order.status_changed", "data": update}, "$.data.tracking_status"),
        ({"event": "order.cancelled", "reason": "Gone."}, "The order is not named"),
    ):
        (_, second) = faults_of(body)
        assert second.startswith(start)


def test_a_wrapper_beside_a_type_must_be_called_data():
    for type_, inner in (
        ("order.created", ORDER),
        ("order.cancelled", {"order_number": "A-1", "reason": "Gone."}),
    ):
        (fault,) = faults_of({"type": type_, "order": inner})
        assert fault == "What happened is inside `order`: call that member `data`."
    assert isinstance(event_of({"type": "order.created", "data": ORDER})[0], OrderCreated)


@pytest.mark.parametrize(
    "shaped", [lambda data: data, lambda data: {"type": "order.created", "data": data}]
)
def test_unread_members_are_found(shaped):
    customer = {"name": "Zoë", "email": "zoe@shop.example", "phone_nr": "+234 800"}
    sent = {"trackingnumber": "1Z", "customer_details": customer, "colour": "blue"}
    found = warned(shaped(ORDER | sent))[1]
    assert sorted(f.partition(" is not read: was ")[0].rpartition(".")[2] for f in found) == [
        "phone_nr",
        "trackingnumber",
    ]
    assert warned(shaped(ORDER | {"tracking_number": "1Z"}))[1] == []


@pytest.mark.parametrize(
    "shaped", [lambda data: data, lambda data: {"type": "order.created", "data": data}]
)
def test_the_test_endpoint_finds_all_unread_members_of_a_large_body(shaped):
    """The limits of a 201's warnings are for its cost."""
    many = {f"shop_member_{n}": "x" for n in range(35)}
    sent = shaped(ORDER | {"tracking_nummber": "1Z", "order_number2": "A-1"} | many)
    found = of_body(json.dumps(sent).encode())
    assert [f.partition(" is not read: was ")[0].rpartition(".")[2] for f in found] == [
        "tracking_nummber",
        "order_number2",
    ]
    assert warned(sent)[1] == []


@pytest.mark.parametrize("unread", [b'"x": "\xff"', b'"\xff": 1', b'"x": 1e999'])
def test_an_invalid_unread_member_leaves_a_valid_body_without_warnings(unread):
    body = json.dumps(ORDER).encode()[:-1] + b", " + unread + b"}"
    assert read(body, ACCOUNT, 1.7e9, None)
    assert of_body(body) == []


UPDATE = {"type": "order.status_changed", "order_number": "A-1", "tracking_status": "IN_TRANSIT"}
SHAPES = {
    "flat": (ORDER, lambda sent: sent, "$"),
    "typed": (ORDER, lambda sent: {"type": "order.created", **sent}, "$"),
    "type below": (ORDER, lambda sent: sent | {"metadata": {"type": "gift"}}, "$"),
    "mended": (ORDER, lambda sent: sent | {"carrier": None}, "$"),
    "in an envelope": (ORDER, lambda sent: {"type": "order.created", "data": sent}, "$.data"),
    "update": (UPDATE, lambda sent: sent | {"timestamp": "2026-11-24T10:00:00Z"}, "$"),
    "update in an envelope": (
        {name: value for name, value in UPDATE.items() if name != "type"},
        lambda sent: {"type": UPDATE["type"], "timestamp": "2026-11-24T10:00:00Z", "data": sent},
        "$.data",
    ),
}


def warned(body):
    _, message, warnings = read_with_warnings(json.dumps(body).encode(), ACCOUNT, 1.7e9, None)
    return message, list(warnings)


@pytest.mark.parametrize("shape", SHAPES)
def test_an_unread_member_causes_a_warning_only(shape):
    plain, shaped, path = SHAPES[shape]
    sent, warnings = warned(shaped(plain | {"tracking_nummber": "1Z", "colour": "blue"}))
    assert warnings == [f"{path}.tracking_nummber is not read: was {path}.tracking_number meant?"]
    bare, nothing = warned(shaped(plain | {"colour": "blue"}))
    same, least = warned(shaped(plain))
    assert nothing == least == []
    assert len({without_ids(each) for each in (sent, bare, same)}) == 1


OWN_IDS = ("order_id", "orderId", "OrderID", "id", "external_id")
OWN_NUMBERS = ("number", "reference", "order_ref", "orderRef")


@pytest.mark.parametrize("name", OWN_IDS)
@pytest.mark.parametrize("shape", ["flat", "typed", "type below", "mended", "in an envelope"])
def test_an_id_of_a_new_order_causes_a_warning(name, shape):
    plain, shaped, path = SHAPES[shape]
    (warning,) = warned(shaped(plain | {name: "A-1001"}))[1]
    assert warning == (
        f"{path}.{name} is not read: the id of a new order is ours. Your own number of it goes "
        f"into {path}.order_number."
    )
    assert warned(shaped(plain | {name: "A-1001"}))[1] == [warning]
    assert warned(shaped(plain | {name: "A-1001", "order_number": "A-1001"}))[1] == []
    (fault,) = faults_of(UPDATE | {"order_number": None, "order_id": "A-1001"})
    assert fault == (
        "$.order_id must be a UUID (your own number of an order goes into `order_number`), and is "
        "'A-1001'."
    )


@pytest.mark.parametrize("name", OWN_NUMBERS)
@pytest.mark.parametrize("shape", ["flat", "typed", "type below", "mended", "in an envelope"])
def test_a_reference_of_a_new_order_causes_a_warning(name, shape):
    """Without a fault about ids."""
    plain, shaped, path = SHAPES[shape]
    sent = shaped(plain | {name: "A-1001"})
    warning = f"{path}.{name} is not read: was {path}.order_number meant?"
    assert warned(sent)[1] == [warning]
    assert warned(shaped(plain | {name: "A-1001", "order_number": "A-1001"}))[1] == []


@pytest.mark.parametrize(
    "beside",
    [
        {"state": "CA", "city": "Fresno", "zip": "93650"},
        {"state": "CA", "postalCode": "93650"},
        {"state": "CA", "country": "US"},
        {"url": "https://shop.example/orders/1"},
        {"link": "https://shop.example/orders/1"},
    ],
)
def test_a_state_of_an_address_and_an_order_page_cause_no_warning(beside):
    sent = {name: value for name, value in ORDER.items() if name != "tracking_status"}
    assert warned(sent | beside)[1] == []


@pytest.mark.parametrize(
    ("type_", "named", "meant"),
    [
        ("order.cancelled", "note", "reason"),
        ("order.status_changed", "reason", "note"),
        ("order.status_changed", "tracking_no", "tracking_number"),
        ("order.created", "orderNo", "order_number"),
        ("order.created", "order_nr", "order_number"),
        ("order.created", "order_code", "order_number"),
        ("order.created", "status", "tracking_status"),
        ("order.created", "state", "tracking_status"),
        ("order.created", "Order-Status", "tracking_status"),
        ("order.cancelled", "cancel_reason", "reason"),
        ("order.cancelled", "cancellationReason", "reason"),
        ("order.status_changed", "url", "tracking_url"),
        *(
            (type_, name, meant)
            for type_ in ("order.created", "order.status_changed")
            for name, meant in (
                ("tracking", "tracking_number"),
                ("tracking_code", "tracking_number"),
                ("trackingCode", "tracking_number"),
                ("tracking_link", "tracking_url"),
                ("courier", "carrier"),
                ("shipping_carrier", "carrier"),
                ("delivery_date", "estimated_delivery"),
                ("eta", "estimated_delivery"),
            )
        ),
    ],
)
def test_other_names_of_a_field_cause_a_warning(type_, named, meant):
    sent = ORDER if type_ == "order.created" else UPDATE
    sent = {name: sent[name] for name in sent if name not in ("type", "order_number", meant)}
    sent |= {} if type_ == "order.created" else {"order_id": str(new_id())}
    for body, path in (
        ({"type": type_} | sent | {named: "x"}, "$"),
        ({"type": type_, "data": sent | {named: "x"}}, "$.data"),
    ):
        assert warned(body)[1] == [f"{path}.{named} is not read: was {path}.{meant} meant?"]
        assert not any(named in one for one in warned(with_(body, meant))[1])


def with_(body, member):
    """Return the body with the missing member added."""
    parcel = {"tracking_status": "PENDING", "tracking_url": "https://dhl.example/1"}
    sent = {member: parcel.get(member, "2026-12-03")}
    return body | ({"data": body["data"] | sent} if "data" in body else sent)


@pytest.mark.parametrize(
    "name",
    ["payment_status", "discount_code", "zip_code", "invoice_number", "image_link", "city", "total",
     "currency", "internal_note", "delivery", "status_page", "country_code", "weight"],
)  # fmt: skip
def test_a_shops_own_members_cause_no_warning(name):
    for sent in (ORDER, UPDATE):
        assert warned({n: v for n, v in sent.items() if n != "tracking_status" or sent is UPDATE}
                      | {name: "x", "order_number": "A-1"})[1] == []  # fmt: skip


def test_possible_parts_of_a_missing_field_are_named():
    for names, hint in (
        (("first_name", "last_name"), "`first_name` and `last_name` are there: was one of them"),
        (("firstName", "lastName"), "`firstName` and `lastName` are there: was one of them"),
        (("full_name",), "`full_name` is there: was it meant?"),
        (("company",), "it must be"),
    ):
        customer = dict.fromkeys(names, "Zoë") | {"email": "zoe@shop.example"}
        (fault,) = faults_of(ORDER | {"customer_details": customer})
        assert fault.startswith("$.customer_details.name is missing")
        assert hint in fault
        assert fault.count("`") == (0 if hint == "it must be" else 2 * len(names))


def test_a_missing_field_may_be_named_by_its_last_word():
    body = {"type": "order.status_changed", "number": "A-1", "status": "DELIVERED"}
    assert [fault.partition("` is there")[0][-8:] for fault in faults_of(body)] == [
        " `number",
        " `status",
    ]


@given(
    st.sampled_from(sorted(BODIES)),
    st.sampled_from(
        sorted(
            {"account_id", "former", "made_at", "data"}.union(
                *(body.__struct_fields__ for body in BODIES.values())
            )
        )
    ),
    st.integers(0, 30),
    st.booleans(),
)
def test_warnings_name_readable_fields_only(type_, name, at, is_flat):
    """Following a warning removes it, and the member is then read."""
    sent = ORDER if type_ == "order.created" else UPDATE | {"note": "x"}
    sent = {name: value for name, value in sent.items() if name != "type"}
    slip = name[: at % len(name)] + "-" + name[at % len(name) :]
    given = sent | {slip: "x"}
    path, body = ("$", {"type": type_} | given) if is_flat else ("$.data", {"data": given})
    for warning in warned({"type": type_} | body)[1]:
        meant = warning.rpartition(f"{path}.")[2].removesuffix(" meant?").removesuffix(".")
        members = set(BODIES[type_].__struct_fields__)
        assert meant in (members if is_flat else members - {"type", "timestamp"})


def without_ids(message):
    event = json.loads(message.body) | {"order_id": ""}
    return message.type, json.dumps(event), str(message.time)


def test_the_customer_is_checked_and_large_bodies_are_not():
    customer = {"name": "Zoë", "email": "zoe@shop.example", "phne": "+234 800"}
    (warning,) = warned(ORDER | {"customer_details": customer})[1]
    assert warning.startswith("$.customer_details.phne is not read")
    letters = "abcdefghijklmnopqrstuvwxyz"
    many = {f"tracking_numbe{letter}": "1Z" for letter in letters[:9]}
    assert len(warned(ORDER | many)[1]) == MOST_WARNINGS
    assert warned(ORDER | {f"tracking_numbe{letter}": "1Z" for letter in letters})[1] == []
    # Names with digits differ by body, so they are not compared.
    assert warned(ORDER | {"tracking_numbe7": "1Z"})[1] == []
    assert warned(ORDER | {"tracking_number" + "x" * 9_999: "1Z"})[1] == []


@pytest.mark.parametrize("details", [None, "Ann", [1], 5, True, {}, {"name": 7}])
@pytest.mark.parametrize("shape", ["update", "update in an envelope"])
def test_unread_members_never_refuse_a_body(shape, details):
    """An update has no customer; some senders include one anyway."""
    plain, shaped, _ = SHAPES[shape]
    sent, warnings = warned(shaped(plain | {"customer_details": details}))
    assert warnings == []
    assert without_ids(sent) == without_ids(warned(shaped(plain))[0])


def test_an_unread_name_that_is_not_utf_8_does_not_refuse_a_body():
    body = json.dumps(ORDER).encode()[:-1] + b', "\xff": 1}'
    _, message, warnings = read_with_warnings(body, ACCOUNT, 1.7e9, None)
    assert without_ids(message) == without_ids(warned(ORDER)[0])
    assert warnings == ()


def test_missing_fields_are_named():
    lacking = {name: value for name, value in ORDER.items() if name != "address"}
    (fault,) = faults_of(lacking | {"order_number": "A-1001"})
    assert fault.startswith("$.address is missing")


def test_all_faults_are_reported_together():
    with pytest.raises(BodyError) as refused:
        event_of({"type": "order.created", "timestamp": 1700000000, "data": {"address": ""}})
    assert [fault.split()[0] for fault in refused.value.faults] == [
        "$.timestamp",
        "$.data.customer_details.name",
        "$.data.customer_details.email",
        "$.data.item_summary",
        "$.data.address",
    ]


def test_a_body_corrected_by_the_response_is_accepted():
    with pytest.raises(BodyError) as refused:
        event_of({})
    body = {}
    for fault in refused.value.faults:
        *inside, name = fault.split()[0].removeprefix("$.").split(".")
        where = body
        for part in inside:
            where = where.setdefault(part, {})
        where[name] = "zoe@shop.example"
    assert isinstance(event_of(body)[0], OrderCreated)


@pytest.mark.parametrize(
    ("body", "nulls"),
    [
        (ORDER | {"tracking_status": None}, ["tracking_status"]),
        (ORDER | {"type": None, "timestamp": None, "data": None}, ["type", "timestamp", "data"]),
        (
            {"type": "order.created", "timestamp": None, "data": ORDER},
            ["timestamp"],
        ),
        ({"type": "order.created", "data": None, **ORDER}, ["data"]),
        (
            {
                "type": "order.status_changed",
                "order_id": "01a20999-db46-7249-a750-ddf0d0dd540c",
                "tracking_status": "DELIVERED",
                "note": None,
            },
            ["note"],
        ),
        (
            {
                "type": "order.cancelled",
                "order_id": "01a20999-db46-7249-a750-ddf0d0dd540c",
                "reason": None,
            },
            ["reason"],
        ),
    ],
)
def test_null_counts_as_missing(body, nulls):
    bare = {name: value for name, value in body.items() if name not in nulls}
    (null, _), (without, _) = read_event(body), read_event(bare)
    assert null == without


def read_event(body):
    _, message = read(json.dumps(body).encode(), ACCOUNT, time.time(), None, "one-key")
    return decode(message.type, message.body), message


def test_a_null_within_the_customer():
    event, _ = event_of(ORDER | {"customer_details": ORDER["customer_details"] | {"phone": None}})
    assert event.customer_details.phone == ""


@pytest.mark.parametrize(
    ("given", "mailed"),
    [
        (" zoe@shop.example\n", "zoe@shop.example"),
        ("zoe@münchen.example", "zoe@xn--mnchen-3ya.example"),
        ("zoe@MÜNCHEN.example", "zoe@xn--mnchen-3ya.example"),
        ("\tzoe@bücher.faß.example ", "zoe@xn--bcher-kva.xn--fa-hia.example"),
        ("zoe@例え。テスト", "zoe@xn--r8jz45g.xn--zckzah"),
    ],
)
def test_an_address_is_trimmed_and_its_domain_is_written_in_ascii(given, mailed):
    event, _ = event_of(ORDER | {"customer_details": {"name": "Zoë", "email": given}})
    assert event.customer_details.email == mailed


def test_a_byte_order_mark_is_ignored():
    event, _ = event_of(b"\xef\xbb\xbf" + json.dumps(ORDER).encode())
    assert event.item_summary == ORDER["item_summary"]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le"])
def test_another_unicode_encoding_is_named(encoding):
    with pytest.raises(BodyError, match=encoding[:6].upper()):
        event_of(json.dumps(ORDER).encode(encoding))


@pytest.mark.parametrize(
    ("encoding", "name", "address"),
    [("latin-1", "Zoë Ade", "5 Main Road"), ("cp1252", "Zoë “Z” Ade", "5 € Road")],
)
def test_another_encoding_is_reported_with_its_path(encoding, name, address):
    order = ORDER | {"customer_details": {"name": name, "email": "z@x.example"}}
    body = {"type": "order.created", "data": order | {"address": address}}
    raw = json.dumps(body, ensure_ascii=False).replace("×", "x").encode(encoding)
    with pytest.raises(
        BodyError, match=r"\$\.data\.customer_details\.name is not UTF-8"
    ) as refused:
        event_of(raw)
    assert {"latin-1": "ISO 8859-1", "cp1252": "Windows-1252"}[encoding] in str(refused.value)
