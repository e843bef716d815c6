"""Somebody who listens on ports that others have chosen."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from stack.servers.ports import Port


@contextmanager
def thief(*ports: Port) -> Iterator[None]:
    """Listen on ports that are held, as a program that sets SO_REUSEADDR can."""
    with ExitStack() as stack:
        for port in ports:
            stack.enter_context(socket.create_server(("127.0.0.1", port.number)))
        yield
