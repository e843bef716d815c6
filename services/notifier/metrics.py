"""Metrics of emails."""

from functools import cache

from prometheus_client import Counter, Histogram

from services.notifier.mail.outgoing import NotSentError
from shared.bus.contract.errors import Hold, Permanent
from shared.bus.metrics import SECONDS

_emails = Counter("fellow_emails", "Attempts to send an email.", ["template", "outcome"])
smtp_seconds = Histogram(
    "fellow_smtp_seconds", "Time to give one email to the mail server.", buckets=SECONDS
)


def tried(template: str, error: Exception | None) -> None:
    """Count an attempt.

    Args:
        template: the email's template.
        error: the outcome; None if it was sent.
    """
    if error is None:
        outcome = "sent"
    elif isinstance(error, NotSentError):
        # Without a separate state the refusal is ours, not the mail server's.
        outcome = "not_sent" if error.state == NotSentError.state else error.state
    elif isinstance(error, Permanent):
        outcome = "refused"
    else:
        outcome = "held" if isinstance(error, Hold) else "postponed"
    _attempts(template, outcome).inc()


@cache
def _attempts(template: str, outcome: str) -> Counter:
    return _emails.labels(template, outcome)
