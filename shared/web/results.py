"""What a page answers: a view, another page, a file, a question; or an error in a sentence."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

SURE = "sure"
"""The field that only a question has: `yes`; and `no` behind it, where that is pressed."""
BACK = "back"
"""The field that names the page of a form: where a question leads that is answered by no."""


class PageError(Exception):
    """An answer that says what is wrong; the transaction is rolled back.

    Args:
        status: the HTTP status.
        sentence: for people.
    """

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status
        self.sentence = sentence


@dataclass(frozen=True, slots=True)
class View:
    """A page to show.

    Attributes:
        template: its name.
        about: what it is about.
        status: of the answer.
        headers: of the answer, in place of those that every page has.
        of: the ids of those whose data it shows, for the audit log; None: those in its path.
    """

    template: str
    about: Mapping[str, Any] = field(default_factory=dict)
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    of: Sequence[str] | None = None


@dataclass(frozen=True, slots=True)
class Redirect:
    """Go and see another page (303: RFC 9110, 15.4.4).

    Attributes:
        to: a path of ours.
        note: what that page says once, such as what became of an action.
        token: the session that begins; empty: that ends; None: neither.
        mark: by what the browser is to be known to whom it signs in; empty: as before.
    """

    to: str
    note: str = ""
    token: str | None = None
    mark: str = ""


@dataclass(frozen=True, slots=True)
class Again(Redirect):
    """Go back to the page of a form, which has in it what was typed.

    Attributes:
        typed: the fields of the form.
        refused: why it was not taken; empty where it was not refused.
        status: of the answer.
    """

    typed: Mapping[str, list[str]] = field(default_factory=dict)
    refused: str = ""
    status: int = 200


@dataclass(frozen=True, slots=True)
class File:
    """A file to save; `of` as that of a `View`."""

    name: str
    content_type: str
    content: bytes
    of: Sequence[str] | None = None


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked before something is done: it names what that does, and to whom.

    Attributes:
        title: the question.
        button: what its one button does.
        back: where to go instead; a form that names its own page has the last word.
        facts: what it is done to, by name.
        more: what follows from it, in a sentence.
        listed: examples, where it is done to many.
        body: the text that is published by it.
        nothing: why there is nothing to be done; then there is no button.
        is_danger: whether it cannot be taken back.
        also: fields that are sent with the answer beside the form's: what was found when it was
            asked, so that nothing else is done.
    """

    title: str
    button: str
    back: str
    facts: Mapping[str, str] = field(default_factory=dict)
    more: str = ""
    listed: Sequence[str] = ()
    body: str = ""
    nothing: str = ""
    is_danger: bool = False
    also: Mapping[str, str] = field(default_factory=dict)

    def about(self, form: Mapping[str, Sequence[str]], to: str) -> dict[str, Any]:
        """What `question.html` shows.

        Args:
            form: the fields that are sent again with the answer.
            to: the path that they are sent to.
        """
        known = {**form, **{name: [value] for name, value in self.also.items()}}
        known.setdefault(BACK, [self.back])
        again = [(name, value) for name, values in known.items() for value in values]
        return {"question": self, "to": to, "fields": again, "sure": SURE}


def own_path(path: str) -> str:
    """A path to go on to; one that leads to another site becomes the first page.

    A browser takes two slashes or more, of either kind, for the beginning of a host's name (WHATWG,
    "URL", 4.4: the special authority ignore slashes state).
    """
    is_ours = path.isprintable() and re.match(r"/(?![/\\])", path) is not None
    return path if is_ours else "/"
