"""Files of orders, as `fellow send` and the portal read them: JSON lines, a JSON array, or CSV."""

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
"""What a key looks like that was derived here."""


@dataclass(frozen=True, slots=True)
class Line:
    """One order of a file, or what should have been one.

    Attributes:
        number: of its line or element, from 1.
        body: what is signed and sent.
        key: its `Idempotency-Key`.
        problem: why it cannot be sent; empty when it can.
    """

    number: int
    body: bytes
    key: str
    problem: str = ""


def guess(name: str, content: bytes) -> Format:
    """The format, by the file's name or else by how it begins."""
    if name.lower().endswith(".csv"):
        return "csv"
    return "json" if content.lstrip().startswith(b"[") else "jsonl"


def read(content: bytes, format_: Format, batch: str = "") -> list[Line]:
    """The orders of a file.

    A key is derived from the batch, the order and how often the same order came before it in the
    file. So to send a file again doubles nothing, and the same order in another file is another.

    Args:
        content: the whole file.
        format_: how it is written.
        batch: names what the file is; its content does when not given. With a name, a file that was
            mended keeps the keys of what was not changed.

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


def as_failed(line: Line, why: Failed) -> str:
    """A line for the file of those that failed, which can be sent again: under the same key."""
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
        given = json.loads(body)
        return str(given["idempotency_key"]), str(given["body"]).encode()
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def _key(batch: str, body: bytes, before: int) -> str:
    parts = b"\x1f".join((batch.encode(), body, str(before).encode()))
    return f"fellow-{hashlib.sha256(parts).hexdigest()[:32]}"


def _problem(body: bytes) -> str:
    try:
        is_object = isinstance(json.loads(body), dict)
    except (ValueError, RecursionError) as error:
        return f"It is no JSON: {error}"
    return "" if is_object else "It is no JSON object."


def _json_lines(content: bytes) -> Iterator[tuple[int, bytes, str]]:
    for number, line in enumerate(content.split(b"\n"), 1):
        if line.strip():
            key, body = _failed_before(line) or ("", line.strip())
            yield number, body, key


def _json_array(content: bytes) -> Iterator[tuple[int, bytes, str]]:
    try:
        orders = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise FileError(f"it is no JSON: {error}") from None
    if not isinstance(orders, list):
        raise FileError("it is no JSON array")
    for number, order in enumerate(orders, 1):
        yield number, json.dumps(order, ensure_ascii=False).encode(errors="replace"), ""
