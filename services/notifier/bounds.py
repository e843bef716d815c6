"""How many emails an account may have sent in a day.

Its orders, to one person: whoever may send orders names the recipient, and could fill anybody's
mailbox. And of what happens to the account itself, to its business, of each kind: whoever is signed
in can change a setting as often as they like, and codes for others wait in the same queue. Of each
kind apart, so that nobody hides a new password behind many new names.
"""

from collections.abc import Hashable

from services.notifier.composing import Email
from services.notifier.outgoing import NotSentError
from shared.synthetic import is_synthetic
from shared.token_buckets import TokenBuckets
from shared.validation.email_addresses import compared

DAY_SECONDS = 86_400.0
OF_A_KIND = 20
"""Emails of a kind that a business gets in a day; nobody works through more."""


class TooManyError(NotSentError):
    """The recipient has had all of a day."""

    def __init__(self, reason: str) -> None:
        super().__init__(550, f"not sent: {reason}")


class Bounds:
    """Counts what was sent, for one queue of one process.

    Args:
        most: emails of one account's orders to one address in a day.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._of_orders = TokenBuckets(most / DAY_SECONDS, most)
        self._of_kinds = TokenBuckets(OF_A_KIND / DAY_SECONDS, OF_A_KIND)

    def refusal(self, email: Email) -> TooManyError | None:
        """Why an email is not to be sent; None when it may be."""
        key, kind = _key(email), _kind(email)
        if key is not None and self._of_orders.is_empty(key):
            return TooManyError(f"{self._most} emails a day are what one address gets of you")
        if kind is not None and self._of_kinds.is_empty(kind):
            return TooManyError(f"{OF_A_KIND} emails a day of this kind are what you get")
        return None

    def sent(self, email: Email) -> None:
        """Count one that the mail server has taken: what it postpones is tried again and again."""
        key, kind = _key(email), _kind(email)
        if key is not None:
            self._of_orders.take(key)
        if kind is not None:
            self._of_kinds.take(kind)


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


def _kind(email: Email) -> Hashable | None:
    if not email.kind or is_synthetic(email.recipient):
        return None
    return email.subject_id, email.kind
