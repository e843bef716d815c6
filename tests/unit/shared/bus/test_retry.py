"""The decision what becomes of a message that failed."""

import random

import pytest

from shared.bus.consume.batch import Delivery
from shared.bus.consume.requeue import Requeuer
from shared.bus.consume.retry import MAX_ATTEMPTS, Dead, RetryAfter, decide
from shared.bus.contract.delivery import RawDelivery
from shared.bus.contract.errors import Happened, Malformed, Permanent, Retry
from shared.bus.contract.headers import ATTEMPT_HEADER
from shared.bus.contract.topology import NOTIFIER_ORDERS, RETRY_DELAYS
from shared.ids import new_id

ERRORS = [Retry("later"), RuntimeError("unexpected"), KeyError("x")]


class Never(random.Random):
    """No jitter."""

    def random(self) -> float:
        return 0.99


class Always(random.Random):
    """Always jitter."""

    def random(self) -> float:
        return 0.0


@pytest.mark.parametrize("error", [Permanent("no"), Malformed("what?")])
def test_what_no_retry_helps_is_dead_at_once(error):
    assert decide(error, 1, Never()) == Dead()


@pytest.mark.parametrize("error", ERRORS)
def test_the_ladder_is_climbed_to_its_end(error):
    delays = []
    for attempt in range(1, MAX_ATTEMPTS + 1):
        decision = decide(error, attempt, Never())
        assert isinstance(decision, RetryAfter)
        delays.append(decision.rung.seconds)
    assert delays == [5, 30, 120, 600, 3600, 3600, 3600, 3600]
    assert decide(error, MAX_ATTEMPTS + 1, Never()) == Dead()


def test_jitter_takes_the_next_longer_rung_and_never_leaves_the_ladder():
    for attempt in range(1, MAX_ATTEMPTS + 1):
        decision = decide(Retry("later"), attempt, Always())
        assert decision == RetryAfter(RETRY_DELAYS[min(attempt + 1, len(RETRY_DELAYS) - 1)])


@pytest.mark.parametrize("attempt", [1, MAX_ATTEMPTS + 1])
def test_what_has_happened_comes_back_at_once(attempt):
    for jitter in (Never(), Always()):
        decision = decide(Happened("the email is out"), attempt, jitter)
        assert decision == RetryAfter(RETRY_DELAYS[0])
        assert decision.rung.seconds == 0


@pytest.mark.parametrize(("error", "attempt"), [(Happened("it is out"), 3), (Retry("later"), 4)])
def test_what_has_happened_has_not_failed_once_more(error, attempt):
    requeuer = Requeuer("amqp://fellow@127.0.0.1/", NOTIFIER_ORDERS, "tests", lambda _: None)
    incoming = RawDelivery(b"{}", {"message_id": str(new_id())}, {ATTEMPT_HEADER: 3}, "")
    copy = requeuer.copy(Delivery(1, incoming), error)
    assert copy.routed.message.properties["application_headers"][ATTEMPT_HEADER] == attempt
