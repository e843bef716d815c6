"""Client of the public API: the portal uses it like any other program of a business."""

from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any

import httpx
import structlog

from shared.config.settings import Settings
from shared.web.results import RETRY_SECONDS, PageError

SECONDS = 30.0
RENEWAL_SECONDS = 5.0
"""Timeout of each step of a token renewal: connect, write, and each read."""
MAX_PROXIES = 10
"""The upper bound of `TRUSTED_PROXIES`."""
UNAVAILABLE = "Order Fellow does not answer at the moment. Try again in a minute."
OUTCOME_UNKNOWN = (
    "Order Fellow did not answer. Whether it was done is not known: look before you do it again."
)
"""For requests that change something."""

log = structlog.get_logger()


def unavailable(*, is_known: bool = True) -> PageError:
    """Return the 503 of an API that does not answer.

    Args:
        is_known: whether it is known that nothing was changed, so that the request can be repeated.
    """
    if is_known:
        return PageError(503, UNAVAILABLE, RETRY_SECONDS)
    return PageError(503, OUTCOME_UNKNOWN)


class Refused(Exception):  # noqa: N818 - a refusal
    """The API answered with an error.

    Attributes:
        status: the HTTP status.
        code: the error code.
        sentence: the message for people.
        faults: each fault, if there are several.
        retry_after: the `Retry-After` header in seconds; 0 if there is none.
    """

    def __init__(self, status: int, body: Mapping[str, Any], retry_after: int = 0) -> None:
        self.status = status
        self.code = str(body.get("code", ""))
        self.sentence = str(body.get("error", HTTPStatus(status).phrase))
        self.faults = [str(fault) for fault in body.get("faults", ())]
        self.retry_after = retry_after
        # The single faults are more specific than the sentence.
        super().__init__(" ".join(self.faults) or self.sentence)


class SignedOut(Exception):  # noqa: N818 - a state
    """The browser's session has ended."""


class Api:
    """The connection pool to the API, shared by all browsers.

    Args:
        config: the settings, of which `portal_api_url` is used.
    """

    def __init__(self, config: Settings) -> None:
        self._http = httpx.Client(
            # Ignore HTTP_PROXY and the like: the API is in the same network.
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
    ) -> "ApiClient":
        """Return a client that calls the API on behalf of a browser.

        Args:
            address: the browser's IP address.
            client: its `User-Agent`.
            access: the access token; empty if it is not signed in.
            renew: returns a new access token in place of a refused one; raises `SignedOut` if the
                session has ended.
        """
        # However many proxies the API trusts, it arrives at the browser's address.
        forwarded = ", ".join([_header(address)] * MAX_PROXIES)
        headers = {"X-Forwarded-For": forwarded, "User-Agent": _header(client)}
        return ApiClient(self._http, headers, access, renew)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()


class ApiClient:
    """Calls the API for one request of a browser; made by `Api.for_browser`.

    Attributes:
        access: the current access token.
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
        """Return the JSON body at a path.

        Args:
            path: the path below `/api/v1`.
            query: query parameters; empty ones are left out.

        Raises:
            Refused: the API answered with an error.
            SignedOut: the session has ended.
            PageError: 503 if the API does not answer.
        """
        params = {name: value for name, value in query.items() if value}
        return self._request("GET", path, params=params)

    def find(self, path: str) -> dict[str, Any] | None:
        """Return the body at a path; None on 404. Raises as `get`."""
        try:
            return self.get(path)
        except Refused as refused:
            if refused.status != HTTPStatus.NOT_FOUND:
                raise
            return None

    def post(self, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """POST a body; returns and raises as `get`."""
        return self._request("POST", path, json=body or {})

    def put(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """PUT a body; returns and raises as `get`."""
        return self._request("PUT", path, json=body)

    def delete(self, path: str) -> dict[str, Any]:
        """DELETE a path; returns and raises as `get`, with an empty dict for 204."""
        return self._request("DELETE", path)

    def webhook(self, account_id: str, signed: Mapping[str, str], body: bytes) -> dict[str, Any]:
        """Send a webhook request like a program of the business; returns and raises as `get`.

        Args:
            account_id: the business.
            signed: the signature headers.
            body: the raw body.
        """
        path = f"/webhooks/{account_id}/orders/"
        headers = {**signed, "Content-Type": "application/json"}
        return self._send("POST", path, content=body, headers=headers)

    def renewed(self, refresh: str, attempt_id: str) -> dict[str, Any]:
        """Exchange a refresh token for the next tokens; an attempt may be repeated.

        Args:
            refresh: the refresh token.
            attempt_id: the id of the attempt.

        Raises:
            Refused: the API does not renew the session.
            PageError: 503 if it does not answer.
        """
        body = {"refresh": refresh, "attempt_id": attempt_id}
        try:
            return self._send("POST", "/users/auth/refresh/", json=body, timeout=RENEWAL_SECONDS)
        except PageError:
            raise unavailable() from None

    def _request(self, method: str, path: str, **more: Any) -> dict[str, Any]:
        try:
            return self._send(method, path, **more)
        except Refused as refused:
            if refused.code != "not_signed_in" or self._renew is None or not self.access:
                raise
        # The access token has expired or the session has ended; in both cases nothing was done.
        self.access = self._renew(self.access)
        try:
            return self._send(method, path, **more)
        except Refused as refused:
            if refused.code != "not_signed_in":
                raise
            log.warning("api_refuses_a_new_token", route=_route(path))
            raise unavailable() from None

    def _send(
        self, method: str, path: str, *, headers: Mapping[str, str] | None = None, **more: Any
    ) -> dict[str, Any]:
        if headers is None:
            headers = {"Authorization": f"Bearer {self.access}"} if self.access else {}
        try:
            answer = self._http.request(method, path, headers={**self._headers, **headers}, **more)
        except httpx.HTTPError as error:
            log.warning("api_away", route=_route(path), error=type(error).__name__)
            # Without a connection no request was sent, so nothing was changed.
            is_sent = not isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)
            raise unavailable(is_known=method == "GET" or not is_sent) from None
        if answer.status_code == HTTPStatus.NO_CONTENT:
            return {}
        try:
            body = answer.json()
        except ValueError:
            log.warning("api_answers_no_json", route=_route(path), status=answer.status_code)
            raise unavailable(is_known=method == "GET") from None
        if answer.is_success:
            found: dict[str, Any] = body
            return found
        if method != "GET" and body.get("code") == "database_unavailable":
            # The change may have been committed and only the answer lost.
            raise unavailable(is_known=False)
        wait = answer.headers.get("Retry-After", "")
        raise Refused(answer.status_code, body, int(wait) if wait.isdigit() else 0)


def _header(text: str) -> str:
    """Return the characters that a header may hold: ASCII without outer blanks (RFC 9110, 5.5)."""
    return "".join(c for c in text if " " <= c <= "~").strip()


def _route(path: str) -> str:
    """Return the first segment of a path, for logs: the rest may hold a token or an address."""
    return path.split("?")[0].split("/")[1]
