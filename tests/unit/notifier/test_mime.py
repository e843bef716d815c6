"""What `mime` writes, the standard library reads."""

import email
import email.policy
from datetime import UTC, datetime

from hypothesis import example, given
from hypothesis import strategies as st

from services.notifier.composing import Email
from services.notifier.mime import LONGEST_LINE, assemble, message_id
from shared.ids import new_id

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
SENDER = "Order Fellow <no-reply@order-fellow.example>"
# No lone surrogates: JSON's decoder lets none through.
anything = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=1500)


def mail(**changes):
    values = {
        "fact_id": new_id(),
        "fact_type": "order.recorded",
        "subject_id": "1",
        "template": "order_received",
        "recipient": "zoe@shop.example",
        "recipient_name": "Zoë",
        "subject": "Your order",
        "text": "Hello\n",
        "html": "<p>Hello</p>\n",
    }
    return Email(**(values | changes))


def parse(mail_):
    raw = assemble(mail_, SENDER, NOW)
    return raw, email.message_from_bytes(raw, policy=email.policy.default)


def words(text):
    """A header is one line, and control characters are no part of it."""
    return "".join(c if c.isprintable() else " " for c in text).split()


def lines(text):
    return text.replace("\r\n", "\n").replace("\r", "\n").rstrip("\n").split("\n")


@given(anything, anything, anything, anything)
@example("", "Zoë <x@y>\r\nBcc: all@shop.example", ".\n..\n. \n", "--=_\n")
@example("=?utf-8?q?x?=", '"quoted" \\ (comment)', "tail \t\n=20", "x" * 5000)
@example("é" * 300, "Ω" * 200, "\r", "\n\n")
def test_it_reads_as_it_was_written(subject, name, text, html):
    raw, parsed = parse(mail(subject=subject, recipient_name=name, text=text, html=html))
    assert not parsed.defects
    assert [a.addr_spec for a in parsed["To"].addresses] == ["zoe@shop.example"]
    assert words(str(parsed["Subject"])) == words(subject)
    assert parsed["Bcc"] is None
    assert set(parsed.keys()) == {
        "From",
        "To",
        "Subject",
        "Date",
        "Message-ID",
        "MIME-Version",
        "Auto-Submitted",
        "Content-Type",
    }
    parts = [part for part in parsed.walk() if not part.is_multipart()]
    assert [p.get_content_type() for p in parts] == ["text/plain", "text/html"]
    assert lines(parts[0].get_content()) == lines(text)
    assert lines(parts[1].get_content()) == lines(html)
    for line in raw.split(b"\r\n"):
        assert b"\n" not in line
        assert b"\r" not in line
        assert len(line) <= LONGEST_LINE


def test_the_name_is_kept():
    for name in ("Zoë Ade", "O'Neil, Bob", 'A "B" C', "Plain Name"):
        _, parsed = parse(mail(recipient_name=name))
        assert parsed["To"].addresses[0].display_name == name


def test_the_message_id_belongs_to_the_fact_and_the_recipient():
    one = mail()
    assert message_id(one, SENDER) == message_id(one, SENDER)
    assert message_id(one, SENDER).endswith("@order-fellow.example>")
    other = mail(fact_id=one.fact_id, recipient="ada@shop.example")
    assert message_id(one, SENDER) != message_id(other, SENDER)
