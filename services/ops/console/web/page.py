"""A page as data: who may see it, and the plain function behind it."""

from collections.abc import Callable, Collection
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal

from kombu import Connection
from sqlalchemy.orm import Session

from services.ops.audit.actions import Actor
from services.ops.console.web.jobs import Jobs
from services.ops.console.web.session_cache import Visitors
from services.ops.dead_letters.digest import Digests
from services.ops.monitoring.poller import Lookout
from services.ops.users.rights import Right
from services.ops.users.sessions import Where
from services.ops.users.users import User
from shared.config.settings import Settings
from shared.db.deadline import ANSWER_SECONDS
from shared.security.networks import network_of
from shared.web import mount
from shared.web.mount import Result
from shared.web.results import Question, View

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
        digests: what was seen of long dead queues.
        jobs: long work.
        visitors: who is signed in.
    """

    config: Settings
    broker: Callable[..., AbstractContextManager[Connection]]
    lookout: Lookout
    digests: Digests
    jobs: Jobs
    visitors: Visitors


@dataclass(frozen=True, slots=True)
class Visit(mount.Visit):
    """One request, checked.

    Attributes:
        system: what pages work on.
        visitor: who is signed in; None on a page that needs nobody.
        token: of the browser's session, or of its form where nobody is signed in.
        address: the client's address, behind the configured number of trusted proxies.
        client: the browser, as it calls itself.
    """

    system: System
    visitor: User | None
    token: str
    address: str
    client: str

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


@dataclass(frozen=True, slots=True)
class Page(mount.Page):
    """One method on one path.

    Attributes:
        handler: runs in a transaction, in a thread; committed unless it raises.
        asks_by_itself: then it does not count as use of the session.
        without_database: what is shown instead to those who were signed in when the database went
            away.
        plain: the rights with any of which personal data on it is shown in the clear, and the audit
            log told of each view; for everybody else it is masked.
        also: which rights it takes beside `needs`, where that depends on what it is about.
        seconds: for the database, all that the page asks of it; then it counts as away.
        before_second_factor: whether it is there for somebody who must set up a second factor
            before anything else.
    """

    needs: Needs
    handler: Callable[[Session, Visit], Result]
    asks: Callable[[Session, Visit], Question | View] | None = None
    without_database: Callable[[System], View] | None = None
    plain: Collection[Right] = ()
    also: Callable[[Session, Visit], Collection[Right]] | None = None
    before_second_factor: bool = False
    seconds: float = ANSWER_SECONDS
