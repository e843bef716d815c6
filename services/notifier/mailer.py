"""Several emails at a time, over connections that are kept open.

A thread takes one email after the other, so that a server that thinks about one holds up no other.
When it thinks for long, about whichever command, another connection takes that one's place: not
even a server that thinks about as many emails as there are connections holds up the rest.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import Empty, LifoQueue

import structlog

from services.notifier import metrics
from services.notifier.outgoing import Outcome, Outgoing, Sending
from services.notifier.smtp import MailConnection, Reach
from shared.bus.contract.errors import Hold, Permanent, Retry
from shared.config.settings import Settings
from shared.synthetic import is_synthetic
from shared.telemetry import tracing

MOST_THINKING = 28
"""Connections beside the usual ones, each with an email that the server thinks about."""
LOOK_SECONDS = 0.5  # how long a thread waits for a connection that nobody needs any more

log = structlog.get_logger()


class Mailer:
    """Sends emails.

    Args:
        config: the settings whose names begin with `smtp_`, and `proof_sink`.
        connections: how many emails are under way at once, each on a connection of its own, but for
            those that the server thinks about.
        sender: the envelope's sender.
    """

    def __init__(self, config: Settings, connections: int, sender: str) -> None:
        self._config = config
        self._sender = sender
        self._connections = connections
        self._reach = Reach()
        self._threads = ThreadPoolExecutor(connections + MOST_THINKING, thread_name_prefix="smtp")
        # The last first: what is used most is closed least by a server that closes what is idle.
        self._free: LifoQueue[MailConnection] = LifoQueue()
        for _ in range(connections):
            self._free.put(self._new_connection())

    def send(self, emails: Sequence[Outgoing]) -> Sending:
        """Begin to send emails, several at a time; returns where to see what becomes of them."""
        sending = Sending(emails, self._connections, self._reach.lacks)
        # Not a task for each: handing one over costs a tenth of sending it.
        for _ in range(self._connections):
            self._threads.submit(self._work, sending)
        return sending

    def look(self) -> None:
        """Greet the mail server and sign in, as before an email.

        Raises:
            Hold: there is none that answers.
        """
        self._new_connection().look()

    def _new_connection(self) -> MailConnection:
        return MailConnection(self._config, self._sender, self._reach)

    def _work(self, sending: Sending) -> None:
        connection = self._free_for(sending)
        if connection is None:
            return
        has_place = True

        def make_way() -> None:
            nonlocal has_place
            if not has_place:
                return
            has_place = False
            self._free.put(self._new_connection())
            self._threads.submit(self._work, sending)

        try:
            while has_place and (taken := sending.take()) is not None:
                number, email = taken
                outcome = self._traced(connection, email, make_way)
                if isinstance(outcome, Hold):
                    sending.give_back(number, email, outcome)
                    return
                sending.settle(number, outcome)
        finally:
            if has_place:
                self._free.put(connection)
            else:
                connection.close()

    def _free_for(self, sending: Sending) -> MailConnection | None:
        """A connection, as soon as one is free; None when there is nothing left to send by it."""
        while True:
            try:
                return self._free.get(timeout=LOOK_SECONDS)
            except Empty:
                if sending.leave_if_over():
                    return None

    def _traced(
        self, connection: MailConnection, email: Outgoing, thinks: Callable[[], None]
    ) -> Outcome:
        with tracing.span("send email", kind="client", parent=email.traceparent) as span:
            outcome = self._try(connection, email, thinks)
            if outcome is not None:
                span.fail(outcome)
        return outcome

    def _try(
        self, connection: MailConnection, email: Outgoing, thinks: Callable[[], None]
    ) -> Outcome:
        try:
            if self._config.proof_sink and is_synthetic(email.recipient):
                connection.prove(email, thinks)
            else:
                with metrics.smtp_seconds.time():
                    connection.deliver(email, thinks)
        except (Hold, Retry, Permanent) as error:
            return error
        except Exception as error:
            # Whatever it is, nothing else would ever say what became of this email.
            log.exception("email_failed")
            connection.close()
            return Retry(f"{type(error).__name__}: {error}"[:200])
        return None
