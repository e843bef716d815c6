"""What a mail server's reply means: RFC 5321, 4.2.1, and enhanced status codes, RFC 3463. Pure."""

import re

from services.notifier.mail.outgoing import UndeliverableError
from shared.bus.contract.errors import Retry

Reply = tuple[int, bytes]
"""A reply code and its text; -1 for a reply without a code."""

_ENHANCED = re.compile(rb"(?:\A\s*|#)([245])\.(\d{1,3}\.\d{1,3})(?!\d)")
_OF_ADDRESS = frozenset(
    {
        b"1.1",  # no such mailbox
        b"1.2",  # no such domain
        b"1.3",  # invalid address syntax
        b"1.6",  # moved without a forwarding address
        b"1.10",  # the domain takes no mail (RFC 7505)
        b"2.1",  # mailbox disabled
    }
)
"""Of RFC 3463, 3.2 and 3.3. Not 5.1.7 and 5.1.8, the sender's address, nor 5.1.0, "other".
A full mailbox (5.2.2), the content (5.3.4, 5.6) and policy (5.7) are no fault of the address."""


def is_accepted(code: int) -> bool:
    """Return whether a command was accepted."""
    # By the first digit only: servers use codes that no list has (RFC 5321, 4.2).
    return 200 <= code < 300


def wants_content(code: int) -> bool:
    """Return whether the server expects the content now (after DATA)."""
    return 300 <= code < 400


def is_address_fault(code: int, text: bytes) -> bool:
    """Return whether a reply to RCPT says that the address itself is permanently invalid.

    Decided by the enhanced status code (RFC 3463) alone, which RFC 2034 puts before the text and
    qmail behind a #: a bare 550 is as often a blocklist that has us, and would suppress every
    customer. 556 is a domain that takes no mail (RFC 7504).
    """
    return code == 556 or (500 <= code < 600 and _detail(b"5", text) in _OF_ADDRESS)


def is_quota(code: int, text: bytes) -> bool:
    """Return whether a reply to DATA or to the content says that we exceeded a sending quota.

    Amazon SES sends `454 4.7.0 Throttling failure`, Gmail `550 5.4.5 Daily sending limit exceeded`.
    No other code counts: 4.7.1 is as often the greylisting of one recipient, and 4.3.0 a filter
    that fails on one email, and neither may hold back the rest.
    """
    return (
        (code == 454 and _detail(b"4", text) == b"7.0")
        or (400 <= code < 500 and _detail(b"4", text) == b"4.5")
        or (500 <= code < 600 and _detail(b"5", text) == b"4.5")
    )


def refusal(code: int, text: bytes, *, is_of_address: bool = False) -> UndeliverableError | Retry:
    """Return the error for a refused email: permanent for 5xx, else temporary."""
    if 500 <= code < 600:
        return UndeliverableError(code, _printable(text), is_of_address=is_of_address)
    return Retry(describe(code, text))


def describe(code: int, text: bytes) -> str:
    """Return a reply as one line, without email addresses; at most 150 characters of text."""
    return f"{code} {_printable(text)}"


def _detail(kind: bytes, text: bytes) -> bytes:
    """Return the subject and detail of an enhanced status code of this class; empty without one."""
    found = _ENHANCED.search(text)
    return found[2] if found is not None and found[1] == kind else b""


def _printable(text: bytes) -> str:
    """Return a server's text without addresses and control characters.

    A relay may repeat anything it was sent, and PostgreSQL rejects NUL.
    """
    shown = "".join(c if c.isprintable() else " " for c in text.decode("ascii", "replace"))
    return " ".join(word for word in shown.split() if "@" not in word)[:150]
