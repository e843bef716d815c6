"""What a delivery says of itself, whoever wrote it."""

import struct
import time
from datetime import UTC, datetime

import pytest
from amqp.serialization import loads
from msgspec.structs import replace

from shared.bus.contract.delivery import Incoming
from shared.bus.contract.errors import Permanent


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


def test_a_leap_second_is_a_time():
    assert stated("2016-12-31T23:59:60.5Z") == datetime(2016, 12, 31, 23, 59, 59, 500_000, UTC)


@pytest.mark.parametrize("zone", ["UTC", "America/New_York", "Pacific/Kiritimati"])
def test_the_timestamp_property_is_utc_wherever_this_runs(monkeypatch, zone):
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        (stamp,), _ = loads("T", struct.pack(">Q", 1_800_000_000), 0)
        found = Incoming(b"", {"timestamp": stamp}, {}, "commands").stated_time
    finally:
        monkeypatch.undo()
        time.tzset()
    assert found == datetime.fromtimestamp(1_800_000_000, UTC)


def without_id(body=b"{}", exchange="commands", **properties):
    return Incoming(body, properties, {}, exchange, is_redelivered=True)


def test_what_has_no_id_is_recognised_by_all_of_it():
    assert without_id().content_id == without_id().content_id
    others = [without_id(b"[]"), without_id(user_id="ada"), without_id(type="x")]
    assert len({without_id().content_id, *(other.content_id for other in others)}) == 4
    assert without_id(message_id="7").content_id is None


def test_a_repeat_takes_no_effect_and_says_what_to_do():
    message = without_id().received("kyc.decide", None)
    message.take_effect_once()
    with pytest.raises(Permanent, match="send it again with a message_id"):
        replace(message, is_repeat=True).take_effect_once()
