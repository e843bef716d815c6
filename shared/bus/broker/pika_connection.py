"""Keep one pika connection open in an asyncio loop, with failover between addresses.

pika is not thread-safe and does not survive a fork: connect after the fork, and use a connection
only from its loop's thread.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pika
from pika.adapters.asyncio_connection import AsyncioConnection
from pika.channel import Channel

from shared import versions
from shared.bus.broker import addresses
from shared.bus.broker.addresses import Pauses
from shared.bus.broker.pika_transport import LoopServices, OnAck
from shared.bus.broker.standing import Standing

Setup = Callable[[AsyncioConnection], Awaitable[None]]
CONNECT_TIMEOUT = 5.0  # seconds for TCP, TLS and the AMQP handshake
SETUP_TIMEOUT = 10.0  # seconds
AVOIDED_SECONDS = 60.0
"""For how long an address with an alarm is no alternative to another one with an alarm: most alarms
are of the whole cluster (RabbitMQ, "Memory and Disk Alarms")."""


class ConnectionClosedError(Exception):
    """The connection could not be opened, or closed."""


class Link:
    """Keeps one connection open.

    Args:
        amqp_url: one address or several.
        name: shown by the broker's tools.
        heartbeat: in seconds; a peer that is silent for two of them is considered dead.
        setup: awaited with each new connection; an exception closes it again.
        on_lost: called with the reason after each loss of a connection that was set up.
        on_ack: receives the acknowledgements on channel 1 instead of pika.
    """

    def __init__(
        self,
        amqp_url: str,
        *,
        name: str,
        heartbeat: int,
        setup: Setup,
        on_lost: Callable[[str], None],
        on_ack: OnAck | None = None,
    ) -> None:
        self._on_ack = on_ack
        self._addresses = addresses.of(amqp_url)
        self._heartbeat = heartbeat
        self._name = name
        self._setup = setup
        self._on_lost = on_lost
        self.standing = Standing(name)
        self._connection: AsyncioConnection | None = None
        self._reset_for: BaseException | None = None
        self._url = ""
        self._alarms: dict[str, float] = {}  # by address: when it last had an alarm
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start connecting in the background of the running loop."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        """Close the connection and stop reconnecting."""
        if self._task is None:
            return
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    def reset(self, reason: BaseException) -> None:
        """Close the connection, which makes the link open a new one.

        Args:
            reason: reported as the reason of the loss.
        """
        self._reset_for = reason
        if self._connection is not None and self._connection.is_open:
            self._connection.close()

    def abort(self, reason: str = "abandoned") -> None:
        """Drop the connection without a closing handshake, which a stuck broker would not answer.

        The next one is opened at another address.

        Args:
            reason: reported as the reason of the loss.
        """
        self._addresses.leave(self._url)
        if self._connection is not None and not self._connection.is_closed:
            # Private; pika calls it when the heartbeat of the peer is missing.
            self._connection._terminate_stream(ConnectionClosedError(reason))

    def leave_alarm(self) -> bool:
        """Leave a node with an alarm for one that had none lately.

        Returns:
            False if there is no such node; the connection stays open then.
        """
        now = time.monotonic()
        self._alarms[self._url] = now
        if all(
            now - self._alarms.get(url, -AVOIDED_SECONDS) < AVOIDED_SECONDS
            for url in self._addresses.round()
        ):
            return False
        self.abort("the broker has raised an alarm")
        return True

    async def _run(self) -> None:
        pauses = Pauses(len(self._addresses))
        while True:
            loop = asyncio.get_running_loop()
            closed: asyncio.Future[BaseException] = loop.create_future()
            ready = False
            self._url = self._addresses.round()[0]
            try:
                self._connection = await _open(self._parameters(), closed, self._on_ack)
                async with asyncio.timeout(SETUP_TIMEOUT):
                    await self._setup(self._connection)
                ready = True
                pauses.worked()
                versions.warn_once("RabbitMQ", _version(self._connection))
                self.standing.working(addresses.place(self._url))
                reason = await closed
            except (ConnectionClosedError, OSError, TimeoutError) as error:
                reason = error
            except asyncio.CancelledError:
                await self._close(closed)
                raise
            except Exception as error:  # noqa: BLE001 - a new connection cures it
                reason = error
            await self._close(closed)
            reason, self._reset_for = self._reset_for or reason, None
            self._addresses.leave(self._url)
            self.standing.failed(reason, addresses.place(self._url))
            if ready:
                self._on_lost(str(reason) or type(reason).__name__)
            await asyncio.sleep(pauses.after_failure())

    def _parameters(self) -> pika.URLParameters:
        parameters = pika.URLParameters(self._url)
        parameters.heartbeat = self._heartbeat
        parameters.socket_timeout = CONNECT_TIMEOUT
        parameters.stack_timeout = CONNECT_TIMEOUT
        parameters.client_properties = {"connection_name": self._name}
        return parameters

    async def _close(self, closed: "asyncio.Future[BaseException]") -> None:
        connection, self._connection = self._connection, None
        if connection is None or connection.is_closed:
            return
        if connection.is_open:
            connection.close()
        await asyncio.wait([closed], timeout=2)


async def open_channel(connection: AsyncioConnection) -> Channel:
    """Open a channel on an open connection."""
    opened: asyncio.Future[Channel] = asyncio.get_running_loop().create_future()
    connection.channel(on_open_callback=opened.set_result)
    return await opened


async def call(method: Callable[..., Any], **arguments: Any) -> Any:
    """Call a channel's method that takes a `callback`, and await its result.

    Args:
        method: of a channel on which no other call is pending.
        **arguments: of the method.

    Raises:
        ConnectionClosedError: the broker refused, by closing the channel.
    """
    done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def finish(frame: Any) -> None:
        if not done.done():
            done.set_result(frame)

    def fail(_: Channel, reason: BaseException) -> None:
        if not done.done():
            done.set_exception(ConnectionClosedError(str(reason)))

    method.__self__.add_on_close_callback(fail)  # type: ignore[attr-defined]
    method(**arguments, callback=finish)
    return await done


def _version(connection: AsyncioConnection) -> str:
    return str((connection.server_properties or {}).get("version"))


async def _open(
    parameters: pika.URLParameters,
    closed: "asyncio.Future[BaseException]",
    on_ack: OnAck | None,
) -> AsyncioConnection:
    opened: asyncio.Future[AsyncioConnection] = asyncio.get_running_loop().create_future()

    def on_open(connection: AsyncioConnection) -> None:
        if not opened.done():
            opened.set_result(connection)

    def on_error(_: AsyncioConnection, error: BaseException | str) -> None:
        if not opened.done():
            opened.set_exception(ConnectionClosedError(str(error) or type(error).__name__))

    def on_close(_: AsyncioConnection, reason: BaseException) -> None:
        if not opened.done():
            opened.set_exception(ConnectionClosedError(str(reason)))
        if not closed.done():
            closed.set_result(reason)

    AsyncioConnection(
        parameters,
        on_open_callback=on_open,
        on_open_error_callback=on_error,
        on_close_callback=on_close,
        custom_ioloop=LoopServices(asyncio.get_running_loop(), on_ack),
    )
    async with asyncio.timeout(CONNECT_TIMEOUT + 5):
        return await opened
