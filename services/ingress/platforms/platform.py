"""The interface of a platform: its signature, its topics, and the content of its orders.

A platform is one module that makes a `Platform`; `known.py` lists them. Everything here is pure.
"""

import binascii
import hmac
import html
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple

import msgspec

from shared.bus.contract.events import EMAIL_PATTERN, TRACKING_URL_PATTERN, TrackingStatus
from shared.ids import LONGEST_NUMBER, normalised_number
from shared.languages.shops import our_word
from shared.validation.email_addresses import with_ascii_domain
from shared.validation.normalisation import without_leap_second

Topic = Literal["new", "change"]
"""Whether a delivery is about a new order or a changed one."""

Text = str | int | float | None
"""A text, which a plugin of the shop may have turned into a number."""

MAX_BODY_BYTES = 1 << 20
"""A platform's order lists all lines, taxes and discounts: hundreds of kilobytes."""
NO_ADDRESS, NO_NAME = our_word("no_address"), our_word("customer")
REFUNDED = our_word("refunded")
_TOTAL, _NO_ITEMS = our_word("total", total=""), our_word("no_items")  # the sum is appended

_MAX_LINE, _MAX_EMAIL, _MAX_LINK = 200, 254, 2_000
_MOST_ITEMS, _COMMA = 3_500, ", "
# Linear time: `html.parser` takes minutes for a megabyte of unclosed tags.
_TAG = re.compile(r"</?([A-Za-z][^<>]*)>")
_MAX_MARKUP = 4_000  # `html.unescape` fails at a number with more digits
_BREAKS = ("br", "div", "li", "p")
_EMAIL, _LINK = re.compile(EMAIL_PATTERN), re.compile(TRACKING_URL_PATTERN)
_CONTROLS = re.compile(r"[\x00-\x1f\x7f]+")
_NOT_IN_CODES, _MAX_CODE = re.compile(r"[^a-z0-9_-]+"), 60
_EPOCH = datetime.fromtimestamp(0, UTC)


