"""Orders in CSV (RFC 4180), as spreadsheets write it; and rows of it given back."""

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
"""What the name of a column begins with that is a member of an order's metadata."""
KEY = "idempotency_key"
GIVEN_BACK = ("line", "code", "error", KEY)
"""Columns that a row has which was given back: passed over when it comes again, but for the key."""
_CUSTOMER = ("name", "email", "phone")
_SEPARATORS = ",;\t"  # Excel takes the semicolon where a comma is in numbers
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")
# What a spreadsheet takes for a formula begins so (OWASP, "CSV Injection"); behind an apostrophe it
# is text. Phone numbers begin so too.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
_TEXT = "'"


class FileError(Exception):
    """The file cannot be read at all; the message says why."""


@dataclass(frozen=True, slots=True)
class Failed:
    """Why a row was not taken.

    Attributes:
        code: of the API's error, or one of ours.
        error: a sentence.
        key: its `Idempotency-Key`.
    """

    code: str
    error: str
    key: str


def rows(content: bytes) -> Iterator[tuple[int, bytes, str]]:
    """Each row: the line that it begins in, its event as JSON, and its own key where it has one.

    Rows in which nothing stands are passed over, and so are empty cells.

    Raises:
        FileError: it is no CSV in UTF-8, or has columns that nobody knows.
    """
    names, cells = _read(content)
    # Only a file that was given back has them, and with a key.
    passed_over = GIVEN_BACK if KEY in names else ()
    unknown = {name for name in names if not name.startswith(METADATA)} - {*COLUMNS, *passed_over}
    if unknown:
        raise FileError(
            f"unknown columns: {', '.join(sorted(unknown))}. They may be "
            f"{', '.join(COLUMNS)} or begin with {METADATA}; the first line names them"
        )
    for number, row in cells:
        given = {name: _plain(cell) for name, cell in zip(names, row, strict=False) if cell}
        key = given.get(KEY, "")
        event = _event({name: cell for name, cell in given.items() if name not in GIVEN_BACK})
        yield number, json.dumps(event, ensure_ascii=False).encode(), key


def given_back(content: bytes, failed: Mapping[int, Failed]) -> bytes:
    """The rows of a file that were not taken, as they came, each with why.

    Args:
        content: the file.
        failed: by the line that a row begins in.
    """
    names, cells = _read(content)
    kept = [place for place, name in enumerate(names) if name not in GIVEN_BACK]
    written = io.StringIO()
    writer = csv.writer(written, delimiter=_separator(_text(content)))
    writer.writerow([*(names[place] for place in kept), *GIVEN_BACK])
    for number, row in cells:
        if number not in failed:
            continue
        why = failed[number]
        # Of a row with fewer cells than the first line the last ones are empty.
        own = [row[place] if place < len(row) else "" for place in kept]
        writer.writerow(
            [_as_text(cell) for cell in (*own, str(number), why.code, why.error, why.key)]
        )
    # By the mark spreadsheets know that it is UTF-8.
    return written.getvalue().encode("utf-8-sig")


def _read(content: bytes) -> tuple[list[str], Iterator[tuple[int, list[str]]]]:
    text = _text(content)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=_separator(text), strict=True)
    lines = _numbered(reader)
    _, names = next(lines, (0, []))
    names = [name.strip() for name in names]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise FileError(f"columns that are there twice: {', '.join(twice) or 'without a name'}")
    return names, _fitting(lines, len(names))


def _numbered(reader: Any) -> Iterator[tuple[int, list[str]]]:
    number = 1
    try:
        for cells in reader:
            if any(cells):
                yield number, cells
            number = reader.line_num + 1
    except csv.Error as error:
        raise FileError(f"it is no CSV: line {number}: {error}") from None


def _fitting(lines: Iterator[tuple[int, list[str]]], most: int) -> Iterator[tuple[int, list[str]]]:
    for number, cells in lines:
        if any(cells[most:]):
            raise FileError(f"line {number} has more cells than the first line")
        yield number, cells


def _text(content: bytes) -> str:
    if content.startswith(_UTF_16):
        raise FileError("it is in UTF-16, and no CSV in UTF-8: save it as CSV UTF-8")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise FileError(
            f"it is no CSV in UTF-8: line {line} has the byte {content[error.start]:#04x}, which "
            "is a letter in Latin-1 or Windows-1252: save it as CSV UTF-8"
        ) from None


def _separator(text: str) -> str:
    """The one that the first line has most of."""
    first = text.partition("\n")[0]
    return max(_SEPARATORS, key=first.count)


def _plain(cell: str) -> str:
    return cell[1:] if cell[0] == _TEXT and cell[1:2] in _FORMULA else cell


def _as_text(cell: str) -> str:
    return _TEXT + cell if cell.startswith(_FORMULA) else cell


def _event(given: Mapping[str, str]) -> dict[str, object]:
    """An event of a row."""
    event: dict[str, object] = {
        name: cell
        for name, cell in given.items()
        if name not in _CUSTOMER and not name.startswith(METADATA)
    }
    metadata = {
        name.removeprefix(METADATA): cell
        for name, cell in given.items()
        if name.startswith(METADATA)
    }
    if metadata:
        event["metadata"] = metadata
    customer = {name: given[name] for name in _CUSTOMER if name in given}
    return event | ({"customer_details": customer} if customer else {})
