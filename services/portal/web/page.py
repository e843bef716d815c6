"""A page as data: whether one must be signed in, and the plain function behind it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from services.portal.web.api import Asking, Refused
from services.portal.web.sessions import Held
from shared.config.settings import Settings
from shared.security.encryption import CannotOpenError, portal_sealer
from shared.web import mount
from shared.web.forms import SentFile
from shared.web.mount import Result
from shared.web.results import Question, Redirect, View
from shared.web.tokens import hashed


@dataclass(frozen=True, slots=True)
class Renew(Redirect):
    """Go and see another page, when what is held of the business was fetched anew."""


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
class Visit(mount.Visit):
    """One request, checked.

    Attributes:
        api: the API, as this browser asks it; by its access token where it is signed in.
        held: who is signed in; None on a page that needs nobody.
        config: the settings.
        files: its files, by their field, on a page that takes them.
        token: by what its browser is known here.
    """

    api: Asking
    held: Held | None
    config: Settings
    files: Mapping[str, SentFile]
    token: str

    @property
    def business(self) -> Held:
        """Who is signed in.

        Raises:
            RuntimeError: the page needs nobody.
        """
        if self.held is None:
            raise RuntimeError("this page has no signed-in business: declare what it needs")
        return self.held

    def seal(self, name: str, value: str) -> str:
        """A value for a query of this browser's: in another's it is none."""
        return seal(value, name, self.token)

    def unsealed(self, name: str) -> str:
        """What `seal` has put into the query; empty where it was of another browser, or nothing."""
        try:
            return unseal(self.query.get(name, ""), name, self.token)
        except (CannotOpenError, ValueError):
            return ""

    def listed(self, path: str, **query: str) -> tuple[dict[str, Any], str]:
        """A page of a list of the API's; or an empty one, and what is wrong with the query."""
        try:
            return self.api.get(path, **query), ""
        except Refused as refused:
            if refused.code != "invalid_query":
                raise
            return {"results": [], "next": None}, str(refused)


@dataclass(frozen=True, slots=True)
class Page(mount.Page):
    """One method on one path.

    Attributes:
        asks_by_itself: then it is a piece of that page.
        takes_files: whether its form may have files.
    """

    needs: Literal["nobody", "business"]
    handler: Callable[[Visit], Result | SignIn]
    asks: Callable[[Visit], Question | View] | None = None
    takes_files: bool = False


def seal(value: str, name: str, token: str) -> str:
    """A value of a name, for the browser that is known by a token, and for no other."""
    return portal_sealer().seal(value.encode(), f"{name}:{hashed(token).hex()}").hex()


def unseal(value: str, name: str, token: str) -> str:
    """What `seal` has made.

    Raises:
        CannotOpenError, ValueError: it is of another name or browser, or none.
    """
    return portal_sealer().open(bytes.fromhex(value), f"{name}:{hashed(token).hex()}").decode()
