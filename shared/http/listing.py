"""Lists that grow: what a caller gives in the query string (times, how many, where to begin), and
how much is shown of one that stands beside something else.
"""

import base64
import binascii
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, TypeVar

import msgspec
from sqlalchemy import Select
from sqlalchemy.orm import Session

from shared.http.errors import ApiError

Stamp = Annotated[datetime, msgspec.Meta(tz=True)]
Limit = Annotated[int, msgspec.Meta(ge=1, le=200)]
Cursor = Annotated[str, msgspec.Meta(max_length=100)]
MOST_SHOWN = 500
"""Of what happened to one thing, where it is shown with it."""
INVALID_CURSOR = (400, "invalid_query", "Invalid cursor.")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)

T = TypeVar("T")


def latest(session: Session, query: Select[T], *place: Any) -> tuple[list[T], bool]:
    """The latest `MOST_SHOWN` of what a query finds, oldest first, and whether they are all of it.

    Args:
        session: which asks.
        query: what is looked for, in no order.
        *place: the columns by which it has one.
    """
    newest_first = query.order_by(*(column.desc() for column in place))
    found = session.scalars(newest_first.limit(MOST_SHOWN + 1)).all()
    return list(found[:MOST_SHOWN])[::-1], len(found) <= MOST_SHOWN


def in_utc(stamp: datetime) -> datetime:
    """The same time in UTC: PostgreSQL takes no offset beyond 15:59.

    Raises:
        ApiError: 400, in UTC it would lie before the year 1 or after 9999.
    """
    try:
        return stamp.astimezone(UTC)
    except OverflowError:
        raise ApiError(400, "invalid_query", "A time is out of range.") from None


def to_cursor(at: datetime, key: bytes) -> str:
    """Where a page ends that is ordered by time, and by a key of what is of one time."""
    raw = ((at - _EPOCH) // _MICROSECOND).to_bytes(8, signed=True) + key
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def from_cursor(cursor: str, key_bytes: int) -> tuple[datetime, bytes]:
    """The time and the key, of so many bytes, that `to_cursor` was given.

    Raises:
        ApiError: 400, it is no such cursor.
    """
    try:
        raw = base64.urlsafe_b64decode(cursor + "==")
        at = _EPOCH + int.from_bytes(raw[:8], signed=True) * _MICROSECOND
    except (binascii.Error, ValueError, OverflowError):
        raise ApiError(*INVALID_CURSOR) from None
    if len(raw) != 8 + key_bytes:
        raise ApiError(*INVALID_CURSOR)
    return at, raw[8:]
