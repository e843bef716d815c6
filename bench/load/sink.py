"""A mail server that takes everything and notes when: what `smtp-sink` does, and a clock.

`python -m bench.load.sink PORT FILE`; at SIGUSR1, and at SIGTERM, it writes a JSON object from each
recipient to when their emails were accepted since the last time, in seconds since 1970.
"""

import asyncio
import json
import signal
import sys
import time
from pathlib import Path
from typing import Any

import uvloop

END = b"\r\n.\r\n"
REPLIES = {
    b"EHLO": b"250-sink\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 SIZE 10000000\r\n",
    b"DATA": b"354 go ahead\r\n",
    b"QUIT": b"221 bye\r\n",
}

accepted: dict[str, list[float]] = {}


class Session(asyncio.Protocol):
    """One connection (RFC 5321), pipelined or not (RFC 2920)."""

    def __init__(self) -> None:
        self._rest = b""
        self._recipient = ""
        self._in_data = False
        self._transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        transport.write(b"220 sink\r\n")

    def data_received(self, data: bytes) -> None:
        self._rest += data
        replies = []
        while True:
            line, found, rest = self._rest.partition(END if self._in_data else b"\r\n")
            if not found:
                break
            self._rest = rest
            replies.append(self._take(line))
        if replies:
            self._transport.write(b"".join(replies))

    def _take(self, line: bytes) -> bytes:
        if self._in_data:
            self._in_data = False
            accepted.setdefault(self._recipient, []).append(time.time())
            return b"250 taken\r\n"
        verb = line[:4].upper()
        self._in_data = verb == b"DATA"
        if verb == b"RCPT":
            self._recipient = line[line.index(b"<") + 1 : line.index(b">")].decode()
        return REPLIES.get(verb, b"250 ok\r\n")


def _tell(file: Path) -> None:
    # Whole or not at all: somebody waits for it to be there.
    written = file.with_suffix(".new")
    written.write_text(json.dumps(accepted))
    accepted.clear()
    written.rename(file)


async def _serve(port: int, file: Path) -> None:
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stopping.set)
    loop.add_signal_handler(signal.SIGUSR1, _tell, file)
    server = await loop.create_server(Session, "127.0.0.1", port)
    await stopping.wait()
    server.close()


if __name__ == "__main__":
    _file = Path(sys.argv[2])
    uvloop.run(_serve(int(sys.argv[1]), _file))
    _tell(_file)
