"""Distinct signed orders, made ahead so that making them costs the run nothing."""

import hashlib
import hmac
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

NAMES = ("Zoe Ade", "Tunde Bakare", "Zoë Adébáyọ̀")  # of all names and items a third is not ASCII
STREETS = ("Marina Road", "Broad Street", "Allen Avenue", "Awolowo Road", "Ozumba Close")
ITEMS = ("blue kettle", "teapot, cast iron", "théière en fonte")


def email(number: int) -> str:
    """The customer's address; each number gives another."""
    return f"zoe.ade.{number}@shop.example"


def name(number: int) -> str:
    """The customer's name."""
    return f"{NAMES[number % len(NAMES)]} {number}"


def item_summary(number: int) -> str:
    """What was ordered."""
    return f"{number % 7 + 1} x {ITEMS[number % len(ITEMS)]}"


def address(number: int) -> str:
    """Where it goes."""
    return f"{number % 199 + 1} {STREETS[number % len(STREETS)]}, Lagos"


def body(number: int) -> bytes:
    """An order's body, about 250 bytes; each number gives another."""
    return json.dumps(
        {
            "customer_details": {
                "name": name(number),
                "email": email(number),
                "phone": f"+234800{number:07d}",
            },
            "item_summary": item_summary(number),
            "address": address(number),
            "tracking_status": "PENDING",
        }
    ).encode()


def sign(key: str, content: bytes) -> str:
    """The value of `X-Webhook-Signature`."""
    return hmac.new(key.encode(), content, hashlib.sha256).hexdigest()


class Signed(NamedTuple):
    """A signed request.

    Attributes:
        path: where it goes; empty for the path of the URL that is loaded.
        headers: but for Host and those of the body.
        content: the body, in one line.
    """

    path: str
    headers: Mapping[str, str]
    content: bytes


def signed(key: str, content: bytes) -> Signed:
    """A request of our own kind."""
    return Signed("", {"X-API-Key": key, "X-Webhook-Signature": sign(key, content)}, content)


def as_sent(url: str, request: Signed) -> bytes:
    """A signed request to `url`, as it travels."""
    parts = urlsplit(url)
    headers = {
        "Host": parts.netloc,
        "Content-Type": "application/json",
        "Content-Length": str(len(request.content)),
        **request.headers,
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    start = f"POST {request.path or parts.path} HTTP/1.1\r\n"
    return f"{start}{head}\r\n".encode() + request.content


def write(path: Path, keys: Sequence[str], count: int, first: int = 0) -> None:
    """Write a file of orders of our own kind, signed by `X-API-Key`.

    Args:
        path: where to.
        keys: the senders' webhook secrets, used in turn.
        count: how many.
        first: the number of the first; see `body`.
    """
    numbers = range(first, first + count)
    write_all(path, (signed(keys[number % len(keys)], body(number)) for number in numbers))


def write_all(path: Path, requests: Iterable[Signed]) -> None:
    """Write a file of signed requests, as `read` and wrk.lua read it: a line for the path, one for
    each header, an empty one, and one for the body."""
    with path.open("w") as file:
        for request in requests:
            file.write(f"{request.path}\n")
            file.writelines(f"{name}: {value}\n" for name, value in request.headers.items())
            file.write(f"\n{request.content.decode()}\n")


def read(path: Path) -> Iterator[Signed]:
    """What `write` and `write_all` have written."""
    lines = iter(path.read_text().splitlines())
    for where in lines:
        headers = dict(line.split(": ", 1) for line in iter(lambda: next(lines), ""))
        yield Signed(where, headers, next(lines).encode())
