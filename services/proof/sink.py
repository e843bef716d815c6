"""A mail server for the proof's own domain, which keeps the last email of each address.

It implements the part of RFC 5321 that the notifier uses, and relays nothing.
"""

import email
import email.policy
import re
import socketserver
import threading
from collections import OrderedDict
from collections.abc import Callable

from shared.synthetic import is_synthetic

KEPT = 1_000
MAX_BYTES = 1_048_576
LINE_BYTES = 2_048
IDLE_SECONDS = 60.0
_ADDRESS = re.compile(rb"<([^<>\s]*)>")


class Sink:
    """Receives emails while it runs.

    Args:
        host: the address to listen on.
        port: the port to listen on; 0 for any.
    """

    def __init__(self, host: str, port: int) -> None:
        self._emails: OrderedDict[str, bytes] = OrderedDict()
        self._changed = threading.Condition()
        self._server = _Server((host, port), self._keep)

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self._server.server_address[1])

    def start(self) -> None:
        """Start to receive emails."""
        threading.Thread(target=self._server.serve_forever, name="sink", daemon=True).start()

    def stop(self) -> None:
        """Stop, and close the port."""
        self._server.shutdown()
        self._server.server_close()

    def forget(self, recipient: str) -> None:
        """Drop the email of an address."""
        with self._changed:
            self._emails.pop(recipient, None)

    def wait(self, recipient: str, seconds: float) -> str | None:
        """Wait for an email and return its text; None if none arrives.

        Args:
            recipient: the address, in lower case.
            seconds: how long to wait.
        """
        with self._changed:
            self._changed.wait_for(lambda: recipient in self._emails, max(seconds, 0.0))
            content = self._emails.pop(recipient, None)
        if content is None:
            return None
        message = email.message_from_bytes(content, policy=email.policy.default)
        part = message.get_body(("plain",))
        return str(part.get_content()) if part is not None else ""

    def _keep(self, recipients: list[str], content: bytes) -> None:
        with self._changed:
            for recipient in recipients:
                self._emails[recipient] = content
            while len(self._emails) > KEPT:
                self._emails.popitem(last=False)
            self._changed.notify_all()


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, address: tuple[str, int], keep: Callable[[list[str], bytes], None]) -> None:
        super().__init__(address, _Dialogue)
        self.keep = keep


class _Dialogue(socketserver.StreamRequestHandler):
    timeout = IDLE_SECONDS
    server: _Server

    def handle(self) -> None:
        recipients: list[str] = []
        self._say("220 the standing proof of Order Fellow")
        while line := self.rfile.readline(LINE_BYTES):
            verb = line[:4].upper().strip()
            if verb in (b"EHLO", b"HELO", b"MAIL", b"RSET", b"NOOP"):
                if verb != b"NOOP":
                    recipients = []
                self._say("250 OK")
            elif verb == b"RCPT":
                self._take_recipient(line, recipients)
            elif verb == b"DATA" and recipients:
                self._say("354 go on")
                content = self._content()
                if content is None:
                    return
                self.server.keep(recipients, content)
                recipients = []
                self._say("250 OK")
            elif verb == b"QUIT":
                self._say("221 bye")
                return
            else:
                self._say("503 not now")

    def _take_recipient(self, line: bytes, recipients: list[str]) -> None:
        found = _ADDRESS.search(line)
        address = found[1].decode("ascii", "replace").lower() if found else ""
        if is_synthetic(address):
            recipients.append(address)
            self._say("250 OK")
        else:
            self._say("550 nobody of that name here")

    def _content(self) -> bytes | None:
        lines: list[bytes] = []
        size = 0
        while (line := self.rfile.readline(LINE_BYTES)) and line != b".\r\n":
            size += len(line)
            if size > MAX_BYTES:
                return None
            lines.append(line.removeprefix(b"."))
        return b"".join(lines) if line else None

    def _say(self, reply: str) -> None:
        self.wfile.write(f"{reply}\r\n".encode())
