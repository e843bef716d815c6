"""Routes as data: request and response types, authentication, limits, and a plain handler.

Both the Falcon app and the OpenAPI document are generated from them.
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
    """A validated request.

    Attributes:
        account_id: of the signed-in account; None on a route without a bearer token.
        body: the decoded body; None if the route has none.
        query: the decoded query string; None if the route has none.
        path: the path variables, as text.
        address: of the client; see `client_address`.
        traceparent: the W3C trace context of the request, if any.
        session_id: of the access token, if any.
        client: User-Agent, cut to 200 characters.
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
    """A handler's response: a status, and a body that is encoded as JSON (None: no body)."""

    status: int
    body: msgspec.Struct | None = None


Handler = Callable[[Session, Call[Any, Any]], Answer | ApiError]


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One method of one path, as documented.

    Attributes:
        method: the HTTP method.
        path: below the API's prefix, with a trailing slash, such as `/orders/{order_id}/`.
        summary: one line for the documentation.
        answers: the response body's Struct by status; None for no body.
        errors: possible errors: status, code, sentence.
        body: the Struct of the request body, or alternatives.
        body_optional: whether an empty body means `body()`.
        query: the Struct of the query string.
        headers: required request headers, with descriptions.
        optional_headers: optional request headers, with descriptions.
        bearer: whether it requires a valid access token.
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
    """An operation with its handler.

    Attributes:
        handler: runs in a thread in a transaction, which is committed unless it raises.
        throttled: whether calls count against the client's network, separately for each route, so
            that the use of one route by a person in the network does not block another route.
        link: for a route that an email links to: returns the key by which calls with a valid link
            count, so that clients that share an address do not affect each other. If it returns
            None, the link is invalid and the call counts against the client's network.
        max_body_bytes: of its body, beyond which the response is 413.

    Changes by signed-in accounts count against the session, because they cost rows, events or an
    email; a session cannot use up the attempts of another one. Those of all its sessions together
    count against the account, with a higher limit. Reads are limited only by the account's share of
    the lane.
    """

    handler: Handler
    throttled: bool = False
    link: Callable[[Mapping[str, str]], str | None] | None = None
    max_body_bytes: int = 65_536

    @property
    def is_bounded(self) -> bool:
        """Whether its calls are limited."""
        return self.throttled or self.counts_session or self.link is not None

    @property
    def counts_session(self) -> bool:
        """Whether calls count against the session."""
        return self.bearer and self.method != "GET"

    @property
    def counts_account(self) -> bool:
        """Whether calls count against the account too.

        Not below `/users/`: with a new password and the end of its sessions an owner takes an
        account back, so nobody else who is signed in to it may use up these.
        """
        return self.counts_session and not self.path.startswith("/users/")


@dataclass(frozen=True, slots=True)
class Throttles:
    """Functions that count a call under a key, and return an error if there are too many.

    Attributes:
        network: key of route and client's network.
        session: key of route and session, or account for a token without a session.
        account: key of route and account.
        link: key of route and link, or client's network for an invalid link.
    """

    network: Callable[[str], ApiError | None]
    session: Callable[[str], ApiError | None]
    account: Callable[[str], ApiError | None]
    link: Callable[[str], ApiError | None]

    def refusal(
        self, route: Route, path: Mapping[str, str], address: str, signed_in: UUID | None
    ) -> ApiError | None:
        """Count a call and return an error if there are too many.

        Args:
            route: the called route.
            path: its path variables.
            address: of the client.
            signed_in: the session, or the account of a token without one.
        """
        if route.link is not None:
            return self.link(f"{route.path} {route.link(path) or network_of(address)}")
        if route.throttled:
            return self.network(f"{route.path} {network_of(address)}")
        if route.counts_session:
            return self.session(f"{route.method} {route.path} {signed_in}")
        return None

    def refusal_of_account(self, route: Route, account_id: UUID) -> ApiError | None:
        """Count a call by a session that has not ended; return an error if there are too many.

        Tokens of ended sessions are not counted here: whoever has them could use up the account's
        attempts.

        Args:
            route: the called route.
            account_id: of the session.
        """
        if not route.counts_account:
            return None
        return self.account(f"{route.method} {route.path} {account_id}")
