"""Reads files of orders for `fellow send` and the portal: JSON lines, a JSON array, or CSV."""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from shared.intake import csv_files
from shared.intake.csv_files import Failed, FileError

Format = Literal["jsonl", "json", "csv"]
OURS = re.compile(r"fellow-[0-9a-f]{32}\Z")
"""Pattern of keys derived by `read`."""


@dataclass(frozen=True, slots=True)
class Line:
    """One order of a file, valid or not.

    Attributes:
        number: of its line or element, from 1.
        body: the body to sign and send.
        key: its `Idempotency-Key`.
        problem: why it cannot be sent; empty if it can.
    """

    number: int
    body: bytes
    key: str
    problem: str = ""


def guess(name: str, content: bytes) -> Format:
    """Guess the format by the file's name, or else by its first character."""
    if name.lower().endswith(".csv"):
        return "csv"
    return "json" if content.lstrip().startswith(b"[") else "jsonl"


def read(content: bytes, format_: Format, batch: str = "") -> list[Line]:
    """Return the orders of a file, with derived keys.

    A key is derived from the batch, the body, and the number of equal bodies before it in the file.
    So sending a file again creates no duplicates, and the same order in another file is a new one.

    Args:
        content: the whole file.
        format_: of the file.
        batch: identifies the file; by default the hash of its content. With a name, unchanged
            orders keep their keys when the file is corrected.

    Raises:
        FileError: it is not of this format.
    """
    batch = batch or hashlib.sha256(content).hexdigest()
    content = content.removeprefix(b"\xef\xbb\xbf")
    bodies = {"jsonl": _json_lines, "json": _json_array, "csv": csv_files.rows}[format_](content)
    lines: list[Line] = []
    seen: Counter[bytes] = Counter()
    for number, body, key in bodies:
        if not key:
            key = _key(batch, body, seen[body])
            seen[body] += 1
        lines.append(Line(number, body, key, _problem(body)))
    return lines


def failed_line(line: Line, why: Failed) -> str:
    """Return a JSON line for the file of failed orders, which can be sent again with its keys."""
    failed = {
        "line": line.number,
        "code": why.code,
        "error": why.error,
        "idempotency_key": why.key,
        "body": line.body.decode(errors="replace"),
    }
    return json.dumps(failed, ensure_ascii=False)


def _failed_before(body: bytes) -> tuple[str, bytes] | None:
    if b'"idempotency_key"' not in body:
        return None
    try:
        failed = json.loads(body)
        return str(failed["idempotency_key"]), str(failed["body"]).encode()
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def _key(batch: str, body: bytes, before: int) -> str:
    parts = b"\x1f".join((batch.encode(), body, str(before).encode()))
    return f"fellow-{hashlib.sha256(parts).hexdigest()[:32]}"


def _problem(body: bytes) -> str:
    try:
        is_object = isinstance(json.loads(body), dict)
    except (ValueError, RecursionError) as error:
        return f"It is not JSON: {error}"
    return "" if is_object else "It is not a JSON object."


def _json_lines(content: bytes) -> Iterator[tuple[int, bytes, str]]:
    for number, line in enumerate(content.split(b"\n"), 1):
        if line.strip():
            key, body = _failed_before(line) or ("", line.strip())
            yield number, body, key


def _json_array(content: bytes) -> Iterator[tuple[int, bytes, str]]:
    try:
        orders = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise FileError(f"it is not JSON: {error}") from None
    if not isinstance(orders, list):
        raise FileError("it is not a JSON array")
    for number, order in enumerate(orders, 1):
        yield number, json.dumps(order, ensure_ascii=False).encode(errors="replace"), ""
