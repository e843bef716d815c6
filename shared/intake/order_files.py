"""Files of orders, as `fellow send` reads them: JSON lines, a JSON array, or CSV."""

import csv
import hashlib
import io
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Format = Literal["jsonl", "json", "csv"]

CSV_COLUMNS = (
    "type", "order_number", "order_id", "name", "email", "phone", "item_summary", "address",
    "tracking_status", "note", "reason", "carrier", "tracking_number", "tracking_url",
    "estimated_delivery",
)  # fmt: skip
METADATA = "metadata."
"""What the name of a column begins with that is a member of an order's metadata."""
_CUSTOMER = ("name", "email", "phone")


class FileError(Exception):
    """The file cannot be read at all; the message says why."""


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
    if name.endswith(".csv"):
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
    bodies = {"jsonl": _json_lines, "json": _json_array, "csv": _csv}[format_](content)
    lines: list[Line] = []
    seen: Counter[bytes] = Counter()
    for number, body in bodies:
        kept = _failed_before(body) if format_ == "jsonl" else None
        if kept is not None:
            key, body = kept
        else:
            key = _key(batch, body, seen[body])
            seen[body] += 1
        lines.append(Line(number, body, key, _problem(body)))
    return lines


def as_failed(line: Line, code: str, error: str) -> str:
    """A line for the file of those that failed, which can be sent again: under the same key."""
    failed = {
        "line": line.number,
        "code": code,
        "error": error,
        "idempotency_key": line.key,
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


def _json_lines(content: bytes) -> Iterator[tuple[int, bytes]]:
    for number, line in enumerate(content.split(b"\n"), 1):
        if line.strip():
            yield number, line.strip()


def _json_array(content: bytes) -> Iterator[tuple[int, bytes]]:
    try:
        orders = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise FileError(f"it is no JSON: {error}") from None
    if not isinstance(orders, list):
        raise FileError("it is no JSON array")
    for number, order in enumerate(orders, 1):
        yield number, json.dumps(order, ensure_ascii=False).encode(errors="replace")


def _csv(content: bytes) -> Iterator[tuple[int, bytes]]:
    try:
        rows = csv.DictReader(io.StringIO(content.decode(), newline=""), strict=True)
        named = {name for name in rows.fieldnames or () if not name.startswith(METADATA)}
        unknown = named - set(CSV_COLUMNS)
        if unknown:
            raise FileError(
                f"unknown columns: {', '.join(sorted(unknown))}. They may be "
                f"{', '.join(CSV_COLUMNS)} or begin with {METADATA}; the first line names them"
            )
        for row in rows:
            if None in row:
                raise FileError(f"line {rows.line_num} has more cells than the first line")
            yield rows.line_num, json.dumps(_from_row(row), ensure_ascii=False).encode()
    except (csv.Error, UnicodeDecodeError) as error:
        raise FileError(f"it is no CSV in UTF-8: {error}") from None


def _from_row(row: dict[str, str | None]) -> dict[str, object]:
    """An event of a row; empty cells are left out."""
    given: dict[str, object] = {name: value for name, value in row.items() if value}
    customer = {name: given.pop(name) for name in _CUSTOMER if name in given}
    metadata = {
        name.removeprefix(METADATA): given.pop(name)
        for name in list(given)
        if name.startswith(METADATA)
    }
    if metadata:
        given["metadata"] = metadata
    return given | ({"customer_details": customer} if customer else {})
