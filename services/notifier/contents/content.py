"""An email's content as data, from which both its text part and its HTML part are rendered."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import ClassVar, NamedTuple
from zoneinfo import ZoneInfo

from shared.languages.delivery_steps import Step
from shared.languages.language import Language


@dataclass(frozen=True, slots=True)
class Paragraph:
    """One or more sentences."""

    kind: ClassVar[str] = "paragraph"
    text: str


@dataclass(frozen=True, slots=True)
class Notice:
    """An emphasized sentence."""

    kind: ClassVar[str] = "notice"
    text: str


@dataclass(frozen=True, slots=True)
class Quote:
    """Text of another author, with its line breaks."""

    kind: ClassVar[str] = "quote"
    text: str


@dataclass(frozen=True, slots=True)
class Command:
    """Text to be copied verbatim, such as a request; one line each."""

    kind: ClassVar[str] = "command"
    lines: Sequence[str]


@dataclass(frozen=True, slots=True)
class Code:
    """A one-time code in large type.

    Attributes:
        code: the code.
        sentence: the sentence with it, for the text part.
    """

    kind: ClassVar[str] = "code"
    code: str
    sentence: str


class Row(NamedTuple):
    """A label and its value."""

    label: str
    value: str


@dataclass(frozen=True, slots=True)
class Facts:
    """A table of labels and values, the most important first."""

    kind: ClassVar[str] = "facts"
    rows: Sequence[Row]


@dataclass(frozen=True, slots=True)
class Action:
    """A button.

    Attributes:
        label: its text.
        url: its target.
        text_label: the text before the URL in the text part.
        is_first: whether it is the email's main button.
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
        preheader: what a mail program's list shows after the subject.
        heading: the title.
        blocks: the body, in order.
        footer: sentences below: who sends it and how to reach them.
        sender: the sender's name.
        kicker: a line above the heading, with the order's number.
        progress: the steps as text, such as "step 2 of 4"; empty without steps.
        steps: all steps of an order.
        leave: the labels of the link to unsubscribe, in the HTML part and in the text part.
        leave_url: its target; empty if there is none.
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
    """Return the portal's URL, derived from that of its tracking page; empty for another's page."""
    origin, track, _ = tracking_url.rstrip("/").rpartition("/track")
    return origin if track else ""


class Setting(NamedTuple):
    """What an email depends on besides its fact.

    Attributes:
        say: the language.
        zone: the time zone of times.
        public_url: the API's public URL.
        reply_to: the address for answers; empty for ours.
        code: a one-time code.
        tracking_page: the URL of the order's page; empty if there is none.
        unsubscribe_url: the customer's link to unsubscribe.
        excerpt: the beginning of the item summary, for the preheader.
        portal_url: the portal's URL; empty if unknown.
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
        """Return a time as text."""
        return self.say.moment(value, self.zone)

    def paragraph(self, key: str, **values: object) -> Paragraph:
        """Return a text of the language as a paragraph, with its placeholders filled."""
        return Paragraph(self.say(key, **values))

    def api(self, path: str) -> str:
        """Return a URL of the API for a path below `/api/v1`."""
        return f"{self.public_url}/api/v1{path}"

    def way(self, label: str, path: str, *else_api: str, is_first: bool = True) -> list[Block]:
        """Return a button to a page of the portal or, without a portal, the API's requests.

        Args:
            label: the key of the button's text.
            path: of a page of the portal.
            else_api: requests that do the same, as method and path below `/api/v1`.
            is_first: whether it is the email's main button.
        """
        if self.portal_url:
            text = self.say(label)
            return [Action(text, f"{self.portal_url}{path}", text, is_first)]
        requests = [request.split(" ", 1) for request in else_api]
        lines = [f"{method} {self.api(to)}" for method, to in requests]
        return [Command(lines)] if lines else []
