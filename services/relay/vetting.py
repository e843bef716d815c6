"""Which rows may go out at full speed: those of which the broker is known to take the like.

A message that the broker does not take ends the channel, and the confirms of a thousand others
with it. So the first of each kind is rehearsed (see rehearsal.py), and so is every large one; what
does not pass is parked before anything was risked for it.
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
"""A body that every broker takes, whatever its `max_message_size`."""

log = structlog.get_logger()

Kind = tuple[str, str, str, str]
"""Who wrote it, exchange, routing key, type."""


class Vetting:
    """What is known of the broker, and what is tried to know more. For one loop.

    Args:
        amqp_url: of the broker, as the user that the rows are published as.
    """

    def __init__(self, amqp_url: str) -> None:
        self._rehearsal = Rehearsal(amqp_url)
        self._lock = asyncio.Lock()
        self._kinds: set[Kind] = set()
        self._largest = SMALL_BYTES
        self._places: set[str] = set()  # of the journal, that were tried
        self.missing: set[str] = set()
        """The exchanges of the journal that cannot be written to, always the same object: whoever
        is told that a row passes knows at that moment what is missing."""

    def passes(self, kind: Kind, size: int) -> bool:
        """Whether a row may be sent at once.

        Args:
            kind: of the row.
            size: of its body, in bytes.
        """
        return kind in self._kinds and size <= self._largest

    @property
    def knows_any(self) -> bool:
        """Whether there are rows that pass."""
        return bool(self._kinds)

    def forget(self) -> None:
        """Know nothing any more: the connection was lost, and the broker may have changed."""
        self._kinds.clear()
        self._largest = SMALL_BYTES
        self._places.clear()
        self.missing.clear()

    async def vet(
        self, found: Sequence[Row[Any]], is_connected: Callable[[], bool] = lambda: False
    ) -> tuple[list[Row[Any]], dict[Key, str]]:
        """Try rows that do not pass yet, up to the first that the broker does not answer for.

        Args:
            found: the rows.
            is_connected: whether the broker is there by another connection: then it is the row's
                fault that it does not answer.

        Returns:
            Those that may be sent now, in their order, and why others may not. Of others
            nothing is known yet.

        Raises:
            PublishError: the broker has an alarm, or does not answer: at the first such row.
            Exception: of kombu or py-amqp, when the broker is away.
        """
        async with self._lock:
            return await asyncio.to_thread(self._vet, found, is_connected)

    async def close(self) -> None:
        """Close the connection that is rehearsed on."""
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
                    nowhere = error  # it waits; what passes does not wait for it
                    continue
                except (UnavailableError, TimeoutError) as error:
                    if not is_connected():
                        raise
                    # Each such row takes long: those behind it have another turn.
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
                # Nobody's order waits for a journal that cannot be written to.
                self.missing.add(place)
                log.warning("no_journal", reason=str(error))
            self._places.add(place)


def kind_of(row: Any) -> Kind:
    """What a row is, as far as it decides whether it may be published."""
    return row[9], row[2], row[3], row[4]  # by position: see rows.message


def _journal_message(place: str) -> Message:
    name = str(new_id())
    return Message(
        exchange=place,
        routing_key="",
        type=journal.TYPE,
        message_id=name,
        body=b" " * (journal.MAX_BYTES * 101 // 100),  # a batch, with what is between its events
        correlation_id=name,
        time=datetime.now(UTC),
        source="relay",
    )
