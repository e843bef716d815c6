"""An email's content as data: what its two parts, the text and the HTML, are both made of."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import ClassVar, NamedTuple
from zoneinfo import ZoneInfo

from shared.languages.language import Language
from shared.languages.way import Step


@dataclass(frozen=True, slots=True)
class Paragraph:
    """A sentence or more of ours."""

    kind: ClassVar[str] = "paragraph"
    text: str


@dataclass(frozen=True, slots=True)
class Notice:
    """A sentence of ours that must not be passed over."""

    kind: ClassVar[str] = "notice"
    text: str


@dataclass(frozen=True, slots=True)
class Quote:
    """What somebody else has written, with its lines as they are."""

    kind: ClassVar[str] = "quote"
    text: str


@dataclass(frozen=True, slots=True)
class Command:
    """What a program is to be given, letter for letter; a line each."""

    kind: ClassVar[str] = "command"
    lines: Sequence[str]


@dataclass(frozen=True, slots=True)
class Code:
    """A one-time code, to be read from afar; `said` is the sentence that it stands in."""

    kind: ClassVar[str] = "code"
    code: str
    said: str


class Row(NamedTuple):
    """A name and what it is."""

    label: str
    value: str


@dataclass(frozen=True, slots=True)
class Facts:
    """Rows of names and values, the most important first."""

    kind: ClassVar[str] = "facts"
    rows: Sequence[Row]


@dataclass(frozen=True, slots=True)
class Action:
    """Where the reader can go; the first of an email is the one to press.

    Attributes:
        label: what the button says.
        url: where it leads.
        text_label: what stands before the address in the text part.
        is_first: whether it is the one to press.
    """

    kind: ClassVar[str] = "action"
    label: str
    url: str
    text_label: str
    is_first: bool = True


Block = Paragraph | Notice | Quote | Command | Code | Facts | Action


@dataclass(frozen=True, slots=True)
class Content:
    """An email's content.

    Attributes:
        subject: one line.
        preheader: what a list of mails shows behind the subject.
        heading: above everything.
        blocks: what it says, in order.
        footer: sentences below: whom it is from, how they are reached.
        sender: who speaks.
        kicker: above the heading: which order.
        progress: the steps in words; empty where there are none.
        steps: of an order, all of them.
        leave: what its reader presses to get no more, in the HTML part and before the address.
        leave_url: where; empty where there is nothing to leave.
    """

    subject: str
    preheader: str
    heading: str
    blocks: Sequence[Block]
    footer: Sequence[str]
    sender: str
    kicker: str = ""
    progress: str = ""
    steps: Sequence[Step] = field(default=())
    leave: tuple[str, str] = ("", "")
    leave_url: str = ""


def portal_of(tracking_url: str) -> str:
    """Where the portal is, by the page of its that customers are led to; empty if that is none."""
    origin, track, _ = tracking_url.rstrip("/").rpartition("/track")
    return origin if track else ""


class Setting(NamedTuple):
    """What an email is told with, beside its fact.

    Attributes:
        say: the words.
        zone: whose times are shown.
        public_url: where the API is for the outside.
        reply_to: where answers go; empty: to us.
        code: a one-time code.
        tracking_page: where the customer sees the order; empty where there is no such page.
        unsubscribe_url: where the customer leaves.
        excerpt: of what was ordered, as much as a preheader has room for.
        portal_url: where the portal is; empty where nobody knows.
    """

    say: Language
    zone: ZoneInfo
    public_url: str
    reply_to: str = ""
    code: str = ""
    tracking_page: str = ""
    unsubscribe_url: str = ""
    excerpt: str = ""
    portal_url: str = ""

    def moment(self, value: datetime) -> str:
        """A time, as it is written here."""
        return self.say.moment(value, self.zone)

    def paragraph(self, key: str, **values: object) -> Paragraph:
        """A text of ours as a paragraph, with its places filled in."""
        return Paragraph(self.say(key, **values))

    def api(self, path: str) -> str:
        """An address of the API.

        Args:
            path: below `/api/v1`.
        """
        return f"{self.public_url}/api/v1{path}"

    def page(self, path: str, else_api: str) -> str:
        """An address that people can open, where there is a portal.

        Args:
            path: of a page of the portal.
            else_api: what does the same, below `/api/v1`.
        """
        return f"{self.portal_url}{path}" if self.portal_url else self.api(else_api)
