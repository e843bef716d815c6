"""The three frames of an ordinary delivery, read at one go (AMQP 0-9-1, 2.3.5 and 4.2).

py-amqp takes 30 system and library calls apart for each message: of what a consumer costs, the most
after the work itself. A delivery that is ordinary is read here: whole, in ASCII, with the
properties that ours have. Whatever else comes is left to py-amqp, to the byte, so nothing is
decided here; a test holds what is read to what py-amqp reads.

Messages of one kind, as our publisher writes them, differ in nothing but their values: all between
those is the same, to the byte, and says where they are. So it is taken apart once for each kind.
"""

from collections.abc import Sequence
from functools import lru_cache
from itertools import repeat
from struct import Struct
from typing import Any, NamedTuple

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
_OURS = 0xB4E0
"""All but content encoding and user: what our publisher writes (publish/framing.py)."""
MOST_LAYOUTS = 64
SHORTEST_TYPE = len(
    "kyc.decide"
)  # more would have a part of the time, and be another kind each second
_ASCII = repeat("ascii")


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
    properties = _of_a_kind(buffer, header + 21, body - 1) if flags == _OURS else None
    if properties is None:
        properties, properties_end = _properties(buffer, header + 21, flags)
        if properties_end != body - 1:
            return None
    if place != header - 1:
        return None
    info = {
        "consumer_tag": tag,
        "delivery_tag": number,
        "redelivered": bool(bits & 1),
        "exchange": exchange,
        "routing_key": routing_key,
    }
    return channel, Message(buffer[body + 7 : end - 1], properties, info), end


class _Layout(NamedTuple):
    """How the properties of one kind lie.

    Attributes:
        pieces: what is between, a value, what is between, and so on.
        between: what is between the values: lengths, names, and the delivery mode.
        headers: their names.
        delivery_mode: see there.
    """

    pieces: Struct
    between: tuple[bytes, ...]
    headers: Sequence[str]
    delivery_mode: int


_layouts: dict[tuple[int, bytes], _Layout | None] = {}


def _of_a_kind(buffer: bytes, at: int, end: int) -> dict[str, Any] | None:
    """The properties `_OURS`, where they lie as those of an earlier message did."""
    kind = end - at, buffer[end - SHORTEST_TYPE : end]  # it ends with the type, behind the time
    layout = _layouts.get(kind)
    if layout is None:
        if kind not in _layouts:
            if len(_layouts) >= MOST_LAYOUTS:
                _layouts.clear()
            _layouts[kind] = _layout(buffer, at, end)
        return None
    found = layout.pieces.unpack_from(buffer, at)
    if found[::2] != layout.between:
        return None
    content_type, *headers, correlation_id, message_id, timestamp, type_ = found[1::2]
    return {
        "content_type": str(content_type, "ascii"),
        "application_headers": dict(zip(layout.headers, map(str, headers, _ASCII), strict=True)),
        "delivery_mode": layout.delivery_mode,
        "correlation_id": str(correlation_id, "ascii"),
        "message_id": str(message_id, "ascii"),
        "timestamp": timestamp,
        "type": str(type_, "ascii"),
    }


def _layout(buffer: bytes, begin: int, end: int) -> _Layout | None:
    """How the properties `_OURS` lie; None where a header is no text, or they lie otherwise."""
    names: list[str] = []
    values = [_place(buffer, begin)]
    at = values[-1][1]
    headers_end = at + 4 + _SIZE.unpack_from(buffer, at)[0]
    at += 4
    while at < headers_end:
        name, at = _short_string(buffer, at)
        if buffer[at] != _LONG_STRING:
            return None
        names.append(name)
        values.append((at + 5, at + 5 + _SIZE.unpack_from(buffer, at + 1)[0]))
        at = values[-1][1]
    values.append(_place(buffer, headers_end + 1))
    values.append(_place(buffer, values[-1][1]))
    timestamp = values[-1][1], values[-1][1] + 8
    type_ = _place(buffer, timestamp[1])
    if at != headers_end or type_[1] != end:
        return None
    form, at = ">", begin
    for value in (*values, timestamp, type_):
        form += f"{value[0] - at}s{'Q' if value is timestamp else f'{value[1] - value[0]}s'}"
        at = value[1]
    pieces = Struct(f"{form}{end - at}s")
    between = pieces.unpack_from(buffer, begin)[::2]
    return _Layout(pieces, between, names, buffer[headers_end])


def _place(buffer: bytes, at: int) -> tuple[int, int]:
    """Where a short string begins and ends."""
    return at + 1, at + 1 + buffer[at]


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
