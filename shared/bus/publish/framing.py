"""A message as AMQP 0-9-1 frames, in one piece.

pika encodes properties and headers generically, field by field, and writes each frame on its own;
both are most of what publishing costs. A message of ours always has the same fields, so this module
encodes just those, and what is the same in each of a kind once (`bench/` compares; `tests/` decodes
the result with pika).

Layout: AMQP 0-9-1 specification, 2.3.5 (frames), 4.2.6 (content header), 1.8 (basic class).
"""

from datetime import datetime
from functools import cache
from struct import Struct

from shared.bus.contract.message import SHORT_STRING_BYTES, Message

_FRAME = Struct(">BHI")  # type, channel, payload size
_FRAME_END = b"\xce"
_METHOD, _HEADER, _BODY = 1, 2, 3
_FRAME_OVERHEAD = _FRAME.size + len(_FRAME_END)

# class 60, weight 0, body size, flags
_CONTENT = Struct(">HHQH")
_CLASS_BASIC = 60
_PUBLISH = b"\x00\x3c\x00\x28\x00\x00"  # class 60, method 40, the reserved short
_MANDATORY = b"\x01"
# content-type, headers, delivery-mode, correlation-id, message-id, timestamp, type: the bits 15,
# 13, 12, 10, 7, 6 and 5, and the fields in that order.
_FLAGS = 1 << 15 | 1 << 13 | 1 << 12 | 1 << 10 | 1 << 7 | 1 << 6 | 1 << 5
_CONTENT_TYPE = b"\x10application/json"
_PERSISTENT = b"\x02"
_LENGTH = Struct(">I")
_TIMESTAMP = Struct(">Q")


def publish_frames(channel: int, message: Message, frame_max: int) -> bytes:
    """The frames of a persistent, mandatory `basic.publish`.

    Args:
        channel: the channel's number.
        message: what to publish.
        frame_max: the largest frame that was negotiated, in bytes.

    Raises:
        ValueError: a short string is longer than 255 bytes, or the headers do not fit a frame.
    """
    body = message.body
    # What is asked for twice is encoded once: in the properties, and as a header.
    message_id, subject = message.message_id.encode(), message.correlation_id.encode()
    headers = b"".join(
        (
            _constant(message.source, message.type),
            _ID,
            _LENGTH.pack(len(message_id)),
            message_id,
            _TIME,
            _time(message.time),
            _SUBJECT,
            _LENGTH.pack(len(subject)),
            subject,
            _field("traceparent", message.traceparent) if message.traceparent else b"",
        )
    )
    properties = b"".join(
        (
            _CONTENT_TYPE,
            _LENGTH.pack(len(headers)),
            headers,
            _PERSISTENT,
            _short(subject),
            _short(message_id),
            _TIMESTAMP.pack(int(message.time.timestamp())),
            _type(message.type),
        )
    )
    size = len(body)
    room = frame_max - _FRAME_OVERHEAD
    if _CONTENT.size + len(properties) > room:
        # A content header is one frame, whatever is in it (4.2.6): the broker would hang up.
        raise ValueError(
            f"a message's properties and headers may take {room - _CONTENT.size} "
            f"bytes, not {len(properties)}"
        )
    parts: list[bytes] = [
        _method(channel, message.exchange, message.routing_key),
        _FRAME.pack(_HEADER, channel, _CONTENT.size + len(properties)),
        _CONTENT.pack(_CLASS_BASIC, 0, size, _FLAGS),
        properties,
        _FRAME_END,
    ]
    if 0 < size <= room:
        parts += (_FRAME.pack(_BODY, channel, size), body, _FRAME_END)
    else:
        for start in range(0, size, room):
            piece = body[start : start + room]
            parts += (_FRAME.pack(_BODY, channel, len(piece)), piece, _FRAME_END)
    return b"".join(parts)


@cache
def _method(channel: int, exchange: str, routing_key: str) -> bytes:
    payload = _PUBLISH + _short(exchange.encode()) + _short(routing_key.encode()) + _MANDATORY
    return _FRAME.pack(_METHOD, channel, len(payload)) + payload + _FRAME_END


@cache
def _constant(source: str, type_: str) -> bytes:
    """The headers that are the same in all messages of a kind; see `Message.headers`."""
    return _field("ce-specversion", "1.0") + _field("ce-source", source) + _field("ce-type", type_)


@cache
def _type(type_: str) -> bytes:
    return _short(type_.encode())


def _time(time: datetime) -> bytes:
    raw = time.isoformat(timespec="milliseconds").encode()
    return _LENGTH.pack(len(raw)) + raw


def _field(name: str, value: str) -> bytes:
    raw = value.encode()
    return _name(name) + _LENGTH.pack(len(raw)) + raw


def _name(name: str) -> bytes:
    return _short(name.encode()) + b"S"


def _short(raw: bytes) -> bytes:
    if len(raw) > SHORT_STRING_BYTES:
        raise ValueError(f"a short string of AMQP holds {SHORT_STRING_BYTES} bytes, not {len(raw)}")
    return bytes((len(raw),)) + raw


_ID, _TIME, _SUBJECT = _name("ce-id"), _name("ce-time"), _name("ce-subject")
