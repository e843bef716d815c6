"""What there is to know of a platform: how its webhooks are signed, and what its orders say.

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
from shared.languages.shops import our_word
from shared.validation.email_addresses import with_ascii_domain
from shared.validation.other_forms import without_leap_second

Topic = Literal["new", "change"]
"""What a delivery is about: a new order, or one that has changed."""

Text = str | int | float | None
"""A text, also where a plugin of the shop makes a number of it."""

MAX_BODY_BYTES = 1 << 20
"""An order of theirs has all its lines, taxes and discounts: hundreds of kilobytes of them."""
NO_ADDRESS, NO_NAME = our_word("no_address"), our_word("customer")
REFUNDED = our_word("refunded")

_MAX_LINE, _MAX_EMAIL, _MAX_LINK = 200, 254, 2_000
# In linear time: of a megabyte of tags without ends `html.parser` makes minutes.
_TAG = re.compile(r"</?([A-Za-z][^<>]*)>")
_MAX_MARKUP = 4_000  # `html.unescape` fails at a number of more digits
_BREAKS = ("br", "div", "li", "p")
_EMAIL, _LINK = re.compile(EMAIL_PATTERN), re.compile(TRACKING_URL_PATTERN)
_CONTROLS = re.compile(r"[\x00-\x1f\x7f]+")
_EPOCH = datetime.fromtimestamp(0, UTC)


class Said(msgspec.Struct, frozen=True, kw_only=True):
    """What a platform's order says, in our terms.

    Attributes:
        key: what tells the order from every other of the account's on this platform.
        is_unique: whether no other order ever has that key; else `made` tells two apart.
        former_key: what was its key in earlier versions; empty where that is the same.
        spelled_key: what was its key in versions that told apart how its shop's address is spelled;
            empty where that is the same.
        made: when the shop made it, as it writes times; empty where it does not say so.
        is_untouched: whether it is known that it was changed last when it was made, or within
            minutes of that.
        is_placed: whether somebody has ordered; not while it is a draft or unpaid, nor once it
            failed or was cancelled.
        number: as the shop and its customer call it.
        status: where it is; None while nothing has happened that a customer would be told.
        reason: of a cancellation.
        shop: which shop it is of, for its owner.
        carrier: of its parcel, or of the last of them; empty where that is not known.
        tracking_number: of that parcel.
        tracking_url: where it can be followed.
        at: when it was changed last; None where it does not say so.
        name: of the customer.
        email: where the customer can be mailed; empty for nowhere.
        phone: of the customer.
        items: what was ordered.
        address: where it goes.
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
    carrier: str = ""
    tracking_number: str = ""
    tracking_url: str = ""


class State(NamedTuple):
    """A row of the table of states.

    Attributes:
        theirs: the state, by the platform's own name.
        when: what else has to be so; empty for nothing.
        ours: what an order is here that changes to it; None where nothing is recorded for it.
        is_placed: whether an order that is new in it is recorded; else it is waited for.
    """

    theirs: str
    when: str
    ours: TrackingStatus | None
    is_placed: bool = True


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Platform:
    """A platform; there is one object of each.

    Attributes:
        name: in the path, in the request log and in the database.
        title: in a sentence.
        signature: the header with the base64 of the HMAC-SHA256 (RFC 2104) of the raw body.
        topic: the header that says what the delivery is about.
        delivery: the header that names the delivery, the same whenever it is tried again.
        shop: the header that says which shop sends.
        headers: all of these, with what they hold.
        required: those that a request must have.
        topics: what is taken of its topics; any other is answered and not recorded.
        gives_secret: whether the platform makes the secret, so that its business gives it to us;
            else it signs with ours.
        order: what is read of an order.
        needed: the members of an order without which it is not known where it is: they are refused
            where they do not fit, and any other is passed over.
        wrapped: what to say of an order that is inside an `order`; empty where none ever is.
        read: what such an order says; `shop` is that header, as it came.
        states: the table of states.
        ping: the whole body of a delivery that only asks whether somebody is there, unsigned and
            encoded as a form.
        test: the header that a delivery has whose order is made up.
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
    read: Callable[[Any, str], Said]
    states: tuple[State, ...]
    wrapped: str = ""
    ping: re.Pattern[bytes] | None = None
    test: str | None = None

    @property
    def path(self) -> str:
        """Where it sends to, below the API's prefix."""
        return f"/webhooks/{{account_id}}/{self.name}/"


