"""A route as data: what it takes and answers, who may call it, and the plain function behind it.

The Falcon app and the OpenAPI document are both made from these, so they cannot disagree.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar
from uuid import UUID

import msgspec
from sqlalchemy.orm import Session

from shared.http.errors import ApiError
from shared.security.networks import network_of

B = TypeVar("B")
Q = TypeVar("Q")


@dataclass(frozen=True, slots=True)
class Call(Generic[B, Q]):
    """One request, checked.

    Attributes:
        account_id: who is signed in; None on a route that asks for no bearer token.
        body: the decoded body, or None where the route takes none.
        query: the decoded query string, or None where the route takes none.
        path: the variables of the path, as text.
        address: the client's address, behind the configured number of trusted proxies.
        traceparent: the W3C trace context of the request, where there is one.
        session_id: the session of the access token, where it has one.
        client: what the client calls itself (User-Agent), cut to 200 characters.
    """

    account_id: UUID | None
    body: B
    query: Q
    path: Mapping[str, str]
    address: str
    traceparent: str | None = None
    session_id: UUID | None = None
    client: str = ""

    @property
    def caller(self) -> UUID:
        """The signed-in account.

        Raises:
            RuntimeError: the route was not declared with `bearer=True`.
        """
        if self.account_id is None:
            raise RuntimeError("this route has no signed-in account: declare it with bearer=True")
        return self.account_id


@dataclass(frozen=True, slots=True)
class Answer:
    """What a handler answers: a status, and a body that is encoded as JSON (None: no body)."""

    status: int
    body: msgspec.Struct | None = None


Handler = Callable[[Session, Call[Any, Any]], Answer | ApiError]


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One method on one path, as the documentation needs to know it.

    Attributes:
        method: the HTTP method.
        path: below the API's prefix, with a trailing slash, such as `/orders/{order_id}/`.
        summary: one line for the documentation.
        answers: the body's Struct by status; None for an answer without a body.
        errors: the errors it may answer with: status, code, sentence.
        body: the Struct of the request body, or several it may be one of.
        body_optional: whether an empty body stands for `body()`.
        query: the Struct of the query string.
        headers: the request headers it needs, with what they hold.
        optional_headers: those it takes.
        bearer: whether a valid access token is needed.
        tag: the section of the documentation.
    """

    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"]
    path: str
    summary: str
    answers: Mapping[int, type[msgspec.Struct] | None]
    errors: tuple[tuple[int, str, str], ...] = ()
    body: type[msgspec.Struct] | tuple[type[msgspec.Struct], ...] | None = None
    body_optional: bool = False
    query: type[msgspec.Struct] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    optional_headers: Mapping[str, str] = field(default_factory=dict)
    bearer: bool = False
    tag: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Route(Operation):
    """An operation and the plain function behind it.

    Attributes:
        handler: runs in a transaction, in a thread; committed unless it raises.
        throttled: whether calls are counted against the client's network, apart from those of
            other routes: what one person does there must not keep the next one from another.
        link: on a route that a link of an email leads to: what a right one is counted by, so that
            who shares an address with thousands pays for none of them; None where it is wrong,
            which is counted against the client's network.
        max_body_bytes: of its body, beyond which it is answered 413.

    What one is signed in for and changes something is counted against the session: it costs rows,
    facts or an email, and who has a session that is over holds up nobody else's. What only shows
    something has the account's share of the lane.
    """

    handler: Handler
    throttled: bool = False
    link: Callable[[Mapping[str, str]], str | None] | None = None
    max_body_bytes: int = 65_536

    @property
    def is_bounded(self) -> bool:
        """Whether it may be called only so often."""
        return self.throttled or self.counts_session or self.link is not None

    @property
    def counts_session(self) -> bool:
        """Whether calls are counted against who is signed in."""
        return self.bearer and self.method != "GET"


@dataclass(frozen=True, slots=True)
class Throttles:
    """Count one attempt each; what they return, if anything, is the answer.

    Attributes:
        network: by the route and the client's network.
        session: by the route and the session, or the account where a token has none.
        link: by the route and the link in its path, or the network of who has none that is right.
    """

    network: Callable[[str], ApiError | None]
    session: Callable[[str], ApiError | None]
    link: Callable[[str], ApiError | None]

    def refusal(
        self, route: Route, path: Mapping[str, str], address: str, signed_in: UUID | None
    ) -> ApiError | None:
        """The answer to who calls too often; None: they may.

        Args:
            route: what is called.
            path: the variables of its path.
            address: the client's.
            signed_in: the session, or the account of a token without one.
        """
        if route.link is not None:
            return self.link(f"{route.path} {route.link(path) or network_of(address)}")
        if route.throttled:
            return self.network(f"{route.path} {network_of(address)}")
        if route.counts_session:
            return self.session(f"{route.method} {route.path} {signed_in}")
        return None
