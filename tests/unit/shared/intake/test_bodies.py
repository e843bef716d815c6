"""What a sender may write, and what becomes of it."""

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
from shared.intake.bodies import (
    MOST_WARNINGS,
    BodyError,
    left_out,
    read,
    read_with_warnings,
)

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


@pytest.mark.parametrize(
    ("stamp", "taken"),
    [
        ("2016-12-31T23:59:60Z", "2016-12-31T23:59:59+00:00"),
        ("2016-12-31 18:59:60.25-05:00", "2016-12-31T23:59:59.250000+00:00"),
    ],
)
def test_a_leap_second_is_the_one_before(stamp, taken):
    """RFC 3339, 5.7, has it; no library that we read with has."""
    said = {"order_id": str(new_id()), "tracking_status": "DELIVERED"}
    for body in ({"data": said}, said):
        _, message = event_of({"type": "order.status_changed", "timestamp": stamp} | body)
        assert message.time.isoformat() == taken
    assert moment(stamp).isoformat() == taken


@pytest.mark.parametrize("stamp", ["2016-12-31T23:60:00Z", "2016-12-31T23:59:61Z"])
def test_no_other_minute_has_more_seconds(stamp):
    said = {"order_id": str(new_id()), "tracking_status": "DELIVERED"}
    with pytest.raises(BodyError, match="timestamp"):
        event_of({"type": "order.status_changed", "timestamp": stamp, "data": said})
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
def test_the_top_level_alone_says_what_a_body_is(inside, beside):
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
def test_a_type_counts_however_its_name_is_written(body):
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
    ("said", "type_"),
    [
        ({"tracking_status": "IN_TRANSIT"}, "order.status_changed"),
        ({"note": "Left the depot."}, "order.status_changed"),
        ({"tracking_url": "https://track.example/1"}, "order.status_changed"),
        ({"tracking_status": "CANCELLED", "reason": "Gone."}, "order.status_changed"),
        ({"reason": "Out of stock."}, "order.cancelled"),
    ],
)
def test_an_update_without_its_type_is_told_what_it_lacks(name, said, type_):
    body = name | said
    first, *others = faults_of(body)
    assert first == f'This looks like an update: add `"type": "{type_}"`.'
    assert not any("customer_details" in fault for fault in others)
    if not others:
        named, _ = event_of({"type": type_, **body})
        assert isinstance(named, DATA_OF[type_])
    (_, second) = faults_of(name | {"tracking_status": "GONE"})
    assert second.startswith("$.tracking_status must be")


@pytest.mark.parametrize("name", ["event", "event_type", "topic"])
def test_a_type_under_another_name_is_told_so(name):
    for type_, said in (
        ("order.cancelled", {"order_number": "A-1", "reason": "Gone."}),
        ("order.status_changed", {"data": {"order_number": "A-1", "tracking_status": "DELIVERED"}}),
        ("order.cancelled", {"order_number": "A-1"}),
    ):
        body = {name: type_, **said}
        assert faults_of(body) == (f"`{name}` says which event it is: call that member `type`.",)
        event_of({"type": body.pop(name), **body})
    # An order that can be read is one, whatever else it has.
    order = ORDER | {name: "order.cancelled", "metadata": None}
    assert isinstance(event_of(order)[0], OrderCreated)


@pytest.mark.parametrize("wrapper", ["order", "data", "payload", "event", "order_data"])
@pytest.mark.parametrize("inner", [ORDER, {"order_number": "A-1", "tracking_status": "DELIVERED"}])
def test_an_order_inside_another_object_is_told_so(wrapper, inner):
    (fault,) = faults_of({"id": 7, wrapper: inner})
    assert fault.startswith(f"The order is inside `{wrapper}`: ")
    # As it was, what is at the top level is read.
    assert isinstance(event_of(ORDER | {wrapper: inner})[0], OrderCreated)


def test_what_happened_is_called_data_beside_a_type():
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
def test_what_is_left_out_though_it_may_have_been_meant_is_known(shaped):
    customer = {"name": "Zoë", "email": "zoe@shop.example", "phone_nr": "+234 800"}
    said = {"trackingnumber": "1Z", "customer_details": customer, "colour": "blue"}
    found = left_out(json.dumps(shaped(ORDER | said)).encode())
    assert sorted(f.partition(" is not read: was ")[0].rpartition(".")[2] for f in found) == [
        "phone_nr",
        "trackingnumber",
    ]
    assert left_out(json.dumps(shaped(ORDER | {"tracking_number": "1Z"})).encode()) == []


