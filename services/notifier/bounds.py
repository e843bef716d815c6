"""How many emails the orders of one account may bring one person in a day.

Whoever may send orders names the recipient: without a bound, he could fill anybody's mailbox.
"""

import time
from collections.abc import Callable, Hashable

from services.notifier.composing import Email
from services.notifier.outgoing import NotSentError
from shared.synthetic import is_synthetic
from shared.token_buckets import TokenBuckets
from shared.validation.email_addresses import compared

DAY_SECONDS = 86_400.0


class TooManyError(NotSentError):
    """The recipient has had all that the account may send in a day."""

    def __init__(self, most: int) -> None:
        super().__init__(550, f"not sent: {most} emails a day are what one address gets of you")


class Bounds:
    """Counts what was sent, for one queue of one process.

    Args:
        most: emails of one account's orders to one address in a day.
        clock: seconds, monotonic.
    """

    def __init__(self, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._buckets = TokenBuckets(most / DAY_SECONDS, most, clock)

    def refusal(self, email: Email) -> TooManyError | None:
        """Why an email is not to be sent; None when it may be."""
        key = _key(email)
        if key is None or not self._buckets.is_empty(key):
            return None
        return TooManyError(self._most)

    def sent(self, email: Email) -> None:
        """Count one that the mail server has taken: what it postpones is tried again and again."""
        key = _key(email)
        if key is not None:
            self._buckets.take(key)


class UncountedBounds(Bounds):
    """What others count, and what is sent here does not change.

    Args:
        counted: the others'.
    """

    def __init__(self, counted: Bounds) -> None:
        self._counted = counted

    def refusal(self, email: Email) -> TooManyError | None:
        """As there."""
        return self._counted.refusal(email)

    def sent(self, email: Email) -> None:
        """Nothing."""


def _key(email: Email) -> Hashable | None:
    if email.account_id is None or is_synthetic(email.recipient):
        return None
    return email.account_id, compared(email.recipient), email.is_test
