"""A broker that is slow for a moment costs the tests that moment, and no test after it."""

import subprocess

import pytest

from tests.vhosts import Vhosts


class SlowBroker:
    """Does what it is told, and says so too late where it is slow; refuses what is not there."""

    def __init__(self):
        self.there = set()
        self.is_slow = False

    def admit(self, names):
        self._answer()
        self.there.update(names)

    def evaluate(self, expression):
        name = expression.split('"')[1]
        if name not in self.there:
            raise RuntimeError(f"{{error, {{no_such_vhost, {name}}}}}")
        self.there.remove(name)
        self._answer()

    def _answer(self):
        if self.is_slow:
            self.is_slow = False
            raise subprocess.TimeoutExpired("erl_call", 60)


@pytest.fixture
def slow():
    return SlowBroker()


def test_a_deletion_that_was_not_waited_for_fails_no_test(slow):
    vhosts = Vhosts(slow)
    used = {vhosts.take_bare() for _ in range(3)}
    for name in used:
        vhosts.give_back(name)
    slow.is_slow = True
    assert {vhosts.take_bare() for _ in range(3)} <= slow.there
    assert not used & slow.there


def test_what_could_not_be_made_is_not_given_out(slow):
    vhosts = Vhosts(slow)
    slow.is_slow = True
    with pytest.raises(subprocess.TimeoutExpired):
        vhosts.take_bare()
    assert vhosts.take_bare() in slow.there
