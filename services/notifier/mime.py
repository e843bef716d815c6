"""An email as bytes, ready for DATA: RFC 5322 headers, multipart/alternative (RFC 2046, 5.1.4).

The standard library's EmailMessage builds and folds a tree for each email, which is most of what
sending one costs. All of ours have one shape, so this fills that shape in; the tests read what
comes out with the standard library.
"""

import binascii
import re
from base64 import b64encode
from datetime import datetime
from email.header import Header
from email.utils import format_datetime, formataddr, parseaddr
from functools import lru_cache
from uuid import UUID

from services.notifier.composing import Email
from shared.ids import derived_id

BOUNDARY = "=_"
"""How a boundary begins: as nothing in quoted-printable can (RFC 2045, 6.7)."""
LONGEST_LINE = 998  # RFC 5322, 2.1.1
LONGEST_WORD = 45
"""Bytes of UTF-8 that one encoded-word has room for (RFC 2047, 2)."""
_ATOMS = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?: [A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*")
"""Words that need no quotes before an address (RFC 5322, 3.2.3)."""


def message_id(email: Email, sender: str) -> str:
    """The Message-ID, derived, so that a second copy of an email can be told as one.

    Args:
        email: the email.
        sender: the From header; its domain makes the id ours.
    """
    return f"<{_id(email.fact_id, email.recipient)}@{_from(sender)[1]}>"


def assemble(email: Email, sender: str, now: datetime) -> bytes:
    """The whole email, with CRLF line ends.

    Args:
        email: what to say to whom.
        sender: the From header; the address in it is ours whatever a business has chosen.
        now: the Date header, with a time zone.
    """
    boundary = f"{BOUNDARY}{email.fact_id.hex}"
    head = (
        f"From: {_from(sender, email.sender.display_name)[0]}\r\n"
        f"{_reply_to(email.sender.reply_to)}"
        f"To: {_address(email.recipient_name, email.recipient)}\r\n"
        f"Subject: {_header(email.subject)}\r\n"
        f"Date: {_date(now)}\r\n"
        f"Message-ID: {message_id(email, sender)}\r\n"
        "MIME-Version: 1.0\r\n"
        "Auto-Submitted: auto-generated\r\n"
        f"{_unsubscribe(email.unsubscribe_url)}"
        f'Content-Type: multipart/alternative; boundary="{boundary}"\r\n'
        "\r\n"
    )
    return b"".join(
        (
            head.encode("ascii"),
            _part("plain", email.text, boundary),
            _part("html", email.html, boundary),
            f"--{boundary}--\r\n".encode(),
        )
    )


_date = lru_cache(maxsize=8)(format_datetime)  # a batch has one


@lru_cache(maxsize=1_024)
def _id(fact_id: UUID, recipient: str) -> UUID:
    """Asked for twice: for the email, and for the row that says that it was sent."""
    return derived_id("email", fact_id, recipient)


@lru_cache(maxsize=4_096)
def _from(sender: str, display_name: str = "") -> tuple[str, str]:
    """The From header's value and its domain.

    Another's name never stands before our address without ours.
    """
    name, address = parseaddr(sender)
    domain = address.rpartition("@")[2]
    if display_name:
        name = f"{display_name} via {name or domain}"
    return _address(name, address), domain


def _reply_to(address: str) -> str:
    """The header, for what is an address by its form: it was proved, and is read from a table."""
    is_word = address.isascii() and address.isprintable() and " " not in address
    return f"Reply-To: {address}\r\n" if address and is_word else ""


def _unsubscribe(url: str) -> str:
    """RFC 2369, 3.2, and RFC 8058, 3.1, which is for https alone."""
    if not url:
        return ""
    one_click = "List-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n"
    return f"List-Unsubscribe: <{url}>\r\n{one_click if url.startswith('https://') else ''}"


def _part(kind: str, text: str, boundary: str) -> bytes:
    encoding, body = _encode(text)
    head = (
        f"--{boundary}\r\n"
        f'Content-Type: text/{kind}; charset="utf-8"\r\n'
        f"Content-Transfer-Encoding: {encoding}\r\n"
        "\r\n"
    )
    return head.encode() + body + b"\r\n"


def _encode(text: str) -> tuple[str, bytes]:
    """As it is where every mail server takes it so, else quoted-printable (RFC 2045, 6.7).

    Whose text it is can know the boundary, which is derived: its beginning never stands in a part.
    """
    raw = text.encode()
    lines = raw.removesuffix(b"\n").split(b"\n") if b"\r" not in raw else raw.splitlines()
    if raw.isascii() and BOUNDARY not in text and max(map(len, lines)) <= LONGEST_LINE:
        return "7bit", b"\r\n".join(lines)
    encoded = binascii.b2a_qp(b"\n".join(lines), istext=True)
    return "quoted-printable", encoded.replace(b"\n", b"\r\n")


def _address(name: str, address: str) -> str:
    name = _one_line(name)
    if _ATOMS.fullmatch(name) and "=?" not in name and address.isascii():
        return f"{name} <{address}>"
    if _is_plain(name):
        return formataddr((name, address))
    return f"{_header(name)} <{address}>"


def _header(text: str) -> str:
    text = _one_line(text)
    if _is_plain(text) and len(text) < LONGEST_LINE - 20:
        return text
    raw = text.encode()
    if len(raw) <= LONGEST_WORD:
        return f"=?utf-8?b?{b64encode(raw).decode()}?="
    return Header(text, "utf-8", maxlinelen=76, header_name="Subject").encode(linesep="\r\n")


def _is_plain(text: str) -> bool:
    """Whether it stands for itself: ASCII, and nothing that RFC 2047 would decode."""
    return text.isascii() and "=?" not in text


def _one_line(text: str) -> str:
    if not text.isprintable():
        text = "".join(c if c.isprintable() else " " for c in text)
    return " ".join(text.split())
