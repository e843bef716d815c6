"""A page as data: whether one must be signed in, and the plain function behind it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from services.portal.web.api import Asking
from services.portal.web.sessions import Held
from shared.config.settings import Settings
from shared.web.forms import SentFile
from shared.web.results import File, Question, Redirect, View


@dataclass(frozen=True, slots=True)
class Renew(Redirect):
    """Go and see another page, when what is held of the business was fetched anew."""


Result = View | Redirect | File
SEALED = ("password", "current_password", "given_secret")
"""Fields that a question does not put into its page as they were typed."""


@dataclass(frozen=True, slots=True)
class SignIn:
    """Begin a session with what the API answered to a sign-in, and go on to a page of ours.

    Attributes:
        answer: of the API.
        to: a path of ours.
    """

    answer: Mapping[str, str]
    to: str


@dataclass(frozen=True, slots=True)
class Visit:
    """One request, checked.

    Attributes:
        page: what is asked for.
        api: the API, as this browser asks it; by its access token where it is signed in.
        held: who is signed in; None on a page that needs nobody.
        config: the settings.
        path: the variables of the path, as text.
        query: the query string; of a name that is given twice, the first.
        form: the fields of a form, with every value of each.
        files: its files, by their field, on a page that takes them.
        mark: by what the browser is known to a business; empty where it is to none.
    """

    page: "Page"
    api: Asking
    held: Held | None
    config: Settings
    path: Mapping[str, str]
    query: Mapping[str, str]
    form: Mapping[str, list[str]]
    files: Mapping[str, SentFile] = field(default_factory=dict)
    mark: str = ""

    @property
    def business(self) -> Held:
        """Who is signed in.

        Raises:
            RuntimeError: the page needs nobody.
        """
        if self.held is None:
            raise RuntimeError("this page has no signed-in business: declare what it needs")
        return self.held

    def field(self, name: str) -> str:
        """The first value of a field, without blanks around it; empty when it was not filled in."""
        return self.form.get(name, [""])[0].strip()

    def password(self, name: str = "password") -> str:
        """The field of a password, as it was typed: blanks may be part of it.

        Raises:
            RuntimeError: the page was not declared with `takes_password=True`.
        """
        if not self.page.takes_password:
            raise RuntimeError("this page has no password: declare it with takes_password=True")
        return self.form.get(name, [""])[0]

    def lines(self, name: str) -> str:
        """A field of several lines, without the CRs of browsers (HTML, 4.10.21.5)."""
        return self.form.get(name, [""])[0].replace("\r\n", "\n")


@dataclass(frozen=True, slots=True)
class Page:
    """One method on one path.

    Attributes:
        method: GET shows, POST changes something.
        path: as Falcon writes it, such as `/orders/{order_id}`.
        needs: anybody at all, or a business that is signed in.
        handler: runs in a thread.
        asks: for what changes something: what is asked in a page of its own before the handler
            runs; or a page that says why it cannot be. That page has no field, and Enter in a form
            sends it to a question at most.
        takes_files: whether its form may have files.
        takes_password: whether its form may have a password, for which others wait in a lane of
            their own.
        asks_by_itself: whether a page that is open asks for it, and nobody: a piece of that page.
    """

    method: Literal["GET", "POST"]
    path: str
    needs: Literal["nobody", "business"]
    handler: Callable[[Visit], Result | SignIn]
    asks: Callable[[Visit], Question | View] | None = None
    takes_files: bool = False
    takes_password: bool = False
    asks_by_itself: bool = False
