"""pika over the loop's own transport, with `basic.ack` decoded outside of pika.

pika's asyncio adapter adds and removes a writer for every write and reads the socket itself;
uvloop's transports do both in C, with TLS as well. And pika makes some twenty calls for one
`basic.ack`, which is nearly all that a publisher receives. Here acknowledgements are recognised by
their first bytes and passed to a callback, in order; all other frames go to pika unchanged.

Layout: AMQP 0-9-1 specification, 2.3.5 (frames), 1.8.3.13 (basic.ack).
"""

import asyncio
import socket
import ssl
from collections.abc import Callable
from struct import Struct
from typing import Any, cast

from pika.adapters.asyncio_connection import _AsyncioIOServicesAdapter
from pika.adapters.utils.nbio_interface import AbstractStreamProtocol, AbstractStreamTransport

OnAck = Callable[[int, bool], None]
"""Called with a delivery tag, and whether all lower tags are acknowledged too."""

_HEAD = Struct(">BHI")  # type, channel, payload size
_END_SIZE = 1
# A method frame on channel 1 with 13 bytes: class 60, method 80, a tag and a bit.
_ACK_HEAD = b"\x01\x00\x01\x00\x00\x00\x0d\x00\x3c\x00\x50"
_ACK = Struct(">QB")
_ACK_SIZE = len(_ACK_HEAD) + _ACK.size + _END_SIZE


class LoopServices(_AsyncioIOServicesAdapter):
    """pika's I/O services, with connections over the loop's transport.

    Args:
        loop: the running loop.
        on_ack: receives the acknowledgements on channel 1; without it pika does.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, on_ack: OnAck | None) -> None:
        super().__init__(loop)
        self._on_ack = on_ack

    def create_streaming_connection(
        self,
        protocol_factory: Callable[[], AbstractStreamProtocol],
        sock: socket.socket,
        on_done: Callable[..., None],
        ssl_context: ssl.SSLContext | None = None,
        server_hostname: str | None = None,
    ) -> Any:
        """Called by pika with a connected socket."""

        async def connect() -> tuple[AbstractStreamTransport, AbstractStreamProtocol]:
            protocol = protocol_factory()
            _, stream = await self._loop.create_connection(
                lambda: _Stream(protocol, self._on_ack),
                sock=sock,
                ssl=ssl_context,
                server_hostname=server_hostname if ssl_context else None,
            )
            return stream, protocol

        return self._schedule_and_wrap_in_io_ref(connect(), on_done)


class _Stream(asyncio.Protocol, AbstractStreamTransport):
    """A protocol to the loop, and the transport to pika's protocol."""

    def __init__(self, protocol: AbstractStreamProtocol, on_ack: OnAck | None) -> None:
        self._protocol = protocol
        self._on_ack = on_ack
        self._rest = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the loop."""
        # uvloop's are not asyncio's by class.
        self._transport = cast("asyncio.Transport", transport)
        self._protocol.connection_made(self)

    def connection_lost(self, error: Exception | None) -> None:
        """Called by the loop."""
        self._protocol.connection_lost(error)

    def eof_received(self) -> bool | None:
        """Called by the loop."""
        keep_open: bool | None = self._protocol.eof_received()
        return keep_open

    def data_received(self, data: bytes) -> None:
        """Called by the loop: pass acknowledgements to `on_ack`, and other frames to pika."""
        if self._on_ack is None:
            self._protocol.data_received(data)
            return
        if self._rest:
            data = self._rest + data
        at, end = 0, len(data)
        while end - at >= _HEAD.size:
            if data.startswith(_ACK_HEAD, at):
                if end - at < _ACK_SIZE:
                    break
                tag, multiple = _ACK.unpack_from(data, at + len(_ACK_HEAD))
                at += _ACK_SIZE
                self._on_ack(tag, bool(multiple & 1))
                continue
            if data[at] == ord("A"):  # not a frame: the protocol header of a version mismatch
                size = end - at
            else:
                size = _HEAD.size + _HEAD.unpack_from(data, at)[2] + _END_SIZE
            if end - at < size:
                break
            self._protocol.data_received(data[at : at + size])
            at += size
        self._rest = data[at:]

    def abort(self) -> None:
        """Called by pika."""
        if self._transport is not None:
            self._transport.abort()

    def get_protocol(self) -> AbstractStreamProtocol:
        """Called by pika."""
        return self._protocol

    def write(self, data: bytes) -> None:
        """Called by pika."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def get_write_buffer_size(self) -> int:
        """Called by pika."""
        return self._transport.get_write_buffer_size() if self._transport is not None else 0
