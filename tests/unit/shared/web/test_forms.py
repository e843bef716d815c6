"""Days in a form, in the user's time zone."""

from datetime import UTC, datetime

import pytest

from shared.web.forms import beginning
from shared.web.results import PageError


@pytest.mark.parametrize(
    ("day", "zone", "days", "moment"),
    [
        ("2026-11-29", "America/Los_Angeles", 0, datetime(2026, 11, 29, 8, tzinfo=UTC)),
        ("2026-11-29", "America/Los_Angeles", 1, datetime(2026, 11, 30, 8, tzinfo=UTC)),
        ("2026-03-29", "Europe/Berlin", 1, datetime(2026, 3, 29, 22, tzinfo=UTC)),  # 23 hours
        ("2026-11-29", "", 0, datetime(2026, 11, 29, tzinfo=UTC)),
        ("2026-11-29", "../../etc/passwd", 0, datetime(2026, 11, 29, tzinfo=UTC)),
        ("", "Africa/Lagos", 1, None),
        ("9999-12-31", "", 1, None),
        ("9999-12-31", "America/Los_Angeles", 0, datetime(9999, 12, 31, 8, tzinfo=UTC)),
        ("0001-01-01", "Asia/Kathmandu", 0, None),
    ],
)
def test_a_day_begins_in_the_users_time_zone(day, zone, days, moment):
    assert beginning(day, zone, days) == moment


@pytest.mark.parametrize("day", ["30.11.2026", "2026-02-30", "x"])
def test_an_invalid_day_is_refused(day):
    with pytest.raises(PageError) as refused:
        beginning(day, "")
    assert refused.value.status == 400
