"""The connection on which fresh rows are published at full speed.

A row that is refused or returned is parked. One that is not confirmed in time is in doubt: its
destination is left to the careful lane (careful.py), and the connection is replaced, since the
broker may have stopped reading it (RabbitMQ, "Flow Control").
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import structlog
from sqlalchemy import Connection, Row, text
from sqlalchemy.exc import DBAPIError

from services.relay import rows
from services.relay.careful import Careful
from services.relay.rehearsal import CannotTryError
from services.relay.rows import Outcome
from services.relay.vetting import Vetting, kind_of
from shared.bus.publish.confirms import NackedError, PublishError, ReturnedError
from shared.bus.publish.publisher import Publisher

PATIENCE, MOST_PATIENCE = 5.0, 8.0
"""Seconds until an unconfirmed row is in doubt; the second is for a broker known to be slow."""

log = structlog.get_logger()
_Sent = tuple[Row[Any], "asyncio.Future[None]"]


class FullSpeed:
    """Publishes fresh rows, for all lanes of a relay.

    Args:
        connect: makes a publisher.
        vetting: decides which rows may be sent.
        careful: takes over the destinations of rows that are in doubt.
        turned: called again and again while a batch waits for the end of the broker's alarm.
    """

    def __init__(
        self,
        connect: Callable[[], Publisher],
        vetting: Vetting,
        careful: Careful,
        turned: Callable[[], object],
    ) -> None:
        self._connect = connect
        self._vetting = vetting
        self._careful = careful
        self._turned = turned
        self._abandoned: set[asyncio.Task[None]] = set()
        self._stopping = asyncio.Event()
        self.publisher = connect()
        """The current one."""

    async def start(self, stopping: asyncio.Event) -> None:
        """Connect; with `stopping` set, no confirm is waited for beyond the usual time."""
        self._stopping = stopping
        await self.publisher.start()

    async def stop(self) -> None:
        """Close the connection; the lanes have waited for its confirms."""
        await self.publisher.stop(0)

    async def closed(self) -> None:
        """Wait until the connections that were replaced are closed."""
        await asyncio.gather(*self._abandoned, return_exceptions=True)

    async def publish(
        self, connection: Connection, found: Sequence[Row[Any]], outcome: Outcome, *, is_full: bool
    ) -> None:
        """Publish rows and add their outcome.

        Args:
            connection: its transaction holds the rows' locks.
            found: the rows.
            outcome: added to.
            is_full: whether there may be further rows behind these.

        Raises:
            PublishError: nothing was sent.
            sqlalchemy.exc.DBAPIError: the transaction was lost while the broker had an alarm; the
                outcome of all sent rows was added.
        """
        publisher, known = self.publisher, outcome.no_longer_fresh
        sent: list[_Sent] = []
        unknown = []
        passes = self._vetting.passes
        try:
            for row in found:
                body = row[-1]
                if body is None:
                    outcome.deferred.append(rows.key(row))
                elif passes(kind_of(row), len(body)):
                    self._send(publisher, row, sent, outcome)
                else:
                    unknown.append(row)
            if sent:
                # Vetting takes time; the rows that were sent do not wait for it.
                outcome.deferred += [rows.key(row) for row in unknown]
            elif unknown:
                good, refused = await self._vetting.vet(
                    unknown, lambda: publisher.state == "connected"
                )
                outcome.parked |= refused
                for row in good:
                    self._send(publisher, row, sent, outcome)
        except Exception as error:
            if isinstance(error, CannotTryError) and is_full:
                # There may be rows of known kinds behind these.
                outcome.deferred += [rows.key(row) for row in unknown if self._vetting.knows_any]
            # If any row was sent, its outcome has to be settled.
            if not sent and outcome.no_longer_fresh == known:
                raise
        if sent:
            confirms = [confirm for _, confirm in sent]
            lost = await self._wait_for_confirms(connection, publisher, confirms)
            self._sort(publisher, sent, outcome)
            if lost is not None:
                raise lost

    async def _wait_for_confirms(
        self,
        connection: Connection,
        publisher: Publisher,
        confirms: Sequence["asyncio.Future[None]"],
    ) -> DBAPIError | None:
        """Wait for confirms; return the error if the transaction was lost meanwhile."""
        lost = None
        patience = min(max(PATIENCE, 3 * self._careful.confirm_seconds), MOST_PATIENCE)
        all_of_them = asyncio.create_task(_all_done(confirms))
        try:
            while (await asyncio.wait([all_of_them], timeout=patience))[1]:
                # A broker with an alarm confirms nothing, which is not the fault of any row.
                if publisher.state != "blocked" or self._stopping.is_set():
                    break
                self._turned()
                # A statement keeps the transaction, and so the locks, from timing out. Without the
                # database the confirms are waited for all the same.
                if lost is None:
                    try:
                        await asyncio.to_thread(connection.execute, text("SELECT 1"))
                    except DBAPIError as error:
                        lost = error
        finally:
            all_of_them.cancel()
        return lost

    def _send(
        self, publisher: Publisher, row: Row[Any], sent: list[_Sent], outcome: Outcome
    ) -> None:
        try:
            sent.append((row, publisher.send(rows.checked(row))))
        except PublishError:
            raise
        except Exception as error:  # noqa: BLE001 - an encoding error of this row
            outcome.parked[rows.key(row)] = rows.unfit(error)

    def _sort(self, publisher: Publisher, sent: list[_Sent], outcome: Outcome) -> None:
        """Add the outcome of sent rows."""
        late = set()
        for row, confirm in sent:
            if not confirm.done():
                late.add((row.exchange, row.routing_key))
                outcome.doubtful[rows.key(row)] = "sent, and not confirmed in time"
                continue
            error = confirm.exception()
            if error is None:
                outcome.confirmed.append(rows.key(row))
            elif isinstance(error, ReturnedError | NackedError):
                outcome.parked[rows.key(row)] = str(error)
            else:
                self._vetting.forget()
                outcome.doubtful[rows.key(row)] = f"sent, and the confirm was lost: {error}"
        if late:
            self._careful.suspect(late)
            self._abandon(publisher)

    def _abandon(self, publisher: Publisher) -> None:
        """Replace the connection: the broker may have stopped reading this one."""
        if publisher is not self.publisher:
            return
        log.warning("connection_abandoned", outstanding=publisher.outstanding)
        self.publisher = self._connect()

        async def change() -> None:
            # In this order, so that the new one does not begin at the unresponsive address.
            try:
                await publisher.abandon()
            finally:
                if not self._stopping.is_set():
                    await self.publisher.start()

        task = asyncio.create_task(change())
        self._abandoned.add(task)
        task.add_done_callback(self._abandoned.discard)


async def _all_done(confirms: Iterable["asyncio.Future[None]"]) -> None:
    """Wait for confirms in their order.

    Of confirms that arrive together only one has a callback; `gather` would add one, and a turn of
    the loop, for each row.
    """
    for confirm in confirms:
        if not confirm.done():
            await asyncio.wait((confirm,))