class OrderContent(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The content of a platform's order, in our terms.

    Attributes:
        key: identifies the order among the account's orders on this platform.
        is_unique: whether no other order ever has that key; otherwise `made` tells two apart.
        former_key: its key in earlier versions; empty if that is the same.
        spelled_key: its key in versions that distinguished spellings of the shop's address; empty
            if that is the same.
        made: when the shop made it, in the shop's format; empty if unknown.
        is_untouched: whether it is known to have changed last within minutes of being made.
        is_placed: whether it is an order; False for a draft, and if unpaid, failed or cancelled.
        number: the shop's number of it, which the customer knows.
        status: None while nothing has happened that a customer is notified of.
        unknown_status: the platform's status, if the table of states does not list it.
        reason: of a cancellation.
        shop: shown to its owner.
        carrier: of its parcel, or of the last of several; empty if unknown.
        tracking_number: of that parcel.
        tracking_url: of that parcel.
        at: when it was changed last; None if unknown.
        name: of the customer.
        email: of the customer; empty if there is none that can be mailed.
        phone: of the customer.
        items: the ordered items, as text.
        address: to ship to.
    """

    key: str
    number: str
    status: TrackingStatus | None
    at: datetime | None
    name: str
    email: str
    phone: str
    items: str
    address: str
    shop: str
    is_unique: bool = True
    former_key: str = ""
    spelled_key: str = ""
    made: str = ""
    is_untouched: bool = False
    is_placed: bool = True
    reason: str = ""
    unknown_status: str = ""
    carrier: str = ""
    tracking_number: str = ""
    tracking_url: str = ""


class OrderGoneError(Exception):
    """The delivery is about an order that its platform no longer has."""


class State(NamedTuple):
    """A row of the table of states.

    Attributes:
        theirs: the platform's name of the state.
        when: a further condition; may be empty.
        ours: our status of an order that changes to it; None if nothing is recorded.
        is_placed: whether a new order in it is recorded; otherwise the recorder waits for it.
    """

    theirs: str
    when: str
    ours: TrackingStatus | None
    is_placed: bool = True


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Platform:
    """A platform; there is one object of each.

    Attributes:
        name: in the path, the request log and the database.
        title: in sentences.
        signature: the header with the base64 of the HMAC-SHA256 (RFC 2104) of the raw body.
        topic: the header with the topic.
        delivery: the header with the delivery's id, the same for each retry.
        shop: the header that names the shop.
        headers: all of these, with a description.
        required: the headers that a request must have.
        topics: the topics that are recorded; any other is answered 200.
        privacy: the topics that pass on a person's or shop's request for data or its erasure.
        gives_secret: whether the platform makes the secret, and its business gives it to us;
            otherwise it signs with our secret.
        order: the Struct of an order.
        needed: the members that decide the status of an order: it is refused if they are invalid,
            while other invalid members are left out.
        instead: raises `InvalidValueError` or `OrderGoneError` for a body without an `id` that is
            known to be something else than an order.
        read: converts an `order` and the raw header `shop` to a `OrderContent`.
        states: the table of states.
        ping: matches the body of an unsigned form that checks whether the URL answers.
        test: the header of a delivery whose order is made up.
    """

    name: str
    title: str
    signature: str
    topic: str
    delivery: str
    shop: str
    headers: Mapping[str, str]
    required: tuple[str, ...]
    topics: Mapping[str, Topic]
    gives_secret: bool
    order: type[msgspec.Struct]
    needed: tuple[str, ...]
    read: Callable[[Any, str], OrderContent]
    states: tuple[State, ...]
    privacy: tuple[str, ...] = ()
    instead: Callable[[Mapping[str, Any]], None] = lambda _: None
    ping: re.Pattern[bytes] | None = None
    test: str | None = None

    @property
    def path(self) -> str:
        """The path of its endpoint, below the API's prefix."""
        return f"/webhooks/{{account_id}}/{self.name}/"


def sign(key: bytes, body: bytes) -> bytes:
    """Return the signature of a body: base64 of HMAC-SHA256 (RFC 2104)."""
    return binascii.b2a_base64(hmac.digest(key, body, "sha256"), newline=False)


def matches(keys: Iterable[bytes], body: bytes, given: bytes) -> bool:
    """Return whether a signature is right under one of the keys, compared in constant time.

    Args:
        keys: to check.
        body: the raw body.
        given: the raw header.
    """
    for key in keys:  # noqa: SIM110 - a generator is half of what comparing costs
        if hmac.compare_digest(sign(key, body), given):
            return True
    return False


def moment(text: str | None) -> datetime | None:
    """Parse a time of a platform (RFC 3339); without a zone it is in UTC.

    Returns:
        None if it is invalid or before 1970.
    """
    if not text:
        return None
    try:
        at = datetime.fromisoformat(without_leap_second(text))
        at = at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    except (ValueError, OverflowError):
        return None
    return at if at >= _EPOCH else None


def line(part: Text, *others: Text) -> str:
    """Join parts to a line of at most 200 characters, without control characters.

    Args:
        part: the first part.
        *others: appended after a space each; empty ones are left out, but not 0.
    """
    text = part if type(part) is str else "" if part is None else str(part)
    for other in others:
        if other or other == 0:
            text = f"{text} {other}" if text else str(other)
    if len(text) <= _MAX_LINE and text.isprintable():
        return text.strip()
    return _CONTROLS.sub(" ", text).strip()[:_MAX_LINE].strip()


def plain(given: Text) -> Text:
    """Return a name without HTML, which shops send as their pages print it."""
    if not isinstance(given, str) or ("<" not in given and "&" not in given):
        return given
    return " ".join(html.unescape(_TAG.sub(_instead, given[:_MAX_MARKUP])).split())


def _instead(tag: re.Match[str]) -> str:
    return " " if tag[1].lower().startswith(_BREAKS) else ""


def reference(given: Text) -> str:
    """Return a number or name of at most 100 characters in NFC, the form of order numbers."""
    if given is None:
        return ""
    name = line(given)
    if name.isascii():
        return name if len(name) <= LONGEST_NUMBER else name[:LONGEST_NUMBER].strip()
    return normalised_number(name)[:LONGEST_NUMBER].strip()


def code(text: str) -> str:
    """Return a code of a platform or plugin for the request log: lower case, at most 60 characters.

    Any other character is left out, so that a value that is no code shows no personal data.
    """
    return _NOT_IN_CODES.sub("", text)[:_MAX_CODE]


def link(given: Text) -> str:
    """Return a URL that is safe to show to a customer; empty if it is not one."""
    if not given:
        return ""
    address = str(given).strip()
    return address if len(address) <= _MAX_LINK and _LINK.match(address) else ""


def email(given: Text) -> str:
    """Return an email address with an ASCII domain; empty if it cannot be mailed."""
    address = str(given or "").strip()
    if not address.isascii():
        address = with_ascii_domain(address)
    return address if len(address) <= _MAX_EMAIL and _EMAIL.match(address) else ""


def listed(lines: Iterable[tuple[Text, Text]], total: str) -> str:
    """Return the ordered items and the total as text.

    Args:
        lines: quantities and names; consumed up to the limit of the text alone.
        total: with its currency; empty if unknown.
    """
    items: list[str] = []
    length = -len(_COMMA)
    for count, name in lines:
        title = line(name) or "?"
        # Nearly every quantity is a whole number.
        quantity = count if type(count) is int else line(count)
        item = f"{quantity} x {title}" if quantity != "" else title
        items.append(item)
        length += len(_COMMA) + len(item)
        if length > _MOST_ITEMS:
            break
    end = f"\n{_TOTAL}{total}" if total else ""
    text = _COMMA.join(items)
    if length > _MOST_ITEMS:
        text = text[:_MOST_ITEMS].rpartition(_COMMA)[0] + _COMMA + our_word("more")
    return (text or _NO_ITEMS) + end


def joined(*parts: Text) -> str:
    """Join the lines of a postal address; empty if there are none."""
    try:
        address = _COMMA.join(filter(None, parts))  # type: ignore[arg-type]
    except TypeError:  # one of them is a number
        address = ""
    # Fast path: most addresses need no cleaning by `line`, which one check of the whole shows.
    is_short = 0 < len(address) <= _MAX_LINE and address.isprintable()
    if is_short and address == address.strip() and "  " not in address and " ," not in address:
        return address
    return _COMMA.join([found for part in parts if part and (found := line(part))])


def amount(value: Text, currency: Text) -> str:
    """Return a sum of money in the platform's format, with its currency (ISO 4217)."""
    return line(str(value), currency) if value not in (None, "") else ""
