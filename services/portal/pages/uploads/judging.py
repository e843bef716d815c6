"""A file as it would be taken: each row judged by the rules of the webhook, nothing sent."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from uuid import UUID

from shared.bus.contract.events import CREATED
from shared.bus.contract.message import Message
from shared.intake import bodies, csv_files, order_files
from shared.intake.bodies import BodyError
from shared.intake.csv_files import Failed, FileError
from shared.intake.order_files import Line

MOST_BYTES = 524_288
MOST_ROWS = 2_000
INVALID = "invalid_body"
"""The code that the webhook answers to what the rules refuse."""


@dataclass(frozen=True, slots=True)
class Refused:
    """A row that would not be taken, and all that is wrong with it."""

    line: Line
    faults: tuple[str, ...]


@dataclass(frozen=True)
class File:
    """A file, judged.

    Attributes:
        name: as the browser calls it.
        content: all of it.
        taken: the rows that go.
        refused: the others.
        orders: how many of those that go are orders; the others are updates.
    """

    name: str
    content: bytes
    taken: tuple[Line, ...]
    refused: tuple[Refused, ...]
    orders: int

    @property
    def updates(self) -> int:
        """How many of those that go say something new of an order."""
        return len(self.taken) - self.orders

    @property
    def in_words(self) -> str:
        """What goes, and how many emails go out for it: each update is told as an order is."""
        parts = [
            f"{count:,} {name}{'' if count == 1 else 's'}"
            for count, name in ((self.orders, "order"), (self.updates, "update"))
            if count
        ]
        count = len(self.taken)
        emails = "email goes" if count == 1 else "emails go"
        return f"{' and '.join(parts)}: up to {count:,} {emails} out"

    def given_back(self, failed: Mapping[int, Failed]) -> tuple[str, str, bytes]:
        """The rows that were not taken, in the form in which they came: name, kind and content.

        Args:
            failed: by line, why those were not that the rules would have taken.
        """
        because = {
            each.line.number: Failed(INVALID, " ".join(each.faults), each.line.key)
            for each in self.refused
        } | dict(failed)
        stem = self.name.rpartition(".")[0] or "orders"
        if order_files.guess(self.name, self.content) == "csv":
            content = csv_files.given_back(self.content, because)
            return f"{stem}.failed.csv", "text/csv; charset=utf-8", content
        lines = sorted(
            (*self.taken, *(each.line for each in self.refused)), key=lambda line: line.number
        )
        written = "".join(
            f"{order_files.as_failed(line, because[line.number])}\n"
            for line in lines
            if line.number in because
        )
        return f"{stem}.failed.jsonl", "application/x-ndjson", written.encode()


def judge(name: str, content: bytes, account_id: str, body_bytes: int = MOST_BYTES) -> File:
    """Judge a file.

    Args:
        name: as the browser calls it.
        content: all of it.
        account_id: who would send it.
        body_bytes: the largest body that the webhook takes.

    Raises:
        FileError: it is too large, no file of orders, or there is nothing in it.
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
    made: dict[UUID, Line] = {}
    orders = 0
    for line in lines:
        try:
            order_id, message = _read(line, UUID(account_id), body_bytes)
            if message.type in CREATED:
                _refuse_another(made.setdefault(order_id, line), line)
                orders += 1
        except BodyError as error:
            refused.append(Refused(line, error.faults))
        else:
            taken.append(line)
    return File(name, content, tuple(taken), tuple(refused), orders)


def _refuse_another(before: Line, line: Line) -> None:
    if before.body != line.body:
        raise BodyError(f"Line {before.number} has another order of its number or key.")


def _read(line: Line, account_id: UUID, body_bytes: int) -> tuple[UUID, Message]:
    if len(line.body) > body_bytes:
        raise BodyError(f"It is larger than {body_bytes:,} bytes, the most that is taken.")
    if not order_files.OURS.match(line.key):
        raise BodyError("Its idempotency_key is none that we made: leave it out.")
    return bodies.read(line.body, account_id, time.time(), None, line.key)
