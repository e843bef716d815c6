"""Times in a query string, of any offset that ISO 8601 knows, and cursors; else a 400."""

from datetime import UTC, datetime

import pytest

from shared.http.errors import ApiError
from shared.http.listing import from_cursor, in_utc, to_cursor


def test_an_offset_that_postgresql_does_not_know():
    stamp = datetime.fromisoformat("2026-04-25T11:21:50-22:07")
    assert in_utc(stamp) == datetime(2026, 4, 26, 9, 28, 50, tzinfo=UTC)
    assert in_utc(stamp).tzinfo is UTC


@pytest.mark.parametrize("text", ["0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59"])
def test_what_lies_beyond_the_calendar_is_refused(text):
    with pytest.raises(ApiError) as refused:
        in_utc(datetime.fromisoformat(text))
    assert (refused.value.status, refused.value.code) == (400, "invalid_query")


def test_a_cursor_leads_to_where_it_was_made():
    for at in (datetime(1969, 1, 1, 0, 0, 0, 1, tzinfo=UTC), datetime(2026, 4, 25, tzinfo=UTC)):
        assert from_cursor(to_cursor(at, b"12345678"), 8) == (at, b"12345678")


@pytest.mark.parametrize(
    "cursor", ["", "x", "é", "AAAA", to_cursor(datetime(2026, 4, 25, tzinfo=UTC), b"1234567")]
)
def test_what_is_no_cursor_is_refused(cursor):
    with pytest.raises(ApiError) as refused:
        from_cursor(cursor, 8)
    assert (refused.value.status, refused.value.error) == (400, "Invalid cursor.")
