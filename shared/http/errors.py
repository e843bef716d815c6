"""API errors: `{"error": "<sentence>", "code": "<stable_code>", ...}`."""

from collections.abc import Mapping
from typing import Any

from shared.validation.reading import InvalidValueError


class ApiError(Exception):
    """An error response.

    Raised by a handler, it rolls the transaction back; returned, the transaction is committed (so
    that a counted attempt stays counted).

    Args:
        status: the HTTP status.
        code: a stable code for programs.
        error: a sentence for people.
        headers: further response headers, such as `Retry-After`.
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
        """Return the body, to be encoded as JSON."""
        return {"error": self.error, "code": self.code, **self.more}


def invalid(code: str, error: InvalidValueError) -> ApiError:
    """Return a 400 for an invalid body or query, with a list of its `faults`.

    Args:
        code: `invalid_body` or `invalid_query`.
        error: with the faults.
    """
    what = code.removeprefix("invalid_")
    return ApiError(400, code, f"The {what} is invalid. {error}", faults=error.faults)


BLOCKED = (403, "account_blocked", "This account is blocked. Write to us.")


def account_blocked() -> ApiError:
    """Return the 403 for all requests of a blocked account."""
    return ApiError(*BLOCKED)


def unavailable(code: str, error: str, retry_after: int = 5) -> ApiError:
    """Return a 503 with `Retry-After` (RFC 9110, 10.2.3).

    Args:
        code: the stable code.
        error: the sentence.
        retry_after: seconds.
    """
    return ApiError(503, code, error, headers={"Retry-After": str(retry_after)})


DATABASE_UNAVAILABLE = (
    503,
    "database_unavailable",
    "The database is unreachable. Try again shortly.",
)
OVERLOADED = (503, "overloaded", "Too many requests at the same time. Try again shortly.")


def overloaded(error: str = OVERLOADED[2]) -> ApiError:
    """Return the 503 of a process that is overloaded itself.

    Args:
        error: the sentence.
    """
    return unavailable(OVERLOADED[1], error, retry_after=1)


def too_many_requests(retry_after: int) -> ApiError:
    """Return a 429 (RFC 6585, 4) with `Retry-After`.

    Args:
        retry_after: seconds.
    """
    return ApiError(
        429,
        "rate_limited",
        f"Too many requests. Try again in {retry_after} seconds.",
        headers={"Retry-After": str(retry_after)},
    )
