"""The three frames of an ordinary delivery, read at one go (AMQP 0-9-1, 2.3.5 and 4.2).

py-amqp takes 30 system and library calls apart for each message: of what a consumer costs, the most
after the work itself. A delivery that is ordinary is read here: whole, in ASCII, with the
properties that ours have. Whatever else comes is left to py-amqp, to the byte, so nothing is
decided here; a test holds what is read to what py-amqp reads.
"""

from collections.abc import Sequence
from functools import lru_cache
from struct import Struct
from typing import Any

from amqp.serialization import _read_item

_FRAME = Struct(">BHI")  # type, channel, size of the payload
_HEADER = Struct(">HHQH")  # class, weight, size of the body, which properties there are
_NUMBER = Struct(">QB")  # delivery tag, redelivered
_SIZE = Struct(">I")
_SECONDS = Struct(">Q")
_METHOD_FRAME, _HEADER_FRAME, _BODY_FRAME, _END = 1, 2, 3, 0xCE
_BASIC = 60
_BASIC_DELIVER = b"\x00\x3c\x00\x3c"
_PROPERTIES = (
    (0x8000, "content_type"),
    (0x4000, "content_encoding"),
    (0x2000, "application_headers"),
    (0x1000, "delivery_mode"),
    (0x0400, "correlation_id"),
    (0x0080, "message_id"),
    (0x0040, "timestamp"),
    (0x0020, "type"),
    (0x0010, "user_id"),
)
"""Those that ours have, by their flags, in the order in which they stand."""
_OTHERS = 0xFFFF ^ sum(flag for flag, _ in _PROPERTIES)
_LONG_STRING = ord("S")


class Message:
    """A delivery, with as much of py-amqp's `Message` as is looked at."""

    __slots__ = ("body", "delivery_info", "properties")

    def __init__(
        self, body: bytes, properties: dict[str, Any], delivery_info: dict[str, Any]
    ) -> None:
        self.body = body
        self.properties = properties
        self.delivery_info = delivery_info


def delivery(buffer: bytes, at: int) -> tuple[int, Message, int] | None:
    """An ordinary delivery.

    Args:
        buffer: what came.
        at: where a frame begins.

    Returns:
        Its channel, the message, and where the frame after it begins; None when what is there is
        anything else, or not all there.
    """
    try:
        return _delivery(buffer, at)
    except Exception:  # noqa: BLE001 - not all there, or whatever a stranger has thought of
        return None


def _delivery(buffer: bytes, at: int) -> tuple[int, Message, int] | None:
    kind, channel, size = _FRAME.unpack_from(buffer, at)
    header = at + size + 8
    if kind != _METHOD_FRAME or buffer[at + 7 : at + 11] != _BASIC_DELIVER:
        return None
    kind, channel_too, size = _FRAME.unpack_from(buffer, header)
    body = header + size + 8
    if kind != _HEADER_FRAME or channel_too != channel:
        return None
    kind, channel_too, size = _FRAME.unpack_from(buffer, body)
    end = body + size + 8
    class_id, _, whole, flags = _HEADER.unpack_from(buffer, header + 7)
    if (
        kind != _BODY_FRAME
        or channel_too != channel
        or whole != size
        or class_id != _BASIC
        or flags & _OTHERS
        # The last first: it is the one that may not be there yet.
        or not buffer[end - 1] == buffer[body - 1] == buffer[header - 1] == _END
    ):
        return None
    tag, place = _short_string(buffer, at + 11)
    number, bits = _NUMBER.unpack_from(buffer, place)
    exchange, place = _short_string(buffer, place + 9)
    routing_key, place = _short_string(buffer, place)
    properties, properties_end = _properties(buffer, header + 21, flags)
    if place != header - 1 or properties_end != body - 1:
        return None
    info = {
        "consumer_tag": tag,
        "delivery_tag": number,
        "redelivered": bool(bits & 1),
        "exchange": exchange,
        "routing_key": routing_key,
    }
    return channel, Message(buffer[body + 7 : end - 1], properties, info), end


def _properties(buffer: bytes, at: int, flags: int) -> tuple[dict[str, Any], int]:
    found: dict[str, Any] = {}
    for name in _names(flags):
        if name == "application_headers":
            end = at + 4 + _SIZE.unpack_from(buffer, at)[0]
            found[name] = _table(buffer, at + 4, end)
            at = end
        elif name == "delivery_mode":
            found[name] = buffer[at]
            at += 1
        elif name == "timestamp":
            (found[name],) = _SECONDS.unpack_from(buffer, at)
            at += 8
        else:
            begin = at + 1
            at = begin + buffer[at]
            found[name] = str(buffer[begin:at], "ascii")
    return found, at


@lru_cache(maxsize=256)
def _names(flags: int) -> Sequence[str]:
    return [name for flag, name in _PROPERTIES if flags & flag]


def _table(buffer: bytes, at: int, end: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    while at < end:
        begin = at + 1
        at = begin + buffer[at]
        name = str(buffer[begin:at], "ascii")
        if buffer[at] == _LONG_STRING:
            begin = at + 5
            at = begin + _SIZE.unpack_from(buffer, at + 1)[0]
            found[name] = str(buffer[begin:at], "ascii")
        else:
            found[name], at = _read_item(buffer, at)
    if at != end:
        raise ValueError("a value is longer than its table")
    return found


def _short_string(buffer: bytes, at: int) -> tuple[str, int]:
    end = at + 1 + buffer[at]
    return str(buffer[at + 1 : end], "ascii"), end
