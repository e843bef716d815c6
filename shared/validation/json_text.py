"""Parses JSON text (RFC 8259) leniently, and explains why a text is not JSON.

The text must be UTF-8; a byte order mark is ignored (RFC 8259, 8.1).
"""

import codecs
import json
import math
import re
from collections.abc import Iterator
from typing import Any, NoReturn

import msgspec

_MARKS = (
    (codecs.BOM_UTF32_LE, "UTF-32"),
    (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"),
    (codecs.BOM_UTF16_BE, "UTF-16"),
)
# Zero bytes of an ASCII character in UTF-16 or UTF-32, with which a JSON text begins.
_ZEROS = ((b"\0\0\0", "UTF-32"), (b"\0", "UTF-16"))


_GZIP = b"\x1f\x8b"  # RFC 1952, 2.3.1
_COMMA = re.compile(r",\s*[}\]]")
_SURROGATE = re.compile("[\ud800-\udfff]")  # unpaired (RFC 8259, 8.2)
_MOST_DIGITS = 4_300  # sys.get_int_max_str_digits()


class NotJsonError(ValueError):
    """The text is not JSON; the message is a sentence that says what it is."""


def parse(raw: bytes) -> Any:
    """Return the value of a JSON text as plain objects.

    Raises:
        NotJsonError: it is not JSON.
    """
    raw = raw.removeprefix(codecs.BOM_UTF8)
    if not raw.strip():
        raise NotJsonError("The body is empty.")
    if raw.startswith(_GZIP):
        raise NotJsonError("The body is compressed, by gzip. Send it plain.")
    encoding = _wide_encoding(raw)
    if encoding:
        raise NotJsonError(f"The body is {encoding}. Send it as UTF-8.")
    try:
        return msgspec.json.decode(raw)
    except RecursionError:
        raise NotJsonError("The body is nested too deep.") from None
    except UnicodeDecodeError:
        raise NotJsonError(_other_encoding(raw)) from None
    except (msgspec.DecodeError, OverflowError, ValueError) as error:
        raise NotJsonError(_malformed(raw, error)) from None


def _wide_encoding(raw: bytes) -> str:
    for mark, name in _MARKS:
        if raw.startswith(mark):
            return name
    for zeros, name in _ZEROS:
        if raw[1:].startswith(zeros) or raw.startswith(zeros):
            return name
    return ""


def _other_encoding(raw: bytes) -> str:
    """Say where a text is not UTF-8. Latin-1 maps every byte, so decoding by it never fails."""
    try:
        value = json.loads(raw.decode("latin-1"), strict=False)
    except (ValueError, RecursionError):
        value = None
    for path, text in _texts(value, "$"):
        as_sent = text.encode("latin-1", errors="replace")
        try:
            as_sent.decode()
        except UnicodeDecodeError as error:
            is_windows = any(0x80 <= byte < 0xA0 for byte in as_sent)
            name = "Windows-1252" if is_windows else "Latin-1 (ISO 8859-1)"
            return (
                f"{path} is not UTF-8: its byte 0x{as_sent[error.start]:02X} is invalid. It looks "
                f"like {name}. Encode the body as UTF-8."
            )
    return "The body is not UTF-8."


def _texts(value: Any, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield path, name
            yield from _texts(inner, f"{path}.{name}")
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from _texts(inner, f"{path}[{number}]")


def _malformed(raw: bytes, error: Exception) -> str:
    text = raw.decode(errors="replace")
    try:
        value = json.loads(text, parse_constant=_refuse, parse_float=_number, parse_int=_number)
        for path, found in _texts(value, "$"):
            surrogate = _SURROGATE.search(found)
            if surrogate is not None:
                return (
                    f"{path} has half a character (U+{ord(surrogate[0]):04X}), as of an emoji that "
                    "was cut in two: cut texts between characters."
                )
    except NotJsonError as found:
        return str(found)
    except json.JSONDecodeError as found:
        where = f"line {found.lineno}, column {found.colno}"
        what = found.msg[:1].lower() + found.msg[1:].removesuffix(" at")
        return f"The body is not JSON: {what} at {where}.{_likely(text, found)}"
    except (RecursionError, ValueError):
        pass
    return f"The body is not JSON: {error}."


def _refuse(constant: str) -> NoReturn:
    raise NotJsonError(
        f"The body is not JSON: it has {constant}, which is not a number (RFC 8259, 6). Send null, "
        "or leave it out."
    )


def _number(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.inf
    if math.isinf(number) or len(text) > _MOST_DIGITS:
        raise NotJsonError(
            f"The body has a number that is too large to be read, {text[:20]}…: write it as a "
            "text, in quotes."
        )
    return number


def _likely(text: str, fault: json.JSONDecodeError) -> str:
    """Return a sentence on the likely mistake, or an empty text."""
    before, rest = text[: fault.pos].rstrip(), text[fault.pos :].lstrip()
    member = before.removesuffix(",").rstrip()[-1:]
    if (_COMMA.match(before[-1:] + rest) or _COMMA.match(rest)) and member not in ("", *":[{,"):
        return " There is a comma after the last member: remove it."
    if fault.msg == "Extra data" and rest[:1] in ("{", "["):
        return " A request holds one event: send the next in another."
    if rest[:2] in ("//", "/*") or rest[:1] == "#":
        return " It looks like a comment, which JSON does not have."
    text = text.strip()
    if text[:2] in ("{'", "['"):
        return " It has single quotes, as Python prints a dict: write it with `json.dumps`."
    if text[:1] == "<":
        return " It looks like XML or HTML."
    name, equals, _ = text.partition("=")
    if equals and name.replace("_", "").replace("%", "").isalnum():
        return " It looks like the fields of a form: send JSON, with Content-Type application/json."
    return ""
