"""Which answers to RCPT are about the address, and which about us, the content or the moment."""

import smtplib

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from services.notifier.mail import connection
from services.notifier.mail.replies import is_address_fault


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (550, b"5.1.1 <gone@shop.example>: Recipient address rejected: User unknown"),
        (550, b"5.1.1 The email account that you tried to reach does not exist.\n5.1.1 See x"),
        (553, b"5.1.3 bad syntax"),
        (550, b"5.1.2 Bad destination system"),
        (551, b"5.1.6 moved"),
        (556, b"5.1.10 Recipient address has null MX"),
        (550, b"5.2.1 The email account that you tried to reach is inactive"),
        (550, b"Sorry, no mailbox here by that name. (#5.1.1)"),
        (556, b"Domain does not accept mail"),
    ],
)
def test_replies_that_mean_an_invalid_address(code, text):
    assert is_address_fault(code, text)


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (550, b"5.7.1 Service unavailable; client host blocked using zen.example"),
        (550, b"5.7.26 Unauthenticated email is not accepted due to the domain's DMARC policy"),
        (554, b"5.7.1 <gone@shop.example>: Relay access denied"),
        (550, b"5.1.8 <orders@us.example>: Sender address rejected: Domain not found"),
        (550, b"5.1.7 bad sender's mailbox"),
        (550, b"5.1.0 address rejected"),
        (552, b"5.2.2 mailbox full"),
        (552, b"5.3.4 message too big"),
        (550, b"5.4.1 Recipient address rejected: Access denied"),
        (550, b"no such user"),
        (550, b"Blocked, see https://blocklist.example/query/5.1.1.9"),
        (553, b"sorry, that domain isn't in my list of allowed rcpthosts (#5.7.1)"),
        (554, b"no valid recipients"),
        (450, b"4.1.1 try again"),
        (450, b"5.1.1 a reply that contradicts itself"),
        (550, b"5.1.11 no such code"),
        (550, b""),
    ],
)
def test_replies_that_mean_something_else(code, text):
    assert not is_address_fault(code, text)


@given(
    st.from_regex(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,12}@[A-Za-z0-9.-]{1,12}", fullmatch=True)
    | st.text(max_size=12)
    | st.emails()
)
@example('"a b"@shop.example')
@example("<zoe@shop.example>")
@example("a..b@shop.example")
@example("zoe@shop.example\r\nDATA")
def test_an_ordinary_address_is_quoted_like_the_standard_library_does(address):
    assert connection._path(address) == smtplib.quoteaddr(address)
