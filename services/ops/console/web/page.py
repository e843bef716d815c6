"""A page as data: who may see it, and the plain function behind it."""

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal

from kombu import Connection
from sqlalchemy.orm import Session

from services.ops.audit.actions import Actor
from services.ops.console.web.jobs import Jobs
from services.ops.console.web.session_cache import Visitors
from services.ops.monitoring.poller import Lookout
from services.ops.users.rights import Right
from services.ops.users.sessions import Where
from services.ops.users.users import User
from shared.config.settings import Settings
from shared.db.deadline import ANSWER_SECONDS
from shared.security.networks import network_of
from shared.web import results
from shared.web.results import Question, Redirect

Needs = Literal["nobody", "watch"] | Right
"""Whom a page asks for: anybody at all, somebody who is signed in, somebody with a right."""


@dataclass(frozen=True, slots=True)
class System:
    """What pages work on, the same for all of them.

    Attributes:
        config: the settings.
        broker: a new connection to the broker, for as long as its context lasts; the broker's
            trouble becomes a `PageError`. It takes the page's session, if there is one, and lets it
            go first: nobody has a transaction open while the broker is waited for.
        lookout: the figures, as they were a moment ago.
        jobs: long work.
        visitors: who is signed in.
    """

    config: Settings
    broker: Callable[..., AbstractContextManager[Connection]]
    lookout: Lookout
    jobs: Jobs
    visitors: Visitors


@dataclass(frozen=True, slots=True)
class Visit:
    """One request, checked.

    Attributes:
        page: what is asked for.
        system: see there.
        visitor: who is signed in; None on a page that needs nobody.
        token: of the browser's session, or of its form where nobody is signed in.
        path: the variables of the path, as text.
        query: the query string; of a name that is given twice, the first.
        form: the fields of a form, with every value of each.
        asked_for: the path as it was asked for.
        address: the client's address, behind the configured number of trusted proxies.
        client: the browser, as it calls itself.
        mark: by what the browser is known to a user; empty where it is to none.
    """

    page: "Page"
    system: System
    visitor: User | None
    token: str
    path: Mapping[str, str]
    query: Mapping[str, str]
    form: Mapping[str, list[str]]
    asked_for: str
    address: str
    client: str
    mark: str = ""

    @property
    def where(self) -> Where:
        """From where it comes, for the session."""
        return Where(network_of(self.address), self.client)

    @property
    def user(self) -> User:
        """Who is signed in.

        Raises:
            RuntimeError: the page needs nobody.
        """
        if self.visitor is None:
            raise RuntimeError("this page has no signed-in user: declare what it needs")
        return self.visitor

    @property
    def actor(self) -> Actor:
        """Who is signed in, and where: for the audit log.

        Raises:
            RuntimeError: the page needs nobody.
        """
        return Actor(self.user.name, self.address)

    def field(self, name: str) -> str:
        """The first value of a field, without blanks around it; empty when it was not filled in."""
        return self.form.get(name, [""])[0].strip()

    @property
    def password(self) -> str:
        """The field `password`, as it was typed: blanks may be part of it.

        Raises:
            RuntimeError: the page was not declared with `takes_password=True`.
        """
        if not self.page.takes_password:
            raise RuntimeError("this page has no password: declare it with takes_password=True")
        return self.form.get("password", [""])[0]


@dataclass(frozen=True, slots=True)
class View(results.View):
    """A page to show; `of`: the ids of those whose data it shows, for the audit log; None: those in
    its path.
    """

    of: Sequence[str] | None = None


@dataclass(frozen=True, slots=True)
class File(results.File):
    """A file to save; `of` as that of a `View`."""

    of: Sequence[str] | None = None


Result = View | Redirect | File


@dataclass(frozen=True, slots=True)
class Page:
    """One method on one path.

    Attributes:
        method: GET shows, POST changes something.
        path: as Falcon writes it, such as `/orders/{order_id}`.
        needs: see there.
        handler: runs in a transaction, in a thread; committed unless it raises.
        asks: for what changes something: what is asked in a page of its own before the handler
            runs; or a page that says why it cannot be. That page has no field, and Enter in a form
            sends it to a question at most.
        without_database: what is shown instead to those who were signed in when the database went
            away.
        plain: the rights with any of which personal data on it is shown in the clear, and the audit
            log told of each view; for everybody else it is masked.
        asks_by_itself: whether a page that is open asks for it, and nobody: then it does not count
            as use of the session.
        also: which rights it takes beside `needs`, where that depends on what it is about.
        takes_password: whether its form may have a password, for which others wait in a lane of
            their own.
        seconds: for the database, all that the page asks of it; then it counts as away.
        before_second_factor: whether it is there for somebody who must set up a second factor
            before anything else.
    """

    method: Literal["GET", "POST"]
    path: str
    needs: Needs
    handler: Callable[[Session, Visit], Result]
    asks: Callable[[Session, Visit], Question | View] | None = None
    without_database: Callable[[System], View] | None = None
    plain: Collection[Right] = ()
    asks_by_itself: bool = False
    also: Callable[[Session, Visit], Collection[Right]] | None = None
    takes_password: bool = False
    before_second_factor: bool = False
    seconds: float = ANSWER_SECONDS
