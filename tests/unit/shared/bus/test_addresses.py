"""Where a process connects to next, and when."""

import pytest

from shared.bus.broker import addresses
from shared.bus.broker.addresses import FIRST_PAUSE, LONGEST_PAUSE, Addresses, Pauses
from stack.servers.credentials import as_service

A, B, C = (f"amqp://u:pw@rabbit{number}:5672/" for number in (1, 2, 3))


def test_a_setting_is_a_circle_that_those_who_fail_go_on_in():
    nodes = Addresses(f"{A}; {B};{C}")
    assert nodes.round() == (A, B, C)
    nodes.leave(A)
    # Another connection that was there finds it gone a moment later.
    nodes.leave(A)
    assert nodes.round() == (B, C, A)
    nodes.leave(B)
    nodes.leave(C)
    assert nodes.round() == (A, B, C)


def test_one_address_is_all_there_is():
    nodes = Addresses(A)
    nodes.leave(A)
    assert nodes.round() == (A,)


def test_all_connections_of_a_process_go_on_in_the_same_place():
    addresses.of(f"{B};{C}").leave(B)
    try:
        assert addresses.of(f"{B};{C}").round() == (C, B)
    finally:
        addresses.of(f"{B};{C}").leave(C)


@pytest.fixture
def clock(monkeypatch):
    class Clock:
        now = 1000.0

        def monotonic(self):
            return self.now

    made = Clock()
    monkeypatch.setattr(addresses, "time", made)
    return made


def test_a_pause_comes_when_each_was_tried(clock):
    pauses = Pauses(3)
    waits = [pauses.after_failure() for _ in range(9)]
    assert [wait > 0 for wait in waits] == [False, False, True] * 3
    assert waits[2] <= FIRST_PAUSE
    assert FIRST_PAUSE < waits[8] <= 4 * FIRST_PAUSE
    many = [pauses.after_failure() for _ in range(60)]
    assert max(many) <= LONGEST_PAUSE


def test_one_address_has_a_pause_after_each_attempt(clock):
    pauses = Pauses(1)
    waits = [pauses.after_failure() for _ in range(20)]
    assert all(waits)
    assert waits[-1] > FIRST_PAUSE
    pauses.worked()
    clock.now += 3600
    assert 0 < pauses.after_failure() <= FIRST_PAUSE


def test_the_next_is_tried_at_once_after_one_that_worked(clock):
    pauses = Pauses(2)
    assert pauses.after_failure() == 0
    for _ in range(3):
        pauses.worked()
        clock.now += 3600
        assert pauses.after_failure() == 0


def test_what_ends_as_soon_as_it_works_is_not_tried_without_a_pause_for_ever(clock):
    pauses, waits = Pauses(2), []
    for _ in range(10):
        pauses.worked()
        waits.append(pauses.after_failure())
    assert [wait > 0 for wait in waits] == [False, True] * 5


@pytest.mark.parametrize(
    ("url", "place"),
    [
        (f"{A};{B}", "rabbit1:5672, rabbit2:5672"),
        ("amqps://u:p%40w@rabbit1/orders", "rabbit1:5671"),
        ("amqp://[fd00::4]", "[fd00::4]:5672"),
    ],
)
def test_where_it_is_is_said_without_a_password(url, place):
    assert addresses.place(url) == place


def test_somebody_else_signs_in_at_each():
    theirs = addresses.signed_in_as(f"{A};{B}", "ada", "p;/@")
    assert theirs == ("amqp://ada:p%3B%2F%40@rabbit1:5672/;amqp://ada:p%3B%2F%40@rabbit2:5672/")
    assert addresses.credentials(theirs) == ("ada", "p;/@")
    services = Addresses(as_service(f"{A};{B}", "orders")).round()
    assert len({addresses.credentials(url) for url in services}) == 1
    assert addresses.place(";".join(services)) == "rabbit1:5672, rabbit2:5672"