def sign(key: bytes, body: bytes) -> bytes:
    """The right signature of a body: base64 of HMAC-SHA256 (RFC 2104)."""
    return binascii.b2a_base64(hmac.digest(key, body, "sha256"), newline=False)


def matches(keys: Iterable[bytes], body: bytes, given: bytes) -> bool:
    """Whether a signature is one of the right ones, compared in constant time.

    Args:
        keys: under each of which it may be made.
        body: the raw body.
        given: the header as it came.
    """
    return any(hmac.compare_digest(sign(key, body), given) for key in keys)


def moment(text: str | None) -> datetime | None:
    """A time as a platform writes it (RFC 3339); in UTC where it names no zone.

    Returns:
        None where it is none, or lies before 1970.
    """
    if not text:
        return None
    try:
        at = datetime.fromisoformat(without_leap_second(text))
        at = at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    except (ValueError, OverflowError):
        return None
    return at if at >= _EPOCH else None


def line(*parts: Text, otherwise: str = "") -> str:
    """Parts in one line of at most 200 characters, without control characters.

    Args:
        parts: separated by spaces; what is empty is left out.
        otherwise: what stands there where nothing is left.
    """
    if len(parts) == 1 and type(parts[0]) is str:
        whole = parts[0]  # what nearly every one is
    else:
        whole = " ".join([str(part) for part in parts if part or part == 0])
    if len(whole) <= _MAX_LINE and whole.isprintable():
        return whole.strip() or otherwise
    return _CONTROLS.sub(" ", whole).strip()[:_MAX_LINE].strip() or otherwise


def plain(given: Text) -> Text:
    """A name without its markup, where a shop gives names as its pages print them (HTML)."""
    if not isinstance(given, str) or ("<" not in given and "&" not in given):
        return given
    return " ".join(html.unescape(_TAG.sub(_instead, given[:_MAX_MARKUP])).split())


def _instead(tag: re.Match[str]) -> str:
    return " " if tag[1].lower().startswith(_BREAKS) else ""


def reference(given: Text) -> str:
    """What something is called by, in at most 100 characters; empty where there is nothing."""
    return line(given)[:100].strip() if given is not None else ""


def link(given: Text) -> str:
    """An address that a customer may be sent to; empty where it is none."""
    if not given:
        return ""
    address = str(given).strip()
    return address if len(address) <= _MAX_LINK and _LINK.match(address) else ""


def email(given: Text) -> str:
    """An address that can be mailed; empty where it is none, or none that we can mail."""
    address = with_ascii_domain(str(given or "").strip())
    return address if len(address) <= _MAX_EMAIL and _EMAIL.match(address) else ""


def listed(lines: Iterable[tuple[Text, Text]], total: str) -> str:
    """What was ordered, as free text.

    Args:
        lines: how many of what; those behind what is kept are not looked at.
        total: what it costs in all, with its currency; empty where that is not known.
    """
    named: list[str] = []
    length = -len(_COMMA)
    for count, name in lines:
        named.append(_counted(count, line(name, otherwise="?")))
        length += len(_COMMA) + len(named[-1])
        if length > _MOST_ITEMS:
            break
    end = "\n" + our_word("total", total=total) if total else ""
    whole = _COMMA.join(named)
    if length > _MOST_ITEMS:
        whole = whole[:_MOST_ITEMS].rpartition(_COMMA)[0] + _COMMA + our_word("more")
    return (whole or our_word("no_items")) + end


def _counted(count: Text, name: str) -> str:
    # A whole number is what nearly every one is.
    counted = str(count) if type(count) is int else line(count)
    return f"{counted} x {name}" if counted else name


def joined(*parts: Text) -> str:
    """The lines of a postal address, as one; empty where there are none."""
    return ", ".join([found for part in parts if part and (found := line(part))])


def amount(value: Text, currency: Text) -> str:
    """A sum of money as the platform writes it, with its currency (ISO 4217)."""
    return line(str(value), currency) if value not in (None, "") else ""


_MOST_ITEMS, _COMMA = 3_500, ", "
