"""A development mail server: whatever is sent to it lands in a Maildir, and nowhere else.

`python -m stack.mailbox PORT MAILDIR` runs it as a process; tests run it in a thread.
"""

import asyncio
import email
import email.policy
import errno
import os
import signal
import sys
from collections.abc import Callable
from email.message import EmailMessage
from functools import lru_cache
from pathlib import Path
from typing import Any

import uuid_utils
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP

from stack.servers.ports import Port

Respond = Callable[[str], str | None]
"""Given a recipient, the reply that refuses it, such as `550 no such user`; None accepts it."""


class Maildir:
    """The folder: one file an email, complete as soon as it is in `new` (maildir(5)).

    Args:
        path: where; made when it is not there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        for name in ("tmp", "new", "cur"):
            (path / name).mkdir(parents=True, exist_ok=True)

    def deliver(self, content: bytes) -> None:
        """Add one email."""
        name = str(uuid_utils.uuid7())
        unfinished = self.path / "tmp" / name
        unfinished.write_bytes(content)
        unfinished.rename(self.path / "new" / name)

    def emails(self) -> list[EmailMessage]:
        """All emails, oldest first."""
        files = sorted((self.path / "new").iterdir(), key=lambda file: file.name)
        return [_read(file) for file in files]


class Handler:
    """What aiosmtpd calls.

    Args:
        maildir: where emails go.
        respond: refuses recipients; see `Respond`.
    """

    def __init__(self, maildir: Maildir, respond: Respond | None = None) -> None:
        self.maildir = maildir
        self.respond = respond

    async def handle_RCPT(  # noqa: N802 - aiosmtpd's name
        self, _: Any, __: Any, envelope: Any, address: str, ___: Any
    ) -> str:
        """Accept or refuse a recipient."""
        refusal = self.respond(address) if self.respond else None
        if refusal is not None:
            return refusal
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, _: Any, __: Any, envelope: Any) -> str:  # noqa: N802
        """Keep the email."""
        self.maildir.deliver(envelope.original_content)
        return "250 OK"


class MailServer:
    """The mail server in a thread, for tests.

    Args:
        path: the Maildir.
    """

    def __init__(self, path: Path) -> None:
        self.maildir = Maildir(path)
        self.handler = Handler(self.maildir)
        self._port = Port()
        self._controller: Controller | None = None

    @property
    def port(self) -> int:
        """Where it listens on loopback."""
        return self._port.number

    def start(self) -> None:
        """Start listening; also again, after a stop."""
        self._controller = in_thread(
            lambda port: Controller(self.handler, hostname="127.0.0.1", port=port), self._port
        )

    def stop(self) -> None:
        """Stop listening and drop every connection."""
        if self._controller is not None:
            self._controller.stop()
            self._controller = None


def in_thread(make: Callable[[int], Controller], port: Port) -> Controller:
    """Start a mail server in a thread, on another port when somebody has taken this one.

    Args:
        make: makes it for a port.
        port: where it listens on loopback.
    """
    while True:
        controller = make(port.number)
        try:
            controller.start()
        except OSError as error:
            controller.stop(no_assert=True)
            controller.loop.close()
            if error.errno != errno.EADDRINUSE:
                raise
            port.move()
        else:
            return controller


def text_of(message: EmailMessage) -> str:
    """The text part of an email."""
    part = message.get_body(("plain",))
    return part.get_content() if part is not None else ""


@lru_cache(maxsize=10_000)
def _read(file: Path) -> EmailMessage:
    # A file of a Maildir never changes, and whoever waits for an email looks again and again.
    parsed = email.message_from_bytes(file.read_bytes(), policy=email.policy.default)
    if not isinstance(parsed, EmailMessage):
        raise TypeError("email.policy.default makes an EmailMessage")
    return parsed


async def _serve(port: int, path: Path) -> None:
    handler = Handler(Maildir(path))
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    server = await loop.create_server(lambda: SMTP(handler), "127.0.0.1", port)
    await stopping.wait()
    server.close()
    os._exit(0)


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1]), Path(sys.argv[2])))
