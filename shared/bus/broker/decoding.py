"""Tolerant decoding of AMQP properties and arguments for py-amqp.

Short strings are UTF-8 by the specification, the broker does not check it, and py-amqp raises
amid the frames of a connection. The consumer would reconnect and receive the message again until
it is dead-lettered, and then no tool could read the dead letter queue. So invalid values are
decoded as far as possible.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from hashlib import sha256
from struct import unpack_from
from typing import Any

import amqp.abstract_channel
import amqp.serialization

Properties = tuple[dict[str, Any], int]
Arguments = tuple[list[Any], int]

# AMQP 0-9-1, class basic, in the order of the property flags, from the highest bit.
_PROPERTIES = (
    ("content_type", "s"),
    ("content_encoding", "s"),
    ("application_headers", "F"),
    ("delivery_mode", "o"),
    ("priority", "o"),
    ("correlation_id", "s"),
    ("reply_to", "s"),
    ("expiration", "s"),
    ("message_id", "s"),
    ("timestamp", "L"),
    ("type", "s"),
    ("user_id", "s"),
    ("app_id", "s"),
    ("cluster_id", "s"),
)
_BASIC = 60
SHORT = 255
_BEGINNING = SHORT - 64
_SURROGATES = re.compile("[\ud800-\udfff]")
_read_properties: Callable[[bytes, int], Properties] = amqp.serialization.PROPERTY_CLASSES[_BASIC]
_read_arguments: Callable[[str, bytes, int], Arguments] = amqp.serialization.loads
_read_item: Callable[[bytes, int], tuple[Any, int]] = amqp.serialization._read_item


def install() -> None:
    """Replace py-amqp's decoding by this module's, in the whole process."""
    amqp.serialization.PROPERTY_CLASSES[_BASIC] = properties
    amqp.abstract_channel.loads = arguments


def properties(buf: bytes, offset: int) -> Properties:
    """Decode the properties of a message.

    Bytes that are no UTF-8 become `\\xff`. Headers behind one that cannot be decoded are dropped.

    Args:
        buf: the payload of a content header.
        offset: of the property flags.

    Returns:
        The properties by py-amqp's names, and the offset behind them.
    """
    try:
        found, end = _read_properties(buf, offset)
    except Exception:  # noqa: BLE001 - any invalid encoding
        return _properties(buf, offset)
    headers = found.get("application_headers")
    if headers and not all(isinstance(name, str) for name in headers):
        return _properties(buf, offset)
    # py-amqp decodes surrogates, which no other library encodes again.
    return (found, end) if all(map(_is_utf8, _texts(found))) else _properties(buf, offset)


def arguments(form: str, buf: bytes, offset: int) -> Arguments:
    """Decode the arguments of a method, such as the routing key of a delivery.

    Args:
        form: py-amqp's letters for their types.
        buf: the payload of a method frame.
        offset: of the first argument.

    Returns:
        The arguments, and the offset behind them.
    """
    try:
        found, end = _read_arguments(form, buf, offset)
    except UnicodeDecodeError:
        return _arguments(form, buf, offset)
    # py-amqp decodes surrogates, which no other library encodes again.
    if all(value.isascii() for value in found if isinstance(value, str)):
        return found, end
    return _arguments(form, buf, offset)


def _properties(buf: bytes, offset: int) -> Properties:
    found: dict[str, Any] = {}
    (flags,) = unpack_from(">H", buf, offset)
    offset += 2
    for bit, (name, form) in enumerate(_PROPERTIES):
        if flags & 0x8000 >> bit:
            found[name], offset = _value(form, buf, offset)
    return found, offset


def _arguments(form: str, buf: bytes, offset: int) -> Arguments:
    values: list[Any] = []
    for part in re.findall("b+|[^b]", form):  # consecutive bits share an octet
        if part.startswith("b"):
            bits, offset = _read_arguments(part, buf, offset)
            values += bits
        else:
            value, offset = _value(part, buf, offset)
            values.append(value)
    return values, offset


def _value(form: str, buf: bytes, offset: int) -> tuple[Any, int]:
    if form == "s":
        end = offset + 1 + buf[offset]
        return _text(buf[offset + 1 : end]), end
    if form == "F":
        (size,) = unpack_from(">I", buf, offset)
        end = offset + 4 + size
        return _table(buf, offset + 4, end), end
    (value,), offset = _read_arguments(form, buf, offset)
    return value, offset


def _table(buf: bytes, offset: int, end: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    # The offset of the next header is unknown behind one that cannot be decoded.
    with suppress(Exception):
        while offset < end:
            name, offset = _value("s", buf, offset)
            value, offset = _read_item(buf, offset)
            found[name] = _written(value)
    return found


def _texts(value: Any) -> Iterator[str]:
    """Yield all texts in a value, at any depth."""
    left = [value]
    while left:
        one = left.pop()
        if isinstance(one, str):
            yield one
        elif isinstance(one, dict):
            left += [*one, *one.values()]
        elif isinstance(one, list):
            left += one


def _is_utf8(text: str) -> bool:
    return text.isascii() or not _SURROGATES.search(text)


def _written(value: Any) -> Any:
    """Return a value in which all texts can be encoded as UTF-8."""
    if isinstance(value, str):
        return value.encode(errors="surrogatepass").decode(errors="backslashreplace")
    if isinstance(value, dict):
        return {_written(name): _written(one) for name, one in value.items()}
    return [_written(one) for one in value] if isinstance(value, list) else value


def _text(value: bytes) -> str:
    """Decode a short string to text that fits into one again, at most 255 bytes."""
    text = bytes(value).decode(errors="backslashreplace")
    if len(text.encode()) <= SHORT:
        return text
    # The hash keeps shortened ids distinct.
    return f"{text.encode()[:_BEGINNING].decode(errors='ignore')}{sha256(value).hexdigest()}"
