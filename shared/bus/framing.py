"""A message as AMQP 0-9-1 frames, in one piece.

pika encodes properties and headers generically, field by field, and writes each frame on its own;
both are most of what publishing costs. A message of ours always has the same fields, so this module
encodes just those (`bench/` compares; `tests/` decodes the result with pika).

Layout: AMQP 0-9-1 specification, 2.3.5 (frames), 4.2.6 (content header), 1.8 (basic class).
"""

from functools import cache
from struct import Struct

from shared.bus.message import Message

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
        ValueError: a short string is longer than 255 bytes.
    """
    body = message.body
    headers = _table(message.headers())
    properties = b"".join(
        (
            _CONTENT_TYPE,
            _LENGTH.pack(len(headers)),
            headers,
            _PERSISTENT,
            _short(message.correlation_id),
            _short(message.message_id),
            _TIMESTAMP.pack(int(message.time.timestamp())),
            _short(message.type),
        )
    )
    parts: list[bytes] = [
        _method(channel, message.exchange, message.routing_key),
        _FRAME.pack(_HEADER, channel, _CONTENT.size + len(properties)),
        _CONTENT.pack(_CLASS_BASIC, 0, len(body), _FLAGS),
        properties,
        _FRAME_END,
    ]
    room = frame_max - _FRAME_OVERHEAD
    for start in range(0, len(body), room):
        piece = body[start : start + room]
        parts += (_FRAME.pack(_BODY, channel, len(piece)), piece, _FRAME_END)
    return b"".join(parts)


@cache
def _method(channel: int, exchange: str, routing_key: str) -> bytes:
    payload = _PUBLISH + _short(exchange) + _short(routing_key) + _MANDATORY
    return _FRAME.pack(_METHOD, channel, len(payload)) + payload + _FRAME_END


@cache
def _key(name: str) -> bytes:
    return _short(name) + b"S"


def _table(values: dict[str, str]) -> bytes:
    parts: list[bytes] = []
    for name, value in values.items():
        raw = value.encode()
        parts += (_key(name), _LENGTH.pack(len(raw)), raw)
    return b"".join(parts)


def _short(text: str) -> bytes:
    raw = text.encode()
    if len(raw) > 255:
        raise ValueError(f"a short string of AMQP holds 255 bytes, not {len(raw)}")
    return bytes((len(raw),)) + raw
