"""A TCP forwarder that tests cut and stall: the network between a service and its server."""

import contextlib
import socket
import threading
from types import TracebackType
from urllib.parse import urlsplit

CHUNK = 65_536


class Gate:
    """Forwards connections to a server while it is open.

    Args:
        url: the address of the server, with a port; `Gate.url` is the same through the gate.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        assert parts.hostname is not None
        assert parts.port is not None
        self._target = (parts.hostname, parts.port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        port = self._listener.getsockname()[1]
        address = f"{parts.hostname}:{parts.port}"
        self.url = url.replace(address, f"127.0.0.1:{port}")
        self._is_open = True
        self._flowing = threading.Event()
        self._flowing.set()
        self._sockets: set[socket.socket] = set()
        self._lock = threading.Lock()
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> "Gate":
        return self

    def __exit__(
        self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None
    ) -> None:
        self._listener.close()
        self.cut()

    def cut(self) -> None:
        """End every connection, and new ones at once."""
        self._is_open = False
        self._flowing.set()
        with self._lock:
            for connected in self._sockets:
                _close(connected)
            self._sockets.clear()

    def stall(self) -> None:
        """Keep connections and let nothing through, as a dead host does."""
        self._flowing.clear()

    def open(self) -> None:
        """Let everything through, what was held back included."""
        self._is_open = True
        self._flowing.set()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if not self._is_open:
                _close(client)
                continue
            try:
                server = socket.create_connection(self._target, timeout=5)
            except OSError:
                _close(client)
                continue
            server.settimeout(None)
            with self._lock:
                self._sockets |= {client, server}
            for pair in ((client, server), (server, client)):
                threading.Thread(target=self._forward, args=pair, daemon=True).start()

    def _forward(self, source: socket.socket, sink: socket.socket) -> None:
        try:
            while chunk := source.recv(CHUNK):
                self._flowing.wait()
                sink.sendall(chunk)
        except OSError:
            pass
        for end in (source, sink):
            _close(end)
        with self._lock:
            self._sockets -= {source, sink}


def _close(connected: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connected.shutdown(socket.SHUT_RDWR)
    connected.close()
