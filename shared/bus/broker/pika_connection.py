"""One pika connection inside an asyncio loop that is opened again whenever it closes.

pika: connect after the fork, and touch a connection only from its own loop's thread.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any

import pika
from pika.adapters.asyncio_connection import AsyncioConnection
from pika.channel import Channel

from shared import versions
from shared.bus.broker.pika_transport import LoopServices, OnAck
from shared.bus.broker.standing import Standing

Setup = Callable[[AsyncioConnection], Awaitable[None]]
FIRST_DELAY, LONGEST_DELAY = 0.2, 5.0  # seconds between attempts
CONNECT_TIMEOUT = 10.0  # seconds


class ConnectionClosedError(Exception):
    """The connection could not be opened, or closed."""


class Link:
    """Keeps one connection open.

    Args:
        amqp_url: where to.
        name: how the broker shows the connection.
        heartbeat: seconds; a peer that is silent for two of them counts as gone.
        setup: awaited after each opening, with the open connection; what it raises closes it again.
        on_lost: called after each loss of a connection whose setup had finished.
        on_ack: takes the broker's acknowledgements on channel 1 instead of pika.
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
        self._parameters = pika.URLParameters(amqp_url)
        self._parameters.heartbeat = heartbeat
        self._parameters.socket_timeout = CONNECT_TIMEOUT
        self._parameters.stack_timeout = CONNECT_TIMEOUT
        self._parameters.client_properties = {"connection_name": name}
        self._name = name
        self._setup = setup
        self._on_lost = on_lost
        self.standing = Standing(name)
        self._connection: AsyncioConnection | None = None
        self._reset_for: BaseException | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin connecting, in the background of the running loop."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        """Close for good."""
        if self._task is None:
            return
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    def reset(self, reason: BaseException) -> None:
        """Close the connection, so that a new one is opened.

        Args:
            reason: what is told of it.
        """
        self._reset_for = reason
        if self._connection is not None and self._connection.is_open:
            self._connection.close()

    def abort(self) -> None:
        """Drop the connection: to close it in order takes a broker that reads."""
        if self._connection is not None and not self._connection.is_closed:
            # Private, and what pika itself calls when its peer is dead.
            self._connection._terminate_stream(ConnectionClosedError("abandoned"))

    async def _run(self) -> None:
        delay = FIRST_DELAY
        while True:
            loop = asyncio.get_running_loop()
            closed: asyncio.Future[BaseException] = loop.create_future()
            ready = False
            try:
                self._connection = await _open(self._parameters, closed, self._on_ack)
                async with asyncio.timeout(CONNECT_TIMEOUT):
                    await self._setup(self._connection)
                ready, delay = True, FIRST_DELAY
                versions.warn_once("RabbitMQ", _version(self._connection))
                self.standing.working()
                reason = await closed
            except (ConnectionClosedError, OSError, TimeoutError) as error:
                reason = error
            except asyncio.CancelledError:
                await self._close(closed)
                raise
            except Exception as error:  # noqa: BLE001 - whatever setup met, a new connection is the cure
                reason = error
            await self._close(closed)
            reason, self._reset_for = self._reset_for or reason, None
            self.standing.failed(reason)
            if ready:
                self._on_lost(str(reason) or type(reason).__name__)
            await asyncio.sleep(delay * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
            delay = min(delay * 2, LONGEST_DELAY)

    async def _close(self, closed: "asyncio.Future[BaseException]") -> None:
        connection, self._connection = self._connection, None
        if connection is None or connection.is_closed:
            return
        if connection.is_open:
            connection.close()
        await asyncio.wait([closed], timeout=2)


async def open_channel(connection: AsyncioConnection) -> Channel:
    """A new channel on an open connection."""
    opened: asyncio.Future[Channel] = asyncio.get_running_loop().create_future()
    connection.channel(on_open_callback=opened.set_result)
    return await opened


async def call(method: Callable[..., Any], **arguments: Any) -> Any:
    """Await a channel's method that reports by `callback`.

    Args:
        method: of a channel that nobody else is waiting with.
        **arguments: of the method.

    Raises:
        ConnectionClosedError: the broker closed the channel instead, which is how it refuses.
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
