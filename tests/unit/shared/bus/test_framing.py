"""What `framing` writes is what pika reads."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pika import frame, spec

from shared.bus.contract.message import Message
from shared.bus.publish.framing import publish_frames

SMALLEST_FRAME = 4096  # AMQP 0-9-1, 4.2.3

short = st.text(max_size=60)
messages = st.builds(
    Message,
    exchange=st.sampled_from(["intake", "events", ""]),
    routing_key=short,
    type=short,
    message_id=short,
    body=st.binary(max_size=3 * SMALLEST_FRAME),
    correlation_id=short,
    time=st.integers(0, 2**33).map(lambda seconds: datetime.fromtimestamp(seconds, UTC)),
    source=short,
    traceparent=st.none() | short,
)


def frames(data):
    while data:
        consumed, decoded = frame.decode_frame(data)
        assert consumed, "an incomplete frame"
        yield decoded
        data = data[consumed:]


@given(messages, st.integers(1, 65_535), st.sampled_from([SMALLEST_FRAME, 131_072]))
def test_pika_reads_what_framing_writes(message, channel, frame_max):
    raw = publish_frames(channel, message, frame_max)
    method, header, *bodies = frames(raw)
    assert {f.channel_number for f in (method, header, *bodies)} == {channel}
    assert isinstance(method.method, spec.Basic.Publish)
    assert (method.method.exchange, method.method.routing_key) == (
        message.exchange,
        message.routing_key,
    )
    assert method.method.mandatory
    assert not method.method.immediate
    properties = header.properties
    assert header.body_size == len(message.body)
    assert properties.content_type == "application/json"
    assert properties.delivery_mode == 2
    assert properties.message_id == message.message_id
    assert properties.correlation_id == message.correlation_id
    assert properties.type == message.type
    assert properties.timestamp == int(message.time.timestamp())
    assert properties.headers == message.headers()
    assert b"".join(body.fragment for body in bodies) == message.body
    assert all(len(body.fragment) <= frame_max - 8 for body in bodies)


def test_a_short_string_that_is_too_long_is_refused():
    message = Message(
        exchange="",
        routing_key="x" * 256,
        type="t",
        message_id="1",
        body=b"",
        correlation_id="1",
        time=datetime.now(UTC),
        source="tests",
    )
    with pytest.raises(ValueError, match="255"):
        publish_frames(1, message, SMALLEST_FRAME)
