"""Pagination of lists: query parameters, cursors, and bounded searches."""

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, TypeVar

import msgspec
from sqlalchemy import ColumnElement, Select, select
from sqlalchemy.orm import Session, aliased

from shared.http.errors import ApiError
from shared.validation import base64url

Stamp = Annotated[datetime, msgspec.Meta(tz=True)]
Limit = Annotated[int, msgspec.Meta(ge=1, le=200)]
Cursor = Annotated[str, msgspec.Meta(max_length=100)]
MOST_SHOWN = 500
"""Most rows of a history that are shown with its subject."""
MOST_SCANNED = 100_000
"""Rows scanned per page for conditions without an index, which would cost each insert; a fraction
of a second of work."""
INVALID_CURSOR = (400, "invalid_query", "Invalid cursor.")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)

T = TypeVar("T")
Place = tuple[Any, ...]
"""The position of a row in a list: its values of the ordering columns."""


def latest(session: Session, query: Select[T], *place: Any) -> tuple[list[T], bool]:
    """Return the latest `MOST_SHOWN` rows of a query, oldest first, and whether these are all.

    Args:
        session: runs the query.
        query: unordered.
        *place: the columns to order by.
    """
    newest_first = query.order_by(*(column.desc() for column in place))
    found = session.scalars(newest_first.limit(MOST_SHOWN + 1)).all()
    return list(found[:MOST_SHOWN])[::-1], len(found) <= MOST_SHOWN


def search_page(
    session: Session,
    entity: type[T],
    lists: Sequence[Select[T]],
    place: Sequence[str],
    fits: Callable[[type[T]], Iterable[ColumnElement[bool]]] | None,
    limit: int,
) -> tuple[list[T], Place | None]:
    """Return a page of matching rows, and the position of the next page; None if it is the last.

    At most `MOST_SCANNED` rows of each list are scanned, so a page may have fewer than `limit` rows
    although there is a next one.

    Args:
        session: runs the queries.
        entity: of the lists.
        lists: queries ordered by an index, newest first, beginning after the previous page.
        place: the attributes of that order.
        fits: returns the conditions without an index; None if there are none.
        limit: most rows.
    """

    def at(row: T) -> Place:
        return tuple(getattr(row, name) for name in place)

    found: list[T] = []
    ends: list[Place] = []
    for listed in lists:
        query = listed
        if fits is not None:
            scanned = aliased(entity, listed.limit(MOST_SCANNED).subquery())
            newest_first = [getattr(scanned, name).desc() for name in place]
            query = select(scanned).where(*fits(scanned)).order_by(*newest_first)
        matching = session.scalars(query.limit(limit + 1)).all()
        found += matching
        if len(matching) > limit:  # the next page continues here, within the scanned rows
            ends.append(at(matching[-1]))
        elif fits is not None:
            end = listed.with_only_columns(*(getattr(entity, name) for name in place))
            last = session.execute(end.offset(MOST_SCANNED - 1).limit(1)).one_or_none()
            ends += [tuple(last)] if last else []
    until = max(ends, default=None)
    found = sorted((row for row in found if until is None or at(row) >= until), key=at)[::-1]
    page = found[:limit]
    return page, at(page[-1]) if len(found) > limit else until


def in_utc(stamp: datetime) -> datetime:
    """Convert a time to UTC, because PostgreSQL accepts no offset beyond 15:59.

    Raises:
        ApiError: 400, if it is before the year 1 or after 9999 in UTC.
    """
    try:
        return stamp.astimezone(UTC)
    except OverflowError:
        raise ApiError(400, "invalid_query", "A time is out of range.") from None


def to_cursor(at: datetime, key: bytes) -> str:
    """Encode the position at which a page ends, in a list ordered by time and then by a key."""
    raw = ((at - _EPOCH) // _MICROSECOND).to_bytes(8, signed=True) + key
    return base64url.encode(raw)


def from_cursor(cursor: str, key_bytes: int) -> tuple[datetime, bytes]:
    """Decode a cursor of `to_cursor` into the time and the key of `key_bytes` bytes.

    Raises:
        ApiError: 400, if it is invalid.
    """
    try:
        raw = base64url.decode(cursor)
        at = _EPOCH + int.from_bytes(raw[:8], signed=True) * _MICROSECOND
    except (ValueError, OverflowError):
        raise ApiError(*INVALID_CURSOR) from None
    if len(raw) != 8 + key_bytes:
        raise ApiError(*INVALID_CURSOR)
    return at, raw[8:]
