"""Limits on an account's emails in a day.

Emails about its orders are limited by mailbox (ignoring a `+` suffix), since a sender chooses the
recipients and could flood any. Emails about the account itself are limited by kind, since a
signed-in user can change a setting any number of times and others' codes wait in the same queue;
by kind, so that many changed names do not suppress the email about a new password.
"""

from collections.abc import Hashable

from services.notifier.composing import Email
from services.notifier.mail.outgoing import NotSentError
from shared.synthetic import is_synthetic
from shared.token_buckets import TokenBuckets
from shared.validation.email_addresses import mailbox

DAY_SECONDS = 86_400.0
OF_A_KIND = 20
"""Emails of a kind that a business gets in a day."""


class TooManyError(NotSentError):
    """The recipient has reached the limit of a day."""

    def __init__(self, reason: str) -> None:
        super().__init__(550, f"not sent: {reason}")


class Bounds:
    """Counts sent emails, for one queue of one process.

    Args:
        most: emails about one account's orders to one mailbox in a day.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._of_orders = TokenBuckets(most / DAY_SECONDS, most)
        self._of_kinds = TokenBuckets(OF_A_KIND / DAY_SECONDS, OF_A_KIND)

    def refusal(self, email: Email) -> TooManyError | None:
        """Return the error for an email beyond its limit; None if it may be sent."""
        key, kind = _key(email), _kind(email)
        if key is not None and self._of_orders.is_empty(key):
            return TooManyError(f"{self._most} emails a day are what one address gets of you")
        if kind is not None and self._of_kinds.is_empty(kind):
            return TooManyError(f"{OF_A_KIND} emails a day of this kind are what you get")
        return None

    def sent(self, email: Email) -> None:
        """Count an email that the mail server accepted; postponed ones are retried."""
        key, kind = _key(email), _kind(email)
        if key is not None:
            self._of_orders.take(key)
        if kind is not None:
            self._of_kinds.take(kind)


class UncountedBounds(Bounds):
    """Applies the limits of other bounds without counting.

    Args:
        counted: the bounds that count.
    """

    def __init__(self, counted: Bounds) -> None:
        self._counted = counted

    def refusal(self, email: Email) -> TooManyError | None:
        """Return the error by the other bounds."""
        return self._counted.refusal(email)

    def sent(self, email: Email) -> None:
        """Count nothing."""


def _key(email: Email) -> Hashable | None:
    if email.account_id is None or is_synthetic(email.recipient):
        return None
    return email.account_id, mailbox(email.recipient), email.is_test


def _kind(email: Email) -> Hashable | None:
    if not email.kind or is_synthetic(email.recipient):
        return None
    return email.subject_id, email.kind
