"""What a delivery says of itself, whoever wrote it."""

import time
from datetime import UTC, datetime

import pytest
from amqp import Message
from msgspec.structs import replace

from shared.bus.broker import decoding
from shared.bus.contract.delivery import RawDelivery, believed
from shared.bus.contract.errors import Permanent
from shared.security.service_accounts import CONSOLE, login


def stated(stamp):
    return RawDelivery(b"{}", {}, {"ce-time": stamp}, "intake").stated_time


def stamped(seconds):
    """The time of a message whose property `timestamp` came from the broker."""
    message = Message(b"{}", timestamp=seconds)
    properties, _ = decoding.properties(message._serialize_properties(), 0)
    return RawDelivery(b"{}", properties, {}, "commands").stated_time


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
        found = stamped(1_800_000_000)
    finally:
        monkeypatch.undo()
        time.tzset()
    assert found == datetime.fromtimestamp(1_800_000_000, UTC)


@pytest.mark.parametrize("stamp", [1_800_000_000_000, 1_800_000_000_000_000_000, 2**63, 2**64 - 1])
def test_a_timestamp_that_no_calendar_has_is_not_stated(stamp):
    assert stamped(stamp) is None


def without_id(body=b"{}", exchange="commands", **properties):
    return RawDelivery(body, properties, {}, exchange, is_redelivered=True)


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


def died_in(*queues, exchange=""):
    """As the broker notes it, the newest first."""
    return [{"queue": queue, "reason": "expired", "exchange": exchange} for queue in queues]


OWN, OTHERS, QUEUE = login("secrets"), login("notifier"), "secrets.rotate"


@pytest.mark.parametrize(
    ("exchange", "user", "deaths", "is_vouched"),
    [
        ("commands", None, None, True),
        ("commands", OTHERS, None, True),
        ("commands", None, died_in("ingress.secrets.mine"), False),
        ("commands", None, "no list", False),
        ("ingress.secrets.mine", None, None, False),
        ("notifier.urgent", OTHERS, died_in(QUEUE), False),
        ("", OWN, None, True),
        ("", OWN, died_in("retry.5s"), True),
        ("", login("ops"), None, True),
        ("", login("console"), None, True),
        ("", "admin", died_in(QUEUE), True),
        ("", None, died_in("retry.5s"), False),
        ("", OTHERS, died_in("retry.5s"), False),
        ("", "ada", died_in("retry.5s", "kyc.decisions"), False),
        ("retry.1h", OWN, None, True),
        ("retry.1h", None, died_in("notifier.orders"), False),
        ("dead", OWN, None, True),
        ("dead", login("ops"), died_in(QUEUE), True),
        ("dead", None, died_in(QUEUE, exchange="commands"), True),
        ("dead", OTHERS, died_in(QUEUE, "retry.5s"), False),
        ("dead", None, None, False),
        ("dead", OTHERS, died_in("notifier.orders", exchange="notifier.orders"), False),
        ("dead", None, died_in(QUEUE, "ingress.secrets.mine", exchange="commands"), False),
        ("dead", None, died_in(QUEUE, exchange="ingress.secrets.mine"), False),
        ("", OWN, died_in("retry.5s", exchange="notifier.urgent"), False),
    ],
)
def test_what_is_vouched_for(exchange, user, deaths, is_vouched):
    """Rolling: every copy since 0012 bears the name of who made it."""
    headers = {"x-replay": "again"} | ({"x-death": deaths} if deaths else {})
    properties = {"type": "secret.rotate"} | ({"user_id": user} if user else {})
    known = believed(QUEUE, OWN)
    key = "secret.rotate" if exchange == "commands" else QUEUE
    message = RawDelivery(b"{}", properties, headers, exchange, False, key, known)
    assert (message.unvouched == "", message.misnamed == "") == (is_vouched, is_vouched)
    if not is_vouched:
        assert message.replay is None


@pytest.mark.parametrize(
    ("exchange", "user", "said", "person"),
    [
        ("commands", "ada", {}, "ada"),
        ("commands", "ada", {"x-user-id": "boss", "x-key": "kyc.decide"}, "ada"),
        ("", OWN, {"x-user-id": "ada", "x-key": "kyc.decide"}, "ada"),
        ("", "admin", {}, "admin"),  # put there by hand, as their own
        ("", "admin", {"x-user-id": "admin"}, "admin"),  # edited: what they say themselves
        ("", "admin", {"x-user-id": "ada"}, None),
        ("", "admin", {"x-key": "kyc.decide"}, None),  # of nobody who is known
        ("", login("ops"), {"x-user-id": "ada"}, None),
        ("dead", "ada", {}, "ada"),
        ("retry.5s", "admin", {"x-user-id": login(CONSOLE), "x-acting-user": "ada"}, None),
    ],
)
def test_who_puts_back_what_another_has_said_has_not_said_it(exchange, user, said, person):
    message = RawDelivery(b"{}", {"user_id": user}, said, exchange, believed=believed(QUEUE, OWN))
    assert message.person == person
