"""Reads orders from CSV (RFC 4180) as spreadsheets write it, and writes the failed rows."""

import csv
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

COLUMNS = (
    "type", "order_number", "order_id", "name", "email", "phone", "item_summary", "address",
    "tracking_status", "note", "reason", "carrier", "tracking_number", "tracking_url",
    "estimated_delivery", "timestamp",
)  # fmt: skip
METADATA = "metadata."
"""Prefix of columns that are members of an order's metadata."""
KEY = "idempotency_key"
FAILURE_COLUMNS = ("line", "code", "error", KEY)
"""Columns added to failed rows; all but the key are ignored when the file is sent again."""
_CUSTOMER = ("name", "email", "phone")
_SEPARATORS = ",;\t"  # Excel writes semicolons in locales with a decimal comma
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")
# Prefixes that a spreadsheet evaluates as a formula (OWASP, "CSV Injection"), and of phone numbers;
# an apostrophe before them marks the cell as text.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
_TEXT = "'"


class FileError(Exception):
    """The file cannot be read."""


@dataclass(frozen=True, slots=True)
class Failed:
    """The failure of a row.

    Attributes:
        code: of the API's error, or a local one.
        error: a sentence.
        key: the row's `Idempotency-Key`.
    """

    code: str
    error: str
    key: str


def rows(content: bytes) -> Iterator[tuple[int, bytes, str]]:
    """Yield each row's first line number, its event as JSON, and its own key or an empty text.

    Empty rows and cells are skipped.

    Raises:
        FileError: it is not CSV in UTF-8, or has unknown columns.
    """
    names, cells = _read(content)
    # Files of failed rows have a key; without one these columns are unknown.
    ignored = FAILURE_COLUMNS if KEY in names else ()
    unknown = {name for name in names if not name.startswith(METADATA)} - {*COLUMNS, *ignored}
    if unknown:
        raise FileError(
            f"unknown columns: {', '.join(sorted(unknown))}. They may be "
            f"{', '.join(COLUMNS)} or begin with {METADATA}; the first line names them"
        )
    for number, row in cells:
        values = {name: _plain(cell) for name, cell in zip(names, row, strict=False) if cell}
        key = values.get(KEY, "")
        event = _event({name: cell for name, cell in values.items() if name not in FAILURE_COLUMNS})
        yield number, json.dumps(event, ensure_ascii=False).encode(), key


def failed_rows(content: bytes, failed: Mapping[int, Failed]) -> bytes:
    """Return a CSV file of the failed rows with the columns `FAILURE_COLUMNS` added.

    Args:
        content: the original file.
        failed: failures by the first line number of the row.
    """
    names, cells = _read(content)
    kept = [place for place, name in enumerate(names) if name not in FAILURE_COLUMNS]
    written = io.StringIO()
    writer = csv.writer(written, delimiter=_separator(_text(content)))
    writer.writerow([*(names[place] for place in kept), *FAILURE_COLUMNS])
    for number, row in cells:
        if number not in failed:
            continue
        why = failed[number]
        # A row may have fewer cells than the header.
        own = [row[place] if place < len(row) else "" for place in kept]
        writer.writerow(
            [_as_text(cell) for cell in (*own, str(number), why.code, why.error, why.key)]
        )
    # Spreadsheets recognise UTF-8 by the byte order mark.
    return written.getvalue().encode("utf-8-sig")


def _read(content: bytes) -> tuple[list[str], Iterator[tuple[int, list[str]]]]:
    text = _text(content)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=_separator(text), strict=True)
    lines = _numbered(reader)
    _, names = next(lines, (0, []))
    names = [name.strip() for name in names]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise FileError(f"duplicate columns: {', '.join(twice) or 'without a name'}")
    return names, _fitting(lines, len(names))


def _numbered(reader: Any) -> Iterator[tuple[int, list[str]]]:
    number = 1
    try:
        for cells in reader:
            if any(cells):
                yield number, cells
            number = reader.line_num + 1
    except csv.Error as error:
        raise FileError(f"it is not CSV: line {number}: {error}") from None


def _fitting(lines: Iterator[tuple[int, list[str]]], most: int) -> Iterator[tuple[int, list[str]]]:
    for number, cells in lines:
        if any(cells[most:]):
            raise FileError(f"line {number} has more cells than the first line")
        yield number, cells


def _text(content: bytes) -> str:
    if content.startswith(_UTF_16):
        raise FileError("it is in UTF-16, not in UTF-8: save it as CSV UTF-8")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise FileError(
            f"it is not CSV in UTF-8: line {line} has the byte {content[error.start]:#04x}, which "
            "is a letter in Latin-1 or Windows-1252: save it as CSV UTF-8"
        ) from None


def _separator(text: str) -> str:
    """Return the separator that is most frequent in the header."""
    first = text.partition("\n")[0]
    return max(_SEPARATORS, key=first.count)


def _plain(cell: str) -> str:
    return cell[1:] if cell[0] == _TEXT and cell[1:2] in _FORMULA else cell


def _as_text(cell: str) -> str:
    return _TEXT + cell if cell.startswith(_FORMULA) else cell


def _event(values: Mapping[str, str]) -> dict[str, object]:
    """Return the event of a row."""
    event: dict[str, object] = {
        name: cell
        for name, cell in values.items()
        if name not in _CUSTOMER and not name.startswith(METADATA)
    }
    metadata = {
        name.removeprefix(METADATA): cell
        for name, cell in values.items()
        if name.startswith(METADATA)
    }
    if metadata:
        event["metadata"] = metadata
    customer = {name: values[name] for name in _CUSTOMER if name in values}
    return event | ({"customer_details": customer} if customer else {})
