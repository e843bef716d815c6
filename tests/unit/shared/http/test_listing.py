"""Times with any offset of ISO 8601 and cursors in a query string; others are refused with 400."""

from datetime import UTC, datetime

import pytest

from shared.http.errors import ApiError
from shared.http.listing import from_cursor, in_utc, to_cursor


def test_an_offset_beyond_that_of_postgresql_is_converted():
    stamp = datetime.fromisoformat("2026-04-25T11:21:50-22:07")
    assert in_utc(stamp) == datetime(2026, 4, 26, 9, 28, 50, tzinfo=UTC)
    assert in_utc(stamp).tzinfo is UTC


@pytest.mark.parametrize("text", ["0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59"])
def test_a_time_out_of_range_is_refused(text):
    with pytest.raises(ApiError) as refused:
        in_utc(datetime.fromisoformat(text))
    assert (refused.value.status, refused.value.code) == (400, "invalid_query")


CURSOR = to_cursor(datetime(2026, 4, 25, tzinfo=UTC), b"12345678")


def test_a_cursor_is_decoded_to_its_position():
    for at in (datetime(1969, 1, 1, 0, 0, 0, 1, tzinfo=UTC), datetime(2026, 4, 25, tzinfo=UTC)):
        assert from_cursor(to_cursor(at, b"12345678"), 8) == (at, b"12345678")


@pytest.mark.parametrize(
    "cursor",
    [
        "",
        "x",
        "é",
        "AAAA",
        to_cursor(datetime(2026, 4, 25, tzinfo=UTC), b"1234567"),
        f"{CURSOR[:3]}!!!!{CURSOR[3:]}",
        f"{CURSOR}=",
    ],
)
def test_an_invalid_cursor_is_refused(cursor):
    with pytest.raises(ApiError) as refused:
        from_cursor(cursor, 8)
    assert (refused.value.status, refused.value.error) == (400, "Invalid cursor.")
