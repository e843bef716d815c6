"""`GET /error-codes/`: the error codes of the docs page, for programs."""

from collections.abc import Sequence

import msgspec
from sqlalchemy.orm import Session

from services.ingress.docs import openapi
from services.ingress.docs.error_codes import CODES
from shared.http.route import Answer, Call, Operation, Route


class ErrorCodeView(msgspec.Struct, frozen=True, kw_only=True):
    """A stable code with its cause and remedy (`cure`); `is_passing`: a retry may succeed.

    Text between backticks in the sentences is code.
    """

    code: str
    statuses: tuple[int, ...]
    cause: str
    cure: str
    is_passing: bool


class ErrorCodes(msgspec.Struct, frozen=True, kw_only=True):
    """Every error code of the API."""

    results: tuple[ErrorCodeView, ...]


def routes(operations: Sequence[Operation]) -> tuple[Route, ...]:
    """Return the route of the error codes.

    Args:
        operations: all others of the API, which declare the statuses of the codes.
    """
    statuses = openapi.statuses_of(operations)
    codes = ErrorCodes(
        results=tuple(
            ErrorCodeView(
                code=code,
                statuses=statuses[code],
                cause=found.cause,
                cure=found.cure,
                is_passing=found.is_passing,
            )
            for code, found in CODES.items()
        )
    )

    def index(_: Session, __: Call[None, None]) -> Answer:
        return Answer(200, codes)

    return (
        Route(
            method="GET",
            path="/error-codes/",
            handler=index,
            summary="What caused an error, and what cures it, by its code",
            answers={200: ErrorCodes},
            tag="Error codes",
        ),
    )
