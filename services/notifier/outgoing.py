"""Emails on their way, and what becomes of each."""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from shared.bus.contract.errors import Hold, Permanent, UnderWay


class UndeliverableError(Permanent):
    """The mail server refused this email for good.

    Attributes:
        state: what became of the email, as the books have it.
        code: its reply code, 5xx.
        is_of_address: whether the address itself is no good, whatever is sent to it.
    """

    state = "undeliverable"

    def __init__(self, code: int, text: str, *, is_of_address: bool = False) -> None:
        super().__init__(f"{code} {text}")
        self.code = code
        self.is_of_address = is_of_address


class NotSentError(UndeliverableError):
    """It was not offered to the mail server, for a reason of ours; no message is blamed for it."""


class SinkAwayError(NotSentError):
    """Nobody waits for this email of the standing proof any more."""

    def __init__(self, text: str) -> None:
        super().__init__(550, f"the sink of the standing proof is away: {text}")


class NotBegunError(UnderWay):
    """Its turn has not come: nobody has it, and it is to be begun anew."""

    def __init__(self) -> None:
        super().__init__("its turn has not come")


class Outgoing(NamedTuple):
    """One email on its way: the recipient's address, the content, and the trace it travels in."""

    recipient: str
    content: bytes
    traceparent: str | None = None


Outcome = Exception | None
"""What became of an email: None when it was taken, or `UndeliverableError`, `Retry`, or `Hold`."""


class Sends(Protocol):
    """How emails leave."""

    def send(self, emails: Sequence[Outgoing]) -> "Sending":
        """Begin to send emails; returns where to see what becomes of them."""


class Sending:
    """Some emails on their way.

    Args:
        emails: what to send.
        workers: how many threads will take one email after the other.
        lacks: what is away while nobody knows what becomes of them, as `Hold` names it.
    """

    def __init__(
        self, emails: Sequence[Outgoing], workers: int, lacks: Callable[[], str] = str
    ) -> None:
        self._count = len(emails)
        # With their contents, of which nobody keeps what is out or is not to be sent.
        self._left = deque(enumerate(emails))
        self._workers = workers
        self._lacks = lacks
        self._is_ceasing = False
        self._outcomes: dict[int, Outcome] = {}
        self._changed = threading.Condition()

    def outcome(self, number: int) -> Outcome:
        """What became of one; `UnderWay` as long as that is not known."""
        with self._changed:
            if number in self._outcomes:
                return self._outcomes[number]
        return UnderWay("the mail server has not answered yet", self._lacks())

    def wait(self, seconds: float) -> bool:
        """Wait until all is known, for so long at most; returns whether it is."""
        with self._changed:
            return self._changed.wait_for(self._is_over, seconds)

    def cease(self, why: Hold) -> None:
        """Begin with no further email.

        Args:
            why: what becomes of those.
        """
        with self._changed:
            self._is_ceasing = True
            self._hold_what_is_left(why)

    def take(self) -> tuple[int, Outgoing] | None:
        """The next email for a thread to send; None when it has nothing more to do."""
        with self._changed:
            if self._left and not self._is_ceasing:
                return self._left.popleft()
            self._workers -= 1
            return None

    def leave_if_over(self) -> bool:
        """Whether there is nothing to begin; a thread that waits to begin is then gone."""
        with self._changed:
            if self._left:
                return False
            self._workers -= 1
            return True

    def settle(self, number: int, outcome: Outcome) -> None:
        """Note what became of one."""
        with self._changed:
            self._outcomes[number] = outcome
            if self._is_over():
                self._changed.notify_all()

    def give_back(self, number: int, email: Outgoing, why: Hold) -> None:
        """Note that a thread has no mail server, and nothing more to do.

        Another thread may have one; when it is the last, all that is left is held.
        """
        with self._changed:
            self._left.appendleft((number, email))
            self._workers -= 1
            if self._is_ceasing or self._workers <= 0:
                self._hold_what_is_left(why)

    def _hold_what_is_left(self, why: Hold) -> None:
        self._outcomes |= dict.fromkeys((number for number, _ in self._left), why)
        self._left.clear()
        self._changed.notify_all()

    def _is_over(self) -> bool:
        return len(self._outcomes) == self._count
