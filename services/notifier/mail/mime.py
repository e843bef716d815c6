"""An email as bytes, ready for DATA: RFC 5322 headers, multipart/alternative (RFC 2046, 5.1.4).

The standard library's EmailMessage builds and folds a tree, which is most of the cost of sending an
email. Ours all have one shape, which this fills in; the tests parse it with the standard library.
"""

import binascii
import re
from base64 import b64encode
from datetime import datetime
from email.utils import format_datetime, formataddr, parseaddr
from functools import lru_cache
from uuid import UUID

from services.notifier.composing import Email
from shared.ids import derived_id

BOUNDARY = "=_"
"""The start of a boundary, which quoted-printable text cannot contain (RFC 2045, 6.7)."""
LONGEST_LINE = 998  # RFC 5322, 2.1.1
LONGEST_ENCODED = 76
"""Characters of a header line that contains an encoded-word (RFC 2047, 2)."""
_WORD = len("=?utf-8?b??=")
_ATOMS = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?: [A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*")
"""Words that need no quotes before an address (RFC 5322, 3.2.3)."""


def message_id(email: Email, sender: str) -> str:
    """Return the Message-ID, which is the same for every copy of an email.

    Args:
        email: the email.
        sender: the From header, whose domain the id gets.
    """
    return f"<{_id(email.fact_id, email.recipient)}@{_from(sender)[1]}>"


def assemble(email: Email, sender: str, now: datetime) -> bytes:
    """Return the email, with CRLF line ends.

    Args:
        email: the email.
        sender: the From header; a business's name is put before its address.
        now: the Date header, with a time zone.
    """
    boundary = f"{BOUNDARY}{email.fact_id.hex}"
    head = (
        f"From: {_from(sender, email.sender.display_name)[0]}\r\n"
        f"{_reply_to(email.sender.reply_to)}"
        f"To: {_address(email.recipient_name, email.recipient)}\r\n"
        f"Subject: {_subject(email.subject)}\r\n"
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


_date = lru_cache(maxsize=8)(format_datetime)  # one a batch


@lru_cache(maxsize=1_024)
def _id(fact_id: UUID, recipient: str) -> UUID:
    """Return the id; cached, since both the email and its row in the database need it."""
    return derived_id("email", fact_id, recipient)


@lru_cache(maxsize=4_096)
def _from(sender: str, display_name: str = "") -> tuple[str, str]:
    """Return the From header's value and its domain.

    A business's name never stands before our address without ours.
    """
    name, address = parseaddr(sender)
    domain = address.rpartition("@")[2]
    if display_name:
        name = f"{display_name} via {name or domain}"
    return _address(name, address), domain


def _reply_to(address: str) -> str:
    """Return the header, or nothing for an address that could break it (it was proved before)."""
    is_word = address.isascii() and address.isprintable() and " " not in address
    return f"Reply-To: {address}\r\n" if address and is_word else ""


def _unsubscribe(url: str) -> str:
    """Return the headers of RFC 2369, 3.2, and for https only those of RFC 8058, 3.1."""
    if not url:
        return ""
    one_click = "List-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n"
    return f"List-Unsubscribe: <{url}>\r\n{one_click if url.startswith('https://') else ''}"


def _part(kind: str, text: str, boundary: str) -> bytes:
    encoding, body = _encode(text, boundary)
    head = (
        f"--{boundary}\r\n"
        f'Content-Type: text/{kind}; charset="utf-8"\r\n'
        f"Content-Transfer-Encoding: {encoding}\r\n"
        "\r\n"
    )
    return head.encode() + body + b"\r\n"


def _encode(text: str, boundary: str) -> tuple[str, bytes]:
    """Return the transfer encoding and the text: as 7bit if possible, else quoted-printable.

    The boundary is derived, so the text's author may know it; quoted-printable cannot contain it.
    """
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    text = text.removesuffix("\n")
    if text.isascii() and boundary not in text and not _has_long_line(text):
        return "7bit", text.replace("\n", "\r\n").encode()
    encoded = binascii.b2a_qp(text.encode(), istext=True)
    return "quoted-printable", encoded.replace(b"\n", b"\r\n")


def _has_long_line(text: str) -> bool:
    """Return whether a line is longer than `LONGEST_LINE`, without splitting the text."""
    at = 0
    while len(text) - at > LONGEST_LINE:
        at = text.rfind("\n", at, at + LONGEST_LINE + 1) + 1
        if at == 0:
            return True
    return False


def _address(name: str, address: str) -> str:
    name = _one_line(name)
    if _ATOMS.fullmatch(name) and "=?" not in name and address.isascii():
        return f"{name} <{address}>"
    if _is_plain(name):
        return formataddr((name, address))
    encoded = _encoded_words(name, "From")
    last = f"From: {encoded}".rpartition("\n")[2]
    is_long = len(f"{last} <{address}>") > LONGEST_ENCODED
    return f"{encoded}\r\n <{address}>" if is_long else f"{encoded} <{address}>"


def _subject(text: str) -> str:
    text = _one_line(text)
    if _is_plain(text) and len(text) < LONGEST_LINE - 20:
        return text
    return _encoded_words(text, "Subject")


def _encoded_words(text: str, header: str) -> str:
    """Return non-ASCII text as encoded-words (RFC 2047, 5), one a line, each of whole characters.

    The standard library's `Header` takes as long as the rest of an email together.
    """
    raw = text.encode()
    words = []
    begin, room = 0, LONGEST_ENCODED - len(f"{header}: ") - _WORD
    while begin < len(raw):
        end = begin + room // 4 * 3
        while end < len(raw) and raw[end] & 0xC0 == 0x80:
            end -= 1
        words.append(f"=?utf-8?b?{b64encode(raw[begin:end]).decode()}?=")
        begin, room = end, LONGEST_ENCODED - 1 - _WORD
    return "\r\n ".join(words)


def _is_plain(text: str) -> bool:
    """Return whether text needs no encoding: ASCII without anything that RFC 2047 would decode."""
    return text.isascii() and "=?" not in text


def _one_line(text: str) -> str:
    if not text.isprintable():
        text = "".join(c if c.isprintable() else " " for c in text)
    return " ".join(text.split())
