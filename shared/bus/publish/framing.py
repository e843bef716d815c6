"""Encode a message as AMQP 0-9-1 frames.

pika encodes properties and headers field by field and writes each frame separately, which is most
of the cost of publishing. Our messages always have the same fields, so this module encodes just
those, and caches the constant parts of each kind of message (`bench/` compares the two; tests
decode the result with pika).

Layout: AMQP 0-9-1 specification, 2.3.5 (frames), 4.2.6 (content header), 1.8 (basic class).
"""

from functools import lru_cache
from struct import Struct
from typing import NamedTuple

from shared.bus.contract.message import SHORT_STRING_BYTES, Message

_FRAME = Struct(">BHI")  # type, channel, payload size
_FRAME_END = b"\xce"
_METHOD, _HEADER, _BODY = 1, 2, 3
_FRAME_OVERHEAD = _FRAME.size + len(_FRAME_END)

_BASIC = b"\x00\x3c\x00\x00"  # class 60, weight 0; followed by the body size and the property flags
_CONTENT_BYTES = 14
_PUBLISH = b"\x00\x3c\x00\x28\x00\x00"  # class 60, method 40, reserved short
_MANDATORY = b"\x01"
# content-type, headers, delivery-mode, correlation-id, message-id, timestamp and type: bits 15, 13,
# 12, 10, 7, 6 and 5; the fields follow in this order.
_FLAGS = (1 << 15 | 1 << 13 | 1 << 12 | 1 << 10 | 1 << 7 | 1 << 6 | 1 << 5).to_bytes(2)
_CONTENT_TYPE = b"\x10application/json"
_PERSISTENT = b"\x02"
_LENGTH = Struct(">I")
_QUAD = Struct(">Q")  # body size and timestamp


def publish_frames(channel: int, message: Message, frame_max: int) -> bytes:
    """Return the frames of a persistent, mandatory `basic.publish`.

    Args:
        channel: the channel's number.
        message: the message.
        frame_max: the negotiated frame size, in bytes.

    Raises:
        ValueError: a short string is longer than 255 bytes, or the headers do not fit a frame.
    """
    body = message.body
    # Encoded once, used twice: as properties and as CloudEvents headers.
    message_id, subject = message.message_id.encode(), message.correlation_id.encode()
    time = message.time.isoformat(timespec="milliseconds").encode()
    trace = message.traceparent.encode() if message.traceparent else b""
    kind = _kind(
        (channel, message.exchange, message.routing_key, message.source, message.type),
        (len(message_id), len(time), len(subject), len(trace)),
    )
    size = len(body)
    room = frame_max - _FRAME_OVERHEAD
    if kind.size > room:
        # A content header must fit into one frame (4.2.6), or the broker closes the connection.
        raise ValueError(
            f"a message's properties and headers may take {room - _CONTENT_BYTES} "
            f"bytes, not {kind.size - _CONTENT_BYTES}"
        )
    parts: list[bytes] = [
        kind.begin,
        _QUAD.pack(size),
        kind.to_id,
        message_id,
        kind.to_time,
        time,
        kind.to_subject,
        subject,
        kind.to_trace,
        trace,
        kind.to_correlation_id,
        subject,
        kind.to_message_id,
        message_id,
        _QUAD.pack(int(message.time.timestamp())),
        kind.end,
    ]
    if 0 < size <= room:
        parts += (_FRAME.pack(_BODY, channel, size), body, _FRAME_END)
    else:
        for start in range(0, size, room):
            piece = body[start : start + room]
            parts += (_FRAME.pack(_BODY, channel, len(piece)), piece, _FRAME_END)
    return b"".join(parts)


class _Kind(NamedTuple):
    """The constant bytes between the values, for messages of one kind with values of equal length.

    Attributes:
        size: of the content header, in bytes.
        begin: up to the body size.
        to_id: from there to the value of `ce-id`, and so on.
    """

    size: int
    begin: bytes
    to_id: bytes
    to_time: bytes
    to_subject: bytes
    to_trace: bytes
    to_correlation_id: bytes
    to_message_id: bytes
    end: bytes


@lru_cache(maxsize=1_024)
def _kind(of: tuple[int, str, str, str, str], lengths: tuple[int, int, int, int]) -> _Kind:
    channel, exchange, routing_key, source, type_ = of
    id_, time, subject, trace = map(_LENGTH.pack, lengths)
    payload = _PUBLISH + _short(exchange.encode()) + _short(routing_key.encode()) + _MANDATORY
    to_id = (
        # See `Message.headers`.
        _field("ce-specversion", "1.0")
        + _field("ce-source", source)
        + _field("ce-type", type_)
        + _name("ce-id")
        + id_
    )
    to_time = _name("ce-time") + time
    to_subject = _name("ce-subject") + subject
    to_trace = _name("traceparent") + trace if lengths[-1] else b""
    headers = sum(map(len, (to_id, to_time, to_subject, to_trace))) + sum(lengths)
    to_id = _FLAGS + _CONTENT_TYPE + _LENGTH.pack(headers) + to_id
    to_correlation_id = _PERSISTENT + _short_length(lengths[2])
    to_message_id = _short_length(lengths[0])
    end = _short(type_.encode())
    own = (to_id, to_time, to_subject, to_trace, to_correlation_id, to_message_id, end)
    # Id and subject occur twice; 16 bytes are the body size and the timestamp.
    size = len(_BASIC) + sum(map(len, own)) + sum(lengths) + lengths[0] + lengths[2] + 16
    begin = (
        _FRAME.pack(_METHOD, channel, len(payload))
        + payload
        + _FRAME_END
        + _FRAME.pack(_HEADER, channel, size)
        + _BASIC
    )
    return _Kind(
        size,
        begin,
        to_id,
        to_time,
        to_subject,
        to_trace,
        to_correlation_id,
        to_message_id,
        end + _FRAME_END,
    )


def _field(name: str, value: str) -> bytes:
    raw = value.encode()
    return _name(name) + _LENGTH.pack(len(raw)) + raw


def _name(name: str) -> bytes:
    return _short(name.encode()) + b"S"


def _short(raw: bytes) -> bytes:
    return _short_length(len(raw)) + raw


def _short_length(length: int) -> bytes:
    if length > SHORT_STRING_BYTES:
        raise ValueError(f"a short string of AMQP holds {SHORT_STRING_BYTES} bytes, not {length}")
    return bytes((length,))
