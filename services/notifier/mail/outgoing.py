"""Emails that are being sent, and the outcome of each."""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from shared.bus.contract.errors import Hold, Permanent, UnderWay


class UndeliverableError(Permanent):
    """The mail server refused this email permanently.

    Attributes:
        state: the email's state in the database.
        code: the reply code, 5xx.
        is_of_address: whether the address itself is invalid, for any email.
    """

    state = "undeliverable"

    def __init__(self, code: int, text: str, *, is_of_address: bool = False) -> None:
        super().__init__(f"{code} {text}")
        self.code = code
        self.is_of_address = is_of_address


class NotSentError(UndeliverableError):
    """We did not offer the email to the mail server; its message does not become a dead letter."""


class SinkAwayError(NotSentError):
    """The sink of the standing proof is unreachable, so its email is dropped."""

    def __init__(self, text: str) -> None:
        super().__init__(550, f"the sink of the standing proof is away: {text}")


class NotBegunError(UnderWay):
    """No thread has started this email, and it is to be sent again."""

    def __init__(self) -> None:
        super().__init__("its turn has not come")


class Outgoing(NamedTuple):
    """An email to send: the recipient's address, the content (RFC 5322), and the trace's parent."""

    recipient: str
    content: bytes
    traceparent: str | None = None


Outcome = Exception | None
"""None for an email that the mail server accepted, else `UndeliverableError`, `Retry` or `Hold`."""


class Sends(Protocol):
    """Sends emails."""

    def send(self, emails: Sequence[Outgoing]) -> "Sending":
        """Start to send emails, and return without waiting."""


class Sending:
    """A batch of emails that several threads send.

    Args:
        emails: the emails; their numbers are their places here.
        workers: threads that will take one email after the other.
        lacks: returns what is away while outcomes are missing, as `Hold` names it.
    """

    def __init__(
        self, emails: Sequence[Outgoing], workers: int, lacks: Callable[[], str] = str
    ) -> None:
        self._count = len(emails)
        # With their contents, which are freed once an email is sent or dropped.
        self._left = deque(enumerate(emails))
        self._workers = workers
        self._lacks = lacks
        self._is_ceasing = False
        self._outcomes: dict[int, Outcome] = {}
        self._changed = threading.Condition()

    def outcome(self, number: int) -> Outcome:
        """Return an email's outcome; `UnderWay` while it is unknown."""
        with self._changed:
            if number in self._outcomes:
                return self._outcomes[number]
        return UnderWay("the mail server has not answered yet", self._lacks())

    def wait(self, seconds: float) -> bool:
        """Wait until all outcomes are known, at most `seconds`; returns whether they are."""
        with self._changed:
            return self._changed.wait_for(self._is_over, seconds)

    def cease(self, why: Hold) -> None:
        """Start no further email.

        Args:
            why: the outcome of those not started.
        """
        with self._changed:
            self._is_ceasing = True
            self._hold_the_rest(why)

    def take(self) -> tuple[int, Outgoing] | None:
        """Return the next email and its number; None ends the calling worker."""
        with self._changed:
            if self._left and not self._is_ceasing:
                return self._left.popleft()
            self._workers -= 1
            return None

    def leave_if_over(self) -> bool:
        """Return whether no email is left to start; that ends the calling worker."""
        with self._changed:
            if self._left:
                return False
            self._workers -= 1
            return True

    def settle(self, number: int, outcome: Outcome) -> None:
        """Record an email's outcome."""
        with self._changed:
            self._outcomes[number] = outcome
            if self._is_over():
                self._changed.notify_all()

    def give_back(self, number: int, email: Outgoing, why: Hold) -> None:
        """Return an email unsent and end the calling worker, which reached no mail server.

        Another worker may reach it. The last one to end holds all remaining emails.
        """
        with self._changed:
            self._left.appendleft((number, email))
            self._workers -= 1
            if self._is_ceasing or self._workers <= 0:
                self._hold_the_rest(why)

    def _hold_the_rest(self, why: Hold) -> None:
        self._outcomes |= dict.fromkeys((number for number, _ in self._left), why)
        self._left.clear()
        self._changed.notify_all()

    def _is_over(self) -> bool:
        return len(self._outcomes) == self._count
