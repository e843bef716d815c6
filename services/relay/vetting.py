"""Decide which rows may be sent at full speed: those of kinds that the broker accepts.

A message that the broker refuses closes the channel, with the confirms of a thousand others. So the
first message of each kind, and every larger one, is tried in a transaction first (rehearsal.py).
"""

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import structlog
from sqlalchemy import Row

from services.relay import authors, rows
from services.relay.rehearsal import CannotTryError, RefusedError, Rehearsal
from services.relay.rows import Destination, Key
from shared.bus.contract import journal
from shared.bus.contract.message import Message
from shared.bus.publish.confirms import UnavailableError
from shared.ids import new_id

SMALL_BYTES = 64 * 1024
"""A body size that every broker accepts, whatever its `max_message_size`."""

log = structlog.get_logger()

Kind = tuple[str, str, str, str]
"""Writer, exchange, routing key and type."""


class Vetting:
    """Knows which kinds of rows the broker accepts; for one loop.

    Args:
        amqp_url: with the user that the rows are published as.
    """

    def __init__(self, amqp_url: str) -> None:
        self._rehearsal = Rehearsal(amqp_url)
        self._lock = asyncio.Lock()
        self._kinds: set[Kind] = set()
        self._largest = SMALL_BYTES
        self._places: set[str] = set()  # tried exchanges of the journal
        self.missing: set[str] = set()
        """The exchanges of the journal that cannot be written to; shared with the publishers."""

    def passes(self, kind: Kind, size: int) -> bool:
        """Whether a row may be sent without a try.

        Args:
            kind: of the row.
            size: of its body, in bytes.
        """
        return kind in self._kinds and size <= self._largest

    @property
    def knows_any(self) -> bool:
        """Whether any kind passes."""
        return bool(self._kinds)

    def forget(self) -> None:
        """Forget everything: a connection was lost, and the broker may have changed."""
        self._kinds.clear()
        self._largest = SMALL_BYTES
        self._places.clear()
        self.missing.clear()

    async def vet(
        self, found: Sequence[Row[Any]], is_connected: Callable[[], bool] = lambda: False
    ) -> tuple[list[Row[Any]], dict[Key, str]]:
        """Try rows whose kind is unknown, up to the first that the broker does not answer.

        Args:
            found: the rows.
            is_connected: whether another connection works, so that a missing answer is the fault of
                the row.

        Returns:
            The rows that may be sent, in their order, and the reasons of refused rows. Rows in
            neither of them were not tried.

        Raises:
            PublishError: the broker has an alarm, or does not answer.
            Exception: of kombu or py-amqp, if the broker is unreachable.
        """
        async with self._lock:
            return await asyncio.to_thread(self._vet, found, is_connected)

    async def close(self) -> None:
        """Close the connection for tries."""
        async with self._lock:
            await asyncio.to_thread(self._rehearsal.close)

    def _vet(
        self, found: Sequence[Row[Any]], is_connected: Callable[[], bool]
    ) -> tuple[list[Row[Any]], dict[Key, str]]:
        good: list[Row[Any]] = []
        refused: dict[Key, str] = {}
        closed: dict[Destination, str] = {}
        nowhere: CannotTryError | None = None
        for row in found:
            kind, destination = kind_of(row), (row.exchange, row.routing_key)
            why = authors.refusal(*kind) or closed.get(destination, "")
            if not why and not self.passes(kind, len(row.body)):
                if nowhere is not None:
                    continue
                try:
                    self._rehearse(row)
                    self._kinds.add(kind)
                    self._largest = max(self._largest, len(row.body))
                except RefusedError as error:
                    why = str(error)
                    if error.is_destination:
                        closed[destination] = why
                except CannotTryError as error:
                    nowhere = error  # the row waits; rows that pass do not
                    continue
                except (UnavailableError, TimeoutError) as error:
                    if not is_connected():
                        raise
                    # It took a whole timeout; the rows behind it are tried in the next turn.
                    refused[rows.key(row)] = f"tried, and the broker did not answer: {error}"
                    break
            if why:
                refused[rows.key(row)] = why
            else:
                good.append(row)
        if nowhere is not None and not good and not refused:
            raise nowhere
        return good, refused

    def _rehearse(self, row: Row[Any]) -> None:
        self._rehearsal.try_out(rows.message(row))
        place = journal.place(row.exchange, row.routing_key)
        if place and place not in self._places:
            try:
                self._rehearsal.try_out(_journal_message(place))
            except RefusedError as error:
                # Messages are published without a journal that cannot be written to.
                self.missing.add(place)
                log.warning("no_journal", reason=str(error))
            self._places.add(place)


def kind_of(row: Any) -> Kind:
    """Return the kind of a row."""
    return row[9], row[2], row[3], row[4]  # by position: see rows.message


def _journal_message(place: str) -> Message:
    name = str(new_id())
    return Message(
        exchange=place,
        routing_key="",
        type=journal.TYPE,
        message_id=name,
        body=b" " * (journal.MAX_BYTES * 101 // 100),  # of a batch with its separators
        correlation_id=name,
        time=datetime.now(UTC),
        source="relay",
    )
