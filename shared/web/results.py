"""Results of pages: views, redirects, files, questions and errors."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

SURE = "sure"
"""The field of a question page: `yes`, and additionally `no` if that button is pressed."""
BACK = "back"
"""The field with the path of the form's page, to which `no` returns."""


class PageError(Exception):
    """An error page; raised by a handler, it rolls the transaction back.

    Args:
        status: the HTTP status.
        sentence: for people.
        retry_after: the `Retry-After` header in seconds; 0 for none, as if the same action could be
            done twice.
    """

    def __init__(self, status: int, sentence: str, retry_after: int = 0) -> None:
        super().__init__(sentence)
        self.status = status
        self.sentence = sentence
        self.retry_after = retry_after


RETRY_SECONDS = 5
"""The `Retry-After` of a 503 after which nothing was changed, as the API's."""


@dataclass(frozen=True, slots=True)
class View:
    """A rendered page.

    Attributes:
        template: file name.
        about: the template's variables.
        status: of the response.
        headers: that override those of all pages.
        of: ids of the accounts whose data it shows, for the audit log; None: those in its path.
    """

    template: str
    about: Mapping[str, Any] = field(default_factory=dict)
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    of: Sequence[str] | None = None


@dataclass(frozen=True, slots=True)
class Redirect:
    """A redirect to another page (303: RFC 9110, 15.4.4).

    Attributes:
        to: a path of this site.
        note: shown once on that page, such as the result of an action.
        token: of a new session to set; empty to end the session; None to change nothing.
        mark: the device token to set; empty to change nothing.
    """

    to: str
    note: str = ""
    token: str | None = None
    mark: str = ""


@dataclass(frozen=True, slots=True)
class Again(Redirect):
    """Shows the page of a form again, with the typed values.

    Attributes:
        typed: the fields of the form.
        refused: why it was refused; empty if it was not.
        status: of the response.
    """

    typed: Mapping[str, list[str]] = field(default_factory=dict)
    refused: str = ""
    status: int = 200


@dataclass(frozen=True, slots=True)
class File:
    """A file to download; `of` as in `View`."""

    name: str
    content_type: str
    content: bytes
    of: Sequence[str] | None = None


@dataclass(frozen=True, slots=True)
class Question:
    """The confirmation question before an action, with its subject and consequences.

    Attributes:
        title: the question.
        button: label of the confirming button.
        back: path to return to, unless the form names its page.
        facts: properties of the subject, by label.
        more: a sentence on the consequences.
        listed: examples, if there are many subjects.
        body: the text that the action publishes.
        nothing: why there is nothing to do; then there is no button.
        is_danger: whether the action cannot be undone.
        also: fields submitted in addition to the form's: the state found when the question was
            asked, so that the action applies to nothing else.
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
        """Return the variables of `question.html`.

        Args:
            form: the fields that are submitted again with the confirmation.
            to: the path to which they are submitted.
        """
        known = {**form, **{name: [value] for name, value in self.also.items()}}
        known.setdefault(BACK, [self.back])
        again = [(name, value) for name, values in known.items() for value in values]
        return {"question": self, "to": to, "fields": again, "sure": SURE}


def own_path(path: str) -> str:
    """Return a path of this site, or `/` instead of one that leads to another site.

    Browsers parse a path with two or more leading slashes or backslashes as a host (WHATWG, "URL",
    4.4: special authority ignore slashes state).
    """
    is_ours = path.isprintable() and re.match(r"/(?![/\\])", path) is not None
    return path if is_ours else "/"
