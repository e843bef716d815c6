"""Messages that a stranger's client can send and that ours would not."""

import struct
from datetime import UTC, datetime

from amqp import Message as AmqpMessage

SURROGATE = "D\udce9cision"
"""What Python makes of Latin-1 in a file name or an argument; py-amqp writes it as it is."""
LONG_AGO = datetime(1999, 1, 1, tzinfo=UTC)


def _raw(properties: bytes, body: bytes = b"{}") -> AmqpMessage:
    """A message with these bytes for its flags and properties."""
    message = AmqpMessage(body)
    message._serialize_properties = lambda: properties
    return message


def _headers(table: bytes) -> AmqpMessage:
    return _raw(struct.pack(">HI", 0x2000, len(table)) + table)


def _nested(levels: int) -> bytes:
    table = b""
    for _ in range(levels):
        table = b"\x01kF" + struct.pack(">I", len(table)) + table
    return table


def strangers() -> dict[str, AmqpMessage]:
    """One of each sort, by what is odd about it."""
    return {
        "an id that is Latin-1": AmqpMessage(b"{}", message_id=b"D\xe9cision"),
        "an id with a lone surrogate": AmqpMessage(b"{}", message_id=f"id {SURROGATE}"),
        "lone surrogates in every text property": AmqpMessage(
            b"{}",
            content_type=SURROGATE,
            correlation_id=SURROGATE,
            reply_to=SURROGATE,
            message_id=SURROGATE,
            type=SURROGATE,
            app_id=SURROGATE,
        ),
        "lone surrogates in headers": AmqpMessage(
            b"{}", application_headers={SURROGATE: SURROGATE, "x-reason": SURROGATE}
        ),
        "a long id that is no text": AmqpMessage(b"{}", message_id=b"\xff" * 255),
        "every text property": AmqpMessage(
            b"{}",
            content_type=b"\xff",
            correlation_id=b"\xff",
            reply_to=b"\xff",
            message_id=b"\xff\xfe",
            type=b"\xff",
            app_id=b"\xff",
        ),
        "an encoding that is none": AmqpMessage(b"\xff{}", content_encoding=b"\xff"),
        "an encoding with lone surrogates": AmqpMessage(b"+2AA-", content_encoding="utf-7"),
        "a header's name that is Latin-1": AmqpMessage(
            b"{}", application_headers={b"\xe9": "x", "ce-time": "yesterday"}
        ),
        "a header's value that is Latin-1": AmqpMessage(
            b"{}", application_headers={"x-reason": b"\xe9", "ce-id": b"\xe9"}
        ),
        "a time beyond all calendars": _headers(b"\x01tT" + struct.pack(">Q", 2**62)),
        "headers within headers": _headers(_nested(5_000)),
        "an attempt beyond counting": _headers(b"\x09x-attemptl" + struct.pack(">q", 2**63 - 1)),
        "headers as large as a frame": AmqpMessage(
            b"{}", application_headers={f"x-{n}": "é" * 1_000 for n in range(60)}
        ),
        "reasons that are none of ours": AmqpMessage(
            b"{}",
            application_headers={
                "x-reasons": ["y" * 9_000] * 12,
                "x-first-failed-at": "z" * 9_000,
                "x-death": [{"queue": "kyc.decisions", "reason": 7, "time": LONG_AGO}],
            },
        ),
    }
