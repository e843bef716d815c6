"""Distinct signed orders, made ahead so that making them costs the run nothing."""

import hashlib
import hmac
import json
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

STREETS = ("Marina Road", "Broad Street", "Allen Avenue", "Awolowo Road", "Ozumba Close")
ITEMS = ("blue kettle", "teapot, cast iron", "strainer", "tin of Assam, 250 g", "cups")


def email(number: int) -> str:
    """The customer's address; each number gives another."""
    return f"zoe.ade.{number}@shop.example"


def body(number: int) -> bytes:
    """An order's body, about 250 bytes; each number gives another."""
    return json.dumps(
        {
            "customer_details": {
                "name": f"Zoe Ade {number}",
                "email": email(number),
                "phone": f"+234800{number:07d}",
            },
            "item_summary": f"{number % 7 + 1} x {ITEMS[number % 5]}",
            "address": f"{number % 199 + 1} {STREETS[number % 5]}, Lagos",
            "tracking_status": "PENDING",
        }
    ).encode()


def sign(key: str, content: bytes) -> str:
    """The value of `X-Webhook-Signature`."""
    return hmac.new(key.encode(), content, hashlib.sha256).hexdigest()


def as_sent(url: str, key: str, signature: str, content: bytes) -> bytes:
    """A signed request to `url`, as it travels."""
    parts = urlsplit(url)
    head = (
        f"POST {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n"
        f"X-API-Key: {key}\r\nX-Webhook-Signature: {signature}\r\n\r\n"
    )
    return head.encode() + content


def write(path: Path, keys: Sequence[str], count: int) -> None:
    """Write a file of signed requests: three lines each, for key, signature and body.

    Args:
        path: where to.
        keys: the senders' webhook secrets, used in turn.
        count: how many.
    """
    with path.open("w") as file:
        for number in range(count):
            key, content = keys[number % len(keys)], body(number)
            file.write(f"{key}\n{sign(key, content)}\n{content.decode()}\n")
