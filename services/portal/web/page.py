"""Page declarations and requests of the portal, on those of `shared.web.mount`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from services.portal.web.api import ApiClient, Refused
from services.portal.web.sessions import StoredSession
from shared.config.settings import Settings
from shared.security.encryption import CannotOpenError, portal_sealer
from shared.web import mount
from shared.web.forms import SentFile
from shared.web.mount import Result
from shared.web.results import Question, Redirect, View
from shared.web.tokens import hashed


@dataclass(frozen=True, slots=True)
class Renew(Redirect):
    """Redirect after the stored session was renewed, as its name or email address has changed."""


SEALED = ("password", "current_password", "given_secret")
"""Fields whose values a question's page holds sealed."""


@dataclass(frozen=True, slots=True)
class SignIn:
    """Begin a session and redirect.

    Attributes:
        answer: the API's answer to the sign-in.
        to: a path of this site.
    """

    answer: Mapping[str, str]
    to: str


@dataclass(frozen=True, slots=True)
class Visit(mount.Visit):
    """A validated request.

    Attributes:
        api: the API client of this browser, with its access token if it is signed in.
        held: the session; None if the browser is not signed in.
        config: the settings.
        files: the uploaded files by field, on a page that takes files.
        token: the session token, or that of the browser's form.
    """

    api: ApiClient
    held: StoredSession | None
    config: Settings
    files: Mapping[str, SentFile]
    token: str

    @property
    def business(self) -> StoredSession:
        """Return the session of the signed-in business.

        Raises:
            RuntimeError: the page was not declared to need a sign-in.
        """
        if self.held is None:
            raise RuntimeError("this page has no signed-in business: declare what it needs")
        return self.held

    def seal(self, name: str, value: str) -> str:
        """Seal a value for the query string of this browser."""
        return seal(value, name, self.token)

    def unsealed(self, name: str) -> str:
        """Open a sealed value of the query; empty if it is missing or of another browser."""
        try:
            return unseal(self.query.get(name, ""), name, self.token)
        except (CannotOpenError, ValueError):
            return ""

    def changed(self, name: str, now: str) -> str:
        """Return the value of a field; the current value if the user did not change it.

        Another session may have changed it since the page was loaded: a form that changes another
        field must not undo that.

        Args:
            name: the field; the field `was_` + name holds the value that the page showed.
            now: the current value.
        """
        value, was = self.field(name), f"was_{name}"
        return now if was in self.form and value == self.field(was) else value

    def listed(self, path: str, **query: str) -> tuple[dict[str, Any], str]:
        """Return a page of an API list, or an empty one with the fault of the query."""
        try:
            return self.api.get(path, **query), ""
        except Refused as refused:
            if refused.code != "invalid_query":
                raise
            return {"results": [], "next": None}, str(refused)


@dataclass(frozen=True, slots=True)
class Page(mount.Page):
    """One method on one path; further attributes as in `shared.web.mount.Page`.

    Attributes:
        takes_files: whether its form may have files.
        ends: whether it ends the browser's session. The session is deleted before the handler runs,
            so that it ends even if the API does not answer.
    """

    needs: Literal["nobody", "business"]
    handler: Callable[[Visit], Result | SignIn]
    asks: Callable[[Visit], Question | View] | None = None
    takes_files: bool = False
    ends: bool = False


def seal(value: str, name: str, token: str) -> str:
    """Seal the value of a field for the browser with this token."""
    return portal_sealer().seal(value.encode(), f"{name}:{hashed(token).hex()}").hex()


def unseal(value: str, name: str, token: str) -> str:
    """Open a value that `seal` returned.

    Raises:
        CannotOpenError, ValueError: it is of another field or browser, or was not sealed.
    """
    return portal_sealer().open(bytes.fromhex(value), f"{name}:{hashed(token).hex()}").decode()
