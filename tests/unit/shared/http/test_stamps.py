"""Times in a query string: any offset that ISO 8601 knows, or a 400."""

from datetime import UTC, datetime

import pytest

from shared.http.errors import ApiError
from shared.http.stamps import in_utc


def test_an_offset_that_postgresql_does_not_know():
    stamp = datetime.fromisoformat("2026-04-25T11:21:50-22:07")
    assert in_utc(stamp) == datetime(2026, 4, 26, 9, 28, 50, tzinfo=UTC)
    assert in_utc(stamp).tzinfo is UTC


@pytest.mark.parametrize("text", ["0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59"])
def test_what_lies_beyond_the_calendar_is_refused(text):
    with pytest.raises(ApiError) as refused:
        in_utc(datetime.fromisoformat(text))
    assert (refused.value.status, refused.value.code) == (400, "invalid_query")
