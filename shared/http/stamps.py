"""Times that a caller gives in a query string."""

from datetime import UTC, datetime

from shared.http.errors import ApiError


def in_utc(stamp: datetime) -> datetime:
    """The same time in UTC: PostgreSQL takes no offset beyond 15:59.

    Raises:
        ApiError: 400, in UTC it would lie before the year 1 or after 9999.
    """
    try:
        return stamp.astimezone(UTC)
    except OverflowError:
        raise ApiError(400, "invalid_query", "A time is out of range.") from None
