"""One shape for every error: `{"error": "<sentence>", "code": "<stable_code>", ...}`."""

from collections.abc import Mapping
from typing import Any

from shared.validation.reading import InvalidValueError


class ApiError(Exception):
    """An answer that tells the caller what is wrong.

    Raised in a handler it rolls the transaction back; returned, it is committed (so that a counted
    attempt stays counted).

    Args:
        status: the HTTP status.
        code: a stable word that programs may depend on.
        error: a sentence for people.
        headers: more response headers, such as `Retry-After`.
        more: further members of the body.
    """

    def __init__(
        self,
        status: int,
        code: str,
        error: str,
        *,
        headers: Mapping[str, str] | None = None,
        **more: Any,
    ) -> None:
        super().__init__(error)
        self.status = status
        self.code = code
        self.error = error
        self.headers = dict(headers or {})
        self.more = more

    def body(self) -> dict[str, Any]:
        """The JSON body."""
        return {"error": self.error, "code": self.code, **self.more}


def invalid(code: str, error: InvalidValueError) -> ApiError:
    """The 400 for a body or a query that does not fit: all that is wrong, in `faults` one by one.

    Args:
        code: `invalid_body` or `invalid_query`.
        error: what is wrong.
    """
    what = code.removeprefix("invalid_")
    return ApiError(400, code, f"The {what} is invalid. {error}", faults=error.faults)


BLOCKED = (403, "account_blocked", "This account is blocked. Write to us.")


def account_blocked() -> ApiError:
    """The 403 to everything that a blocked account asks for."""
    return ApiError(*BLOCKED)


def unavailable(code: str, error: str, retry_after: int = 5) -> ApiError:
    """A 503 that says when to come back (RFC 9110, 10.2.3).

    Args:
        code: the stable code.
        error: the sentence.
        retry_after: seconds.
    """
    return ApiError(503, code, error, headers={"Retry-After": str(retry_after)})


OVERLOADED = (503, "overloaded", "Too much at once. Try again shortly.")


def overloaded(error: str = OVERLOADED[2]) -> ApiError:
    """The 503 of a process that has more to do than it can, whatever stands behind it.

    Args:
        error: the sentence.
    """
    return unavailable(OVERLOADED[1], error, retry_after=1)


def too_many_requests(retry_after: int) -> ApiError:
    """A 429 (RFC 6585, 4) that says when to come back.

    Args:
        retry_after: seconds.
    """
    return ApiError(
        429,
        "rate_limited",
        f"Too many requests. Try again in {retry_after} seconds.",
        headers={"Retry-After": str(retry_after)},
    )
