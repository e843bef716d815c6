"""A page as data: its method and path, the needed rights, and its handler."""

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
from services.ops.monitoring.poller import SnapshotPoller
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
"""Who may request a page: anyone, any signed-in user, or users with a right."""


@dataclass(frozen=True, slots=True)
class System:
    """The dependencies of all pages.

    Attributes:
        config: the settings.
        broker: opens a connection to the broker as a context; its errors become a `PageError`. It
            ends the transaction of the given page session first, so that none is open during
            waits for the broker.
        poller: the snapshots.
        digests: of long dead queues.
        jobs: background jobs.
        visitors: the signed-in users.
    """

    config: Settings
    broker: Callable[..., AbstractContextManager[Connection]]
    poller: SnapshotPoller
    digests: Digests
    jobs: Jobs
    visitors: Visitors


@dataclass(frozen=True, slots=True)
class Visit(mount.Visit):
    """One request, checked.

    Attributes:
        system: the dependencies.
        visitor: the signed-in user; None on a page that anyone may request.
        token: of the browser's session, or of its form before the sign-in.
        address: the client's address, behind the configured number of trusted proxies.
        client: the User-Agent.
    """

    system: System
    visitor: User | None
    token: str
    address: str
    client: str

    @property
    def where(self) -> Where:
        """The network and browser of the request."""
        return Where(network_of(self.address), self.client)

    @property
    def user(self) -> User:
        """The signed-in user.

        Raises:
            RuntimeError: anyone may request the page.
        """
        if self.visitor is None:
            raise RuntimeError("this page has no signed-in user: declare what it needs")
        return self.visitor

    @property
    def actor(self) -> Actor:
        """The signed-in user and their address, for the audit log.

        Raises:
            RuntimeError: anyone may request the page.
        """
        return Actor(self.user.name, self.address)


@dataclass(frozen=True, slots=True)
class Page(mount.Page):
    """One method on one path.

    Attributes:
        handler: runs in a transaction, in a thread; committed unless it raises.
        asks_by_itself: whether scripts request it, which is no use of the session.
        without_database: the fallback for users who were signed in when the database became
            unreachable.
        plain: rights; with any of them personal data is unmasked, and each view is recorded in the
            audit log.
        also: returns rights needed beside `needs`, where these depend on the page's subject.
        seconds: the time limit of all its queries together.
        before_second_factor: whether users may request it before they set up a required second
            factor.
    """

    needs: Needs
    handler: Callable[[Session, Visit], Result]
    asks: Callable[[Session, Visit], Question | View] | None = None
    without_database: Callable[[System], View] | None = None
    plain: Collection[Right] = ()
    also: Callable[[Session, Visit], Collection[Right]] | None = None
    before_second_factor: bool = False
    seconds: float = ANSWER_SECONDS
