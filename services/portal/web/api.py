"""The public API, asked as any program of a business asks it."""

from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any

import httpx
import structlog

from shared.config.settings import Settings
from shared.web.results import PageError

SECONDS = 30.0
RENEWAL_SECONDS = 5.0
"""For each step of a renewal of tokens: to connect, to ask, to hear the first of the answer and the
rest."""
MOST_PROXIES = 10
"""`TRUSTED_PROXIES` is at most so many."""
AWAY = "Order Fellow does not answer at the moment. Try again in a minute."
LEFT = "Order Fellow did not answer. Whether it was done is not known: look before you do it again."
"""Said where something was asked for that changes something."""

log = structlog.get_logger()


class Refused(Exception):  # noqa: N818 - a refusal
    """The API has refused something.

    Attributes:
        status: the HTTP status.
        code: its stable word.
        sentence: for people.
        faults: what is wrong, one by one; empty where there is one thing.
        retry_after: seconds; 0 where it says none.
    """

    def __init__(self, status: int, body: Mapping[str, Any], retry_after: int = 0) -> None:
        self.status = status
        self.code = str(body.get("code", ""))
        self.sentence = str(body.get("error", HTTPStatus(status).phrase))
        self.faults = [str(fault) for fault in body.get("faults", ())]
        self.retry_after = retry_after
        # What is wrong one by one says more than that something is.
        super().__init__(" ".join(self.faults) or self.sentence)


class SignedOut(Exception):  # noqa: N818 - a state
    """The browser's session has ended."""


class Api:
    """The API, for everybody.

    Args:
        config: `portal_api_url` counts.
    """

    def __init__(self, config: Settings) -> None:
        self._http = httpx.Client(
            # What is in the environment of a process is no proxy on this way.
            trust_env=False,
            base_url=f"{config.portal_api_url.rstrip('/')}/api/v1",
            timeout=SECONDS,
        )

    def for_browser(
        self,
        address: str,
        client: str,
        access: str = "",
        renew: Callable[[str], str] | None = None,
    ) -> "Asking":
        """The API as one browser asks it.

        Args:
            address: the browser's.
            client: what it calls itself.
            access: the access token; empty where nobody is signed in.
            renew: gives another access token in the place of one that the API refuses; raises
                `SignedOut` where the session has ended.
        """
        # However many proxies the API counts, it comes to the address of whose request this is.
        forwarded = ", ".join([_header(address)] * MOST_PROXIES)
        headers = {"X-Forwarded-For": forwarded, "User-Agent": _header(client)}
        return Asking(self._http, headers, access, renew)

    def close(self) -> None:
        """Release what it holds."""
        self._http.close()


class Asking:
    """The API, for one request of a browser; see `Api.for_browser`.

    Attributes:
        access: the access token that counts now.
    """

    def __init__(
        self,
        http: httpx.Client,
        headers: Mapping[str, str],
        access: str,
        renew: Callable[[str], str] | None,
    ) -> None:
        self._http = http
        self._headers = headers
        self.access = access
        self._renew = renew

    def get(self, path: str, **query: str) -> dict[str, Any]:
        """What is at a path.

        Args:
            path: below `/api/v1`.
            query: parameters; those that are empty are left out.

        Raises:
            Refused: the API does not say it.
            SignedOut: the session has ended.
            PageError: 503, when it does not answer.
        """
        given = {name: value for name, value in query.items() if value}
        return self._ask("GET", path, params=given)

    def find(self, path: str) -> dict[str, Any] | None:
        """What is at a path; None where nothing is of this business. Raises as `get`."""
        try:
            return self.get(path)
        except Refused as refused:
            if refused.status != HTTPStatus.NOT_FOUND:
                raise
            return None

    def post(self, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Have something done; returns and raises as `get`."""
        return self._ask("POST", path, json=body or {})

    def put(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Put something in place of what is there; returns and raises as `get`."""
        return self._ask("PUT", path, json=body)

    def delete(self, path: str) -> None:
        """End something; raises as `get`."""
        self._ask("DELETE", path)

    def webhook(self, account_id: str, signed: Mapping[str, str], body: bytes) -> dict[str, Any]:
        """Send what a program of a business would; returns and raises as `get`.

        Args:
            account_id: whose.
            signed: the headers of its signature.
            body: the raw body.
        """
        path = f"/webhooks/{account_id}/orders/"
        headers = {**signed, "Content-Type": "application/json"}
        return self._asked("POST", path, content=body, headers=headers)

    def renewed(self, refresh: str, attempt_id: str) -> dict[str, Any]:
        """The tokens that come after a refresh token; the same attempt may be made again.

        Args:
            refresh: the token.
            attempt_id: of the attempt.

        Raises:
            Refused: the API does not renew them.
            PageError: 503, when it does not answer; nothing else was asked for.
        """
        asked = {"refresh": refresh, "attempt_id": attempt_id}
        try:
            return self._asked("POST", "/users/auth/refresh/", json=asked, timeout=RENEWAL_SECONDS)
        except PageError:
            raise PageError(503, AWAY) from None

    def _ask(self, method: str, path: str, **more: Any) -> dict[str, Any]:
        try:
            return self._asked(method, path, **more)
        except Refused as refused:
            if refused.code != "not_signed_in" or self._renew is None or not self.access:
                raise
        # The token ran out, by the API's clock or while a page was made, or the session has ended.
        # Whichever: nothing was done.
        self.access = self._renew(self.access)
        try:
            return self._asked(method, path, **more)
        except Refused as refused:
            if refused.code != "not_signed_in":
                raise
            log.warning("api_refuses_a_new_token", route=_route(path))
            raise PageError(503, AWAY) from None

    def _asked(
        self, method: str, path: str, *, headers: Mapping[str, str] | None = None, **more: Any
    ) -> dict[str, Any]:
        if headers is None:
            headers = {"Authorization": f"Bearer {self.access}"} if self.access else {}
        try:
            answer = self._http.request(method, path, headers={**self._headers, **headers}, **more)
        except httpx.HTTPError as error:
            log.warning("api_away", route=_route(path), error=type(error).__name__)
            # Whom nothing was said to has done nothing.
            is_asked = not isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)
            raise PageError(503, LEFT if method != "GET" and is_asked else AWAY) from None
        if answer.status_code == HTTPStatus.NO_CONTENT:
            return {}
        try:
            body = answer.json()
        except ValueError:
            log.warning("api_answers_no_json", route=_route(path), status=answer.status_code)
            raise PageError(503, AWAY if method == "GET" else LEFT) from None
        if answer.is_success:
            found: dict[str, Any] = body
            return found
        if method != "GET" and body.get("code") == "database_unavailable":
            # It may have been committed, and the answer of that lost.
            raise PageError(503, LEFT)
        wait = answer.headers.get("Retry-After", "")
        raise Refused(answer.status_code, body, int(wait) if wait.isdigit() else 0)


def _header(text: str) -> str:
    """What of a text a header may hold: ASCII, with no blank at either end (RFC 9110, 5.5)."""
    return "".join(c for c in text if " " <= c <= "~").strip()


def _route(path: str) -> str:
    """What a path begins with; behind it may be a token, or an address in the query."""
    return path.split("?")[0].split("/")[1]
