"""What a delivery says of itself, whoever wrote it."""

import pytest

from shared.bus.incoming import Incoming


def stated(stamp):
    return Incoming(b"{}", {}, {"ce-time": stamp}, "intake").stated_time


def test_a_time_of_any_offset_is_in_utc():
    found = stated("2026-01-01T00:00:00.123-22:07")
    assert found.isoformat(timespec="milliseconds") == "2026-01-01T22:07:00.123+00:00"


@pytest.mark.parametrize(
    "stamp", ["yesterday", "2026-01-01T00:00:00", "0001-01-01T00:00:00+23:59", 7]
)
def test_what_is_no_time_is_not_stated(stamp):
    assert stated(stamp) is None
