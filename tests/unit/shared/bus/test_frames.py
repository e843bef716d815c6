"""What is read of a delivery at one go is what py-amqp reads of it, or it is left to py-amqp."""

import struct
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import amqp
import pytest
from amqp import abstract_channel
from amqp.method_framing import frame_handler
from amqp.serialization import dumps
from hypothesis import given
from hypothesis import strategies as st

from shared.bus.broker import decoding
from shared.bus.consume.receiving import frames
from shared.bus.contract.message import Message
from shared.bus.publish.framing import publish_frames
from shared.ids import new_id
from tests.integration.bus.strangers import strangers

METHOD, HEADER, BODY = 1, 2, 3
DELIVER, GET_OK = (60, 60), (60, 71)


@pytest.fixture(autouse=True, scope="module")
def as_in_a_service():
    decoding.install()


def frame(kind: int, payload: bytes, channel: int = 1) -> bytes:
    return struct.pack(">BHI", kind, channel, len(payload)) + payload + b"\xce"


def content(method: bytes, message: amqp.basic_message.Message, pieces: int = 1) -> bytes:
    """The frames of a message, whose body comes in so many pieces."""
    body = message.body
    header = struct.pack(">HHQ", 60, 0, len(body)) + message._serialize_properties()
    size = -(-len(body) // pieces) or 1
    parts = [body[at : at + size] for at in range(0, len(body), size)]
    return frame(METHOD, method) + frame(HEADER, header) + b"".join(frame(BODY, p) for p in parts)


def deliver(tag: int, exchange: str, key: str, *, is_redelivered: bool = False) -> bytes:
    arguments = dumps("sLbss", ["orders.intake 128", tag, is_redelivered, exchange, key])
    return struct.pack(">HH", *DELIVER) + arguments


def by_py_amqp(raw: bytes) -> list[tuple[dict[str, Any], dict[str, Any], bytes]]:
    """What py-amqp makes of frames; it raises what it raises."""
    found = []

    def take(channel, method, payload, message):
        names = ("consumer_tag", "delivery_tag", "redelivered", "exchange", "routing_key")
        arguments, _ = abstract_channel.loads("sLbss", payload, 4)
        found.append((dict(zip(names, arguments, strict=True)), message.properties, message.body))

    handle = frame_handler(SimpleNamespace(bytes_recv=0), take)
    at = 0
    while at < len(raw):
        kind, channel, size = struct.unpack_from(">BHI", raw, at)
        handle((kind, channel, raw[at + 7 : at + 7 + size]))
        at += size + 8
    return found


SHORT = st.text(max_size=40) | st.text("abc.-_", max_size=200)
VALUES = st.recursive(
    st.text(max_size=60)
    | st.integers(-(2**31), 2**31 - 1)
    | st.booleans()
    | st.binary(max_size=20)
    | st.floats(allow_nan=False)
    | st.just(Decimal("1.5"))
    | st.just(datetime(2026, 11, 29, tzinfo=UTC).replace(tzinfo=None))
    | st.none(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(SHORT, inner, max_size=3),
    max_leaves=6,
)
ORDINARY = {
    "content_type": SHORT,
    "content_encoding": SHORT,
    "application_headers": st.dictionaries(SHORT, VALUES, max_size=6),
    "delivery_mode": st.integers(0, 255),
    "correlation_id": SHORT,
    "message_id": SHORT,
    "timestamp": st.integers(0, 2**33),
    "type": SHORT,
    "user_id": SHORT,
}
RARE = {
    "priority": st.integers(0, 255),
    "reply_to": SHORT,
    "expiration": SHORT,
    "app_id": SHORT,
}
MESSAGES = st.builds(
    lambda body, properties: amqp.basic_message.Message(body, **properties),
    st.binary(max_size=300),
    st.fixed_dictionaries({}, optional=ORDINARY | RARE),
)


@given(MESSAGES, SHORT, SHORT, st.integers(0, 2**63), st.booleans(), st.integers(1, 3))
def test_it_is_read_as_py_amqp_reads_it_or_not_at_all(
    message, exchange, key, tag, is_redelivered, pieces
):
    method = deliver(tag, exchange, key, is_redelivered=is_redelivered)
    raw = content(method, message, pieces)
    found = frames.delivery(b"before" + raw + b"after", 6)
    if found is not None:
        channel, read, end = found
        [(info, properties, body)] = by_py_amqp(raw)
        assert (channel, end) == (1, 6 + len(raw))
        assert (read.delivery_info, read.properties, read.body) == (info, properties, body)
        # 1 is True, and a header that says 1 does not say True.
        assert repr(read.properties) == repr(properties)


@pytest.mark.parametrize("name", strangers())
def test_what_strangers_publish_is_read_as_py_amqp_reads_it_or_not_at_all(name):
    raw = content(deliver(7, "commands", "kyc.decide"), strangers()[name])
    found = frames.delivery(raw, 0)
    if found is not None:
        [(_, properties, body)] = by_py_amqp(raw)
        assert (found[1].properties, found[1].body) == (properties, body)


@given(MESSAGES, st.data())
def test_what_is_not_all_there_is_left(message, data):
    raw = content(deliver(7, "intake", "order.created"), message)
    cut = data.draw(st.integers(0, len(raw) - 1))
    assert frames.delivery(raw[:cut], 0) is None


@given(MESSAGES, st.data())
def test_a_byte_that_was_changed_is_read_as_py_amqp_reads_it_or_not_at_all(message, data):
    raw = bytearray(content(deliver(7, "intake", "order.created"), message))
    raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    found = frames.delivery(bytes(raw), 0)
    if found is not None:
        _, read, end = found
        [(info, properties, body)] = by_py_amqp(bytes(raw[:end]))
        assert (read.delivery_info, read.properties, read.body) == (info, properties, body)


def test_our_own_messages_are_read_at_one_go():
    """Else all of this would be right, and for nothing."""
    ours = amqp.basic_message.Message(
        b'{"order_id": "1"}',
        content_type="application/json",
        delivery_mode=2,
        message_id="018f0000-0000-7000-8000-000000000000",
        correlation_id="018f0000-0000-7000-8000-000000000001",
        timestamp=1_796_000_000,
        type="order.created",
        user_id="fellow_ingress",
        application_headers={"ce-type": "order.created", "x-delivery-count": 3, "b": True},
    )
    raw = content(deliver(7, "intake", "order.created"), ours)
    found = frames.delivery(raw + raw, len(raw))
    assert found is not None
    assert found[1].properties == ours.properties
    assert found[2] == 2 * len(raw)


TEXTS_OF_A_KIND = st.text(st.characters(codec="ascii"), min_size=6, max_size=6)
OF_A_KIND = st.builds(
    lambda names, texts, values, seconds: amqp.basic_message.Message(
        b"{}",
        content_type=texts[0],
        application_headers=dict(zip(names, values, strict=False)),
        delivery_mode=2,
        correlation_id=texts[1],
        message_id=texts[2],
        timestamp=seconds,
        type="order.recorded",
    ),
    st.just(["ce-id", "ce-time", "ce-type"]) | st.just(["ce-id", "ce-type", "other"]),
    st.lists(TEXTS_OF_A_KIND, min_size=3, max_size=3),
    st.lists(TEXTS_OF_A_KIND | st.text(max_size=6) | st.integers(0, 9), min_size=3, max_size=3),
    st.integers(0, 2**33),
)


@given(st.lists(OF_A_KIND, min_size=2, max_size=5), st.data())
def test_messages_of_a_kind_are_read_as_py_amqp_reads_them_or_not_at_all(messages, data):
    frames._layouts.clear()
    for message in messages:
        raw = bytearray(content(deliver(7, "events", "order.recorded"), message))
        if data.draw(st.booleans()):
            raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
        found = frames.delivery(bytes(raw), 0)
        if found is not None:
            _, read, end = found
            [(info, properties, body)] = by_py_amqp(bytes(raw[:end]))
            assert (read.delivery_info, read.properties, read.body) == (info, properties, body)
            assert repr(read.properties) == repr(properties)


@pytest.mark.parametrize("type_", ["order.created", "order.recorded", "kyc.decide"])
def test_the_second_of_ours_is_not_taken_apart(monkeypatch, type_):
    """Else it would be right, and for nothing. Whenever it comes."""
    frames._layouts.clear()
    read = []
    for minutes in (0, 100):
        ours = Message(
            exchange="events",
            routing_key=type_,
            type=type_,
            message_id=str(new_id()),
            body=b"{}",
            correlation_id=str(new_id()),
            time=datetime(2026, 11, 30, tzinfo=UTC) + timedelta(minutes=minutes),
            source="services.orders",
        )
        published = publish_frames(1, ours, 131_072)
        # A delivery's frames are those of its publishing but for the first.
        _, _, size = struct.unpack_from(">BHI", published, 0)
        raw = frame(METHOD, deliver(7, "events", ours.type)) + published[size + 8 :]
        read.append((frames.delivery(raw, 0), ours))
        monkeypatch.setattr(frames, "_properties", None)
    for found, ours in read:
        assert found is not None
        assert found[1].properties["message_id"] == ours.message_id
        assert found[1].properties["application_headers"] == ours.headers()


@pytest.mark.parametrize("kind", [METHOD, HEADER, BODY, 8])
def test_what_is_no_delivery_is_left(kind):
    ours = amqp.basic_message.Message(b"{}", message_id="1")
    got = struct.pack(">HH", *GET_OK) + dumps("LbssL", [1, False, "", "dead", 0])
    assert frames.delivery(frame(kind, b"") + content(deliver(1, "", ""), ours), 0) is None
    assert frames.delivery(content(got, ours), 0) is None
