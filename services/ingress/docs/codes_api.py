"""The error codes for programs: what the docs page says of them."""

import msgspec
from sqlalchemy.orm import Session

from services.ingress.docs.error_codes import CODES
from shared.http.route import Answer, Call, Route


class ErrorCodeView(msgspec.Struct, frozen=True, kw_only=True):
    """A stable code: what caused it and what cures it; `is_passing`: it may be sent again as it is.

    What stands between backticks in the sentences is code.
    """

    code: str
    statuses: tuple[int, ...]
    cause: str
    cure: str
    is_passing: bool


class ErrorCodes(msgspec.Struct, frozen=True, kw_only=True):
    """Every code that the API answers with."""

    results: tuple[ErrorCodeView, ...]


_ALL = ErrorCodes(
    results=tuple(
        ErrorCodeView(
            code=code,
            statuses=tuple(found.statuses),
            cause=found.cause,
            cure=found.cure,
            is_passing=found.is_passing,
        )
        for code, found in CODES.items()
    )
)


def index(_: Session, __: Call[None, None]) -> Answer:
    """All of them."""
    return Answer(200, _ALL)


ROUTES = (
    Route(
        method="GET",
        path="/error-codes/",
        handler=index,
        summary="What caused an error, and what cures it, by its code",
        answers={200: ErrorCodes},
        tag="Error codes",
    ),
)
