"""What `mime` writes, the standard library reads."""

import email
import email.policy
import re
from base64 import b64decode
from datetime import UTC, datetime
from email.header import decode_header, make_header
from email.utils import parseaddr

from hypothesis import example, given
from hypothesis import strategies as st

from services.notifier.composing import Email
from services.notifier.mail.mime import LONGEST_ENCODED, LONGEST_LINE, assemble, message_id
from services.notifier.senders import Sender
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
def test_the_standard_library_parses_it_back(subject, name, text, html):
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


@given(anything, st.sampled_from(["text", "html"]), st.sampled_from(["\n", "\r\n", "\r"]))
def test_a_text_with_the_boundary_does_not_end_its_part(before, place, end):
    """Who sends an order knows its ids, and the boundary with them."""
    id_ = new_id()
    _, parsed = parse(mail(fact_id=id_))
    line = f"--{parsed.get_boundary()}"
    forged = (
        f"{before}{end}{line}{end}Content-Type: text/html{end * 2}<h1>Pay here</h1>{end}{line}--"
    )
    raw, parsed = parse(mail(fact_id=id_, **{place: forged}))
    assert parsed.get_boundary() == line[2:]
    assert len(raw.split(b"\r\n" + line.encode())) == 4
    plain, html = parsed.iter_parts()
    assert lines((plain if place == "text" else html).get_content()) == lines(forged)
    assert not parsed.epilogue


@given(anything, anything)
@example("Ω" * 200, "é" * 19)
@example("😀" * 40, "Ł" + "a" * 40)
@example("=?utf-8?q?x?=", "a" * 200 + "é")
@example("", "0000000¡¡¡¡¡¡¡¡¡¡¡¡")
def test_encoded_words_decode_to_the_text(subject, name):
    """RFC 2047: decoding returns the text, and no line or word is too long."""
    raw, _ = parse(mail(subject=subject, recipient_name=name))
    head = email.message_from_bytes(raw, policy=email.policy.compat32)
    assert str(make_header(decode_header(head["Subject"]))) == " ".join(words(subject))
    shown = parseaddr(head["To"])[0]
    assert str(make_header(decode_header(shown))) == " ".join(words(name))
    for line in raw.split(b"\r\n\r\n")[0].split(b"\r\n"):
        if line.startswith((b"To:", b"Subject:", b" ")) and b"?b?" in line:
            assert len(line) <= LONGEST_ENCODED
            for word in re.findall(rb"=\?utf-8\?b\?(.+?)\?=", line):
                b64decode(word).decode()


@given(st.lists(st.integers(0, LONGEST_LINE + 2) | st.integers(0, 90), max_size=12))
@example([LONGEST_LINE])
@example([LONGEST_LINE + 1])
@example([3, LONGEST_LINE, LONGEST_LINE, 0, LONGEST_LINE + 1])
def test_a_text_is_7bit_unless_a_line_is_too_long(lengths):
    raw, _ = parse(mail(text="\n".join("x" * length for length in lengths)))
    is_as_it_is = max(lengths, default=0) <= LONGEST_LINE
    first = raw.split(b"Content-Transfer-Encoding: ")[1]
    assert first.startswith(b"7bit" if is_as_it_is else b"quoted-printable")


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


@given(anything, anything)
@example("Kettle\r\nBcc: all@shop.example", "a@shop.example\r\nBcc: all@shop.example")
@example("\u202eelttek <evil@x.example>", "")
def test_a_businesss_settings_never_change_the_from_address(name, reply_to):
    raw, parsed = parse(mail(sender=Sender(name, reply_to)))
    (sender,) = parsed["From"].addresses
    assert sender.addr_spec == "no-reply@order-fellow.example"
    # Python before 3.13 leaves the space between two encoded words in, where a name is long.
    assert "".join(sender.display_name.split()).endswith("OrderFellow")
    assert parsed["Bcc"] is None
    assert raw.split(b"\r\n\r\n")[0].count(b"\r\nReply-To: ") <= 1


def test_a_business_is_named_before_us_and_gets_the_answers():
    _, parsed = parse(mail(sender=Sender("Kettle & Co", "help@kettle.example")))
    assert parsed["From"].addresses[0].display_name == "Kettle & Co via Order Fellow"
    assert str(parsed["Reply-To"]) == "help@kettle.example"
    _, parsed = parse(mail())
    assert parsed["From"].addresses[0].display_name == "Order Fellow"
    assert parsed["Reply-To"] is None


def test_one_click_is_promised_by_https_alone():
    """RFC 8058, 3.1; RFC 2369 takes both."""
    secure = "https://shop.example/api/v1/unsubscribe/?token=" + "x" * 91
    raw, parsed = parse(mail(unsubscribe_url=secure))
    assert f"\r\nList-Unsubscribe: <{secure}>\r\n".encode() in raw
    assert b"\r\nList-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n" in raw
    _, parsed = parse(mail(unsubscribe_url="http://127.0.0.1:8000/x"))
    assert str(parsed["List-Unsubscribe"]) == "<http://127.0.0.1:8000/x>"
    assert parsed["List-Unsubscribe-Post"] is None
    _, parsed = parse(mail())
    assert parsed["List-Unsubscribe"] is None
