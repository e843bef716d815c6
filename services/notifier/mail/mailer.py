"""Sends several emails at a time over connections that stay open.

Each thread sends one email after the other, so a slow reply delays no other email. A connection
whose server is slow (`THINKING_SECONDS`) is replaced by an extra one, so even as many slow replies
as there are connections delay nothing else. At `MOST_SLOW` extra connections, the email that is
slow for longest is given up to the retry queues if its content was not sent yet; giving one up
after that would send it twice.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import Empty, LifoQueue

import structlog

from services.notifier import metrics
from services.notifier.mail.connection import MailConnection, Reach
from services.notifier.mail.outgoing import Outcome, Outgoing, Sending
from shared.bus.contract.errors import Hold, Permanent, Retry
from shared.config.settings import Settings
from shared.synthetic import is_synthetic
from shared.telemetry import tracing

MOST_SLOW = 28
"""Extra connections, each with an email whose server is slow."""
POLL_SECONDS = 0.5  # how often a thread without a connection checks whether it is still needed

log = structlog.get_logger()


class Mailer:
    """Sends emails.

    Args:
        config: the `smtp_*` settings and `proof_sink`.
        connections: emails sent at the same time, without the slow ones.
        sender: the envelope sender.
    """

    def __init__(self, config: Settings, connections: int, sender: str) -> None:
        self._config = config
        self._sender = sender
        self._connections = connections
        self._reach = Reach()
        self._threads = ThreadPoolExecutor(connections + MOST_SLOW, thread_name_prefix="smtp")
        # Last in, first out: a connection in frequent use is not closed by the server as idle.
        self._free: LifoQueue[MailConnection] = LifoQueue()
        for _ in range(connections):
            self._free.put(self._new_connection())
        self._slow: list[MailConnection] = []  # longest first

    def send(self, emails: Sequence[Outgoing]) -> Sending:
        """Start to send emails, and return without waiting."""
        if len(self._slow) >= self.most_under_way:
            # One at a time: giving up as many as wait would end each before a slow server replies.
            any(connection.give_up() for connection in list(self._slow))
        sending = Sending(emails, self._connections, self._reach.lacks)
        # Not a task for each email: submitting one costs a tenth of sending it.
        for _ in range(self._connections):
            self._threads.submit(self._work, sending)
        return sending

    @property
    def most_under_way(self) -> int:
        """The most emails that may be with the mail server at the same time, slow ones included."""
        return self._connections + MOST_SLOW

    def check(self) -> None:
        """Connect, greet the mail server and sign in, as before an email.

        Raises:
            Hold: no mail server answers.
        """
        self._new_connection().check()

    def _new_connection(self) -> MailConnection:
        return MailConnection(self._config, self._sender, self._reach)

    def _work(self, sending: Sending) -> None:
        connection = self._free_for(sending)
        if connection is None:
            return
        is_usual = True

        def replace() -> None:
            """Start an extra connection in the place of this one, which is slow."""
            nonlocal is_usual
            if not is_usual:
                return
            is_usual = False
            self._slow.append(connection)
            self._free.put(self._new_connection())
            self._threads.submit(self._work, sending)

        try:
            while is_usual and (taken := sending.take()) is not None:
                number, email = taken
                outcome = self._traced(connection, email, replace)
                if isinstance(outcome, Hold):
                    sending.give_back(number, email, outcome)
                    return
                sending.settle(number, outcome)
        finally:
            if is_usual:
                self._free.put(connection)
            else:
                self._slow.remove(connection)
                connection.close()

    def _free_for(self, sending: Sending) -> MailConnection | None:
        """Wait for a free connection; None when there is nothing left to send."""
        while True:
            try:
                return self._free.get(timeout=POLL_SECONDS)
            except Empty:
                if sending.leave_if_over():
                    return None

    def _traced(
        self, connection: MailConnection, email: Outgoing, on_slow: Callable[[], None]
    ) -> Outcome:
        with tracing.span("send email", kind="client", parent=email.traceparent) as span:
            outcome = self._try(connection, email, on_slow)
            if outcome is not None:
                span.fail(outcome)
        return outcome

    def _try(
        self, connection: MailConnection, email: Outgoing, on_slow: Callable[[], None]
    ) -> Outcome:
        try:
            if self._config.proof_sink and is_synthetic(email.recipient):
                connection.prove(email, on_slow)
            else:
                with metrics.smtp_seconds.time():
                    connection.deliver(email, on_slow)
        except (Hold, Retry, Permanent) as error:
            return error
        except Exception as error:
            # Without an outcome the batch would wait for this email indefinitely.
            log.exception("email_failed")
            connection.close()
            return Retry(f"{type(error).__name__}: {error}"[:200])
        return None