UPDATE = {"type": "order.status_changed", "order_number": "A-1", "tracking_status": "IN_TRANSIT"}
SHAPES = {
    "flat": (ORDER, lambda said: said, "$"),
    "typed": (ORDER, lambda said: {"type": "order.created", **said}, "$"),
    "type below": (ORDER, lambda said: said | {"metadata": {"type": "gift"}}, "$"),
    "mended": (ORDER, lambda said: said | {"carrier": None}, "$"),
    "in an envelope": (ORDER, lambda said: {"type": "order.created", "data": said}, "$.data"),
    "update": (UPDATE, lambda said: said | {"timestamp": "2026-11-24T10:00:00Z"}, "$"),
    "update in an envelope": (
        {name: value for name, value in UPDATE.items() if name != "type"},
        lambda said: {"type": UPDATE["type"], "timestamp": "2026-11-24T10:00:00Z", "data": said},
        "$.data",
    ),
}


def warned(body):
    _, message, warnings = read_with_warnings(json.dumps(body).encode(), ACCOUNT, 1.7e9, None)
    return message, list(warnings)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_member_that_is_hardly_meant_so_is_warned_of_and_changes_nothing(shape):
    plain, shaped, path = SHAPES[shape]
    said, warnings = warned(shaped(plain | {"tracking_nummber": "1Z", "colour": "blue"}))
    assert warnings == [f"{path}.tracking_nummber is not read: was {path}.tracking_number meant?"]
    bare, nothing = warned(shaped(plain | {"colour": "blue"}))
    same, least = warned(shaped(plain))
    assert nothing == least == []
    assert len({without_ids(each) for each in (said, bare, same)}) == 1


def without_ids(message):
    event = json.loads(message.body) | {"order_id": ""}
    return message.type, json.dumps(event), str(message.time)


def test_a_warning_looks_into_the_customer_too_and_a_flood_is_not_looked_at():
    customer = {"name": "Zoë", "email": "zoe@shop.example", "phne": "+234 800"}
    (warning,) = warned(ORDER | {"customer_details": customer})[1]
    assert warning.startswith("$.customer_details.phne is not read")
    letters = "abcdefghijklmnopqrstuvwxyz"
    many = {f"tracking_numbe{letter}": "1Z" for letter in letters[:9]}
    assert len(warned(ORDER | many)[1]) == MOST_WARNINGS
    assert warned(ORDER | {f"tracking_numbe{letter}": "1Z" for letter in letters})[1] == []
    # Names that are made of numbers are others in each body: nobody compares them each time.
    assert warned(ORDER | {"tracking_numbe7": "1Z"})[1] == []
    assert warned(ORDER | {"tracking_number" + "x" * 9_999: "1Z"})[1] == []


@pytest.mark.parametrize("details", [None, "Ann", [1], 5, True, {}, {"name": 7}])
@pytest.mark.parametrize("shape", ["update", "update in an envelope"])
def test_what_nobody_reads_refuses_nothing_whatever_it_is(shape, details):
    """An update has no customer; who posts a whole row with each may have any there."""
    plain, shaped, _ = SHAPES[shape]
    said, warnings = warned(shaped(plain | {"customer_details": details}))
    assert warnings == []
    assert without_ids(said) == without_ids(warned(shaped(plain))[0])


def test_a_name_that_is_no_utf_8_and_that_nobody_reads_refuses_nothing():
    body = json.dumps(ORDER).encode()[:-1] + b', "\xff": 1}'
    _, message, warnings = read_with_warnings(body, ACCOUNT, 1.7e9, None)
    assert without_ids(message) == without_ids(warned(ORDER)[0])
    assert warnings == ()


def test_an_order_that_lacks_something_is_told_what():
    lacking = {name: value for name, value in ORDER.items() if name != "address"}
    (fault,) = faults_of(lacking | {"order_number": "A-1001"})
    assert fault.startswith("$.address is missing")


def test_every_fault_is_named_at_once():
    with pytest.raises(BodyError) as refused:
        event_of({"type": "order.created", "timestamp": 1700000000, "data": {"address": ""}})
    assert [fault.split()[0] for fault in refused.value.faults] == [
        "$.timestamp",
        "$.data.customer_details.name",
        "$.data.customer_details.email",
        "$.data.item_summary",
        "$.data.address",
    ]


def test_what_was_mended_by_the_answer_is_taken_at_the_next_try():
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
    ("body", "left_out"),
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
def test_null_says_what_leaving_it_out_says(body, left_out):
    bare = {name: value for name, value in body.items() if name not in left_out}
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


def test_a_byte_order_mark_is_passed_over():
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
def test_another_encoding_is_told_where_it_shows(encoding, name, address):
    order = ORDER | {"customer_details": {"name": name, "email": "z@x.example"}}
    body = {"type": "order.created", "data": order | {"address": address}}
    raw = json.dumps(body, ensure_ascii=False).replace("×", "x").encode(encoding)
    with pytest.raises(
        BodyError, match=r"\$\.data\.customer_details\.name is not UTF-8"
    ) as refused:
        event_of(raw)
    assert {"latin-1": "ISO 8859-1", "cp1252": "Windows-1252"}[encoding] in str(refused.value)
