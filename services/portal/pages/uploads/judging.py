"""Validates a file: each row by the rules of the webhook, without sending it."""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from shared.bus.contract.events import CREATED
from shared.bus.contract.message import Message
from shared.intake import bodies, csv_files, order_files
from shared.intake.bodies import BodyError
from shared.intake.csv_files import Failed, FileError
from shared.intake.order_files import Line
from shared.intake.unread_members import MOST_WARNINGS

MOST_BYTES = 524_288
MOST_ROWS = 2_000
INVALID = "invalid_body"
"""The webhook's error code for an invalid row."""


@dataclass(frozen=True, slots=True)
class Refused:
    """An invalid row and its faults."""

    line: Line
    faults: tuple[str, ...]


@dataclass(frozen=True)
class File:
    """A validated file.

    Attributes:
        name: the file's name in the browser.
        content: the raw bytes.
        taken: the valid rows.
        refused: the invalid rows.
        orders: how many valid rows are orders; the rest are updates.
        warnings: the webhook's warnings about valid rows, each with the number of its rows.
    """

    name: str
    content: bytes
    taken: tuple[Line, ...]
    refused: tuple[Refused, ...]
    orders: int
    warnings: tuple[tuple[str, int], ...] = ()

    @property
    def updates(self) -> int:
        """Return how many valid rows are updates of orders."""
        return len(self.taken) - self.orders

    @property
    def in_words(self) -> str:
        """Return what is sent and how many emails follow, in words: one for each row at most."""
        parts = [
            f"{count:,} {name}{'' if count == 1 else 's'}"
            for count, name in ((self.orders, "order"), (self.updates, "update"))
            if count
        ]
        count = len(self.taken)
        emails = "email goes" if count == 1 else "emails go"
        return f"{' and '.join(parts)}: up to {count:,} {emails} out"

    def given_back(self, failed: Mapping[int, Failed]) -> tuple[str, str, bytes]:
        """Return the rows that were not accepted, in the file's format: name, type and content.

        Args:
            failed: the valid rows that the webhook refused, by line number.
        """
        reasons = {
            each.line.number: Failed(INVALID, " ".join(each.faults), each.line.key)
            for each in self.refused
        } | dict(failed)
        stem = self.name.rpartition(".")[0] or "orders"
        if order_files.guess(self.name, self.content) == "csv":
            content = csv_files.failed_rows(self.content, reasons)
            return f"{stem}.failed.csv", "text/csv; charset=utf-8", content
        lines = sorted(
            (*self.taken, *(each.line for each in self.refused)), key=lambda line: line.number
        )
        written = "".join(
            f"{order_files.failed_line(line, reasons[line.number])}\n"
            for line in lines
            if line.number in reasons
        )
        return f"{stem}.failed.jsonl", "application/x-ndjson", written.encode()


def judge(name: str, content: bytes, account_id: str, body_bytes: int = MOST_BYTES) -> File:
    """Validate a file.

    Args:
        name: the file's name in the browser.
        content: the raw bytes.
        account_id: the business.
        body_bytes: the webhook's limit of a body, in bytes.

    Raises:
        FileError: it is too large, of an unknown format, or empty.
    """
    if len(content) > MOST_BYTES:
        raise FileError(f"it is larger than {MOST_BYTES // 1024} KiB: split it")
    lines = order_files.read(content, order_files.guess(name, content))
    if not lines:
        raise FileError("there is no order in it")
    if len(lines) > MOST_ROWS:
        raise FileError(f"it has {len(lines):,} rows, and may have {MOST_ROWS:,}: split it")
    taken: list[Line] = []
    refused: list[Refused] = []
    created: dict[UUID, Line] = {}
    orders = 0
    warned: Counter[str] = Counter()
    for line in lines:
        try:
            order_id, message, warnings = _read(line, UUID(account_id), body_bytes)
            if message.type in CREATED:
                _refuse_different(created.setdefault(order_id, line), line)
                orders += 1
        except BodyError as error:
            refused.append(Refused(line, error.faults))
        else:
            taken.append(line)
            warned.update(warnings)
    commonest = tuple(warned.most_common(MOST_WARNINGS))
    return File(name, content, tuple(taken), tuple(refused), orders, commonest)


def _refuse_different(before: Line, line: Line) -> None:
    if before.body != line.body:
        raise BodyError(f"Line {before.number} has another order of its number or key.")


def _read(line: Line, account_id: UUID, body_bytes: int) -> tuple[UUID, Message, Sequence[str]]:
    if len(line.body) > body_bytes:
        raise BodyError(f"It is larger than {body_bytes:,} bytes, the most that is taken.")
    if not order_files.OURS.match(line.key):
        raise BodyError("Its idempotency_key is none that we made: leave it out.")
    return bodies.read_with_warnings(line.body, account_id, time.time(), None, line.key)
