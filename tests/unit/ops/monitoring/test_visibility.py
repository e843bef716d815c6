"""Ended and hidden troubles, with and without the database."""

from dataclasses import replace

import pytest

from services.ops.monitoring.heartbeats import QueueBeat
from services.ops.monitoring.order_flow import Refusals
from services.ops.monitoring.visibility import is_over
from shared.bus.broker.queue_counts import Count
from shared.bus.contract import topology
from tests.unit.ops.monitoring.samples import at, everybody, sample

INTAKE = "orders.intake"
RUNG = topology.RETRY_DELAYS[0].name


def samples(**without):
    """Every ten seconds for five minutes."""
    notifier = {queue.name: QueueBeat(state="working") for queue in topology.NOTIFIER}
    return [
        replace(
            sample(s, beats=[replace(beat, queues=notifier) for beat in everybody(s)]),
            **{"emails": Refusals(9, 0, None, None, "")} | without,
        )
        for s in range(0, 301, 10)
    ]


GONE = {"database_error": "it is gone", "beats": None}
READ_ONLY = {"database_error": "it is a standby", "is_read_only": True}
SILENT = {"broker_error": "it is gone"}


@pytest.mark.parametrize(
    ("about", "kind", "gone", "read_only", "silent"),
    [
        (INTAKE, "dead letters", True, True, False),
        (INTAKE, "grows", True, True, False),
        (INTAKE, "no consumer", False, True, False),
        (INTAKE, "old", False, True, False),
        ("ladder", "waits", True, True, False),
        ("broker", "away", True, True, True),
        ("broker", "alarm", True, True, False),
        ("queues", "unseen", True, True, False),
        ("database", "away", True, True, True),
        ("database", "read-only", False, True, True),
        ("outbox", "old", False, True, True),
        ("parked", "parked", False, True, True),
        ("services.orders", "silent", False, True, True),
        ("mail", "refuses", False, True, True),
    ],
)
def test_an_absent_trouble_is_over_if_it_could_be_seen(about, kind, gone, read_only, silent):
    assert is_over(samples(), at(0), about, kind)
    assert is_over(samples(**GONE), at(0), about, kind) is gone
    assert is_over(samples(**READ_ONLY), at(0), about, kind) is read_only
    assert is_over(samples(**SILENT), at(0), about, kind) is silent


@pytest.mark.parametrize("without", [{}, GONE])
def test_one_sample_without_it_is_not_its_end(without):
    found = samples(**without)
    assert not is_over(found, at(280), "broker", "away")
    assert not is_over(found[-1:], at(0), "broker", "away")


@pytest.mark.parametrize(
    ("about", "kind", "queue"),
    [(INTAKE, "dead letters", f"{INTAKE}.dead"), ("ladder", "waits", RUNG)],
)
def test_a_trouble_of_an_unresponsive_or_held_queue_is_not_over(about, kind, queue):
    """The queue is silent, or a tool holds its messages, which only tools consume."""
    held = samples()[-1].counts | {queue: Count(0, 1)}
    gone = {name: count for name, count in held.items() if name != queue}
    assert is_over(samples(), at(0), about, kind)
    assert not is_over(samples(counts=gone, silent={queue}), at(0), about, kind)
    assert not is_over(samples(counts=held), at(0), about, kind)


@pytest.mark.parametrize(("about", "kind"), [("outbox", "old"), ("parked", "parked")])
def test_an_outbox_that_was_not_counted_in_time_hides_its_troubles(about, kind):
    assert is_over(samples(), at(0), about, kind)
    assert not is_over(samples(outbox=None), at(0), about, kind)


@pytest.mark.parametrize("emails", [None, Refusals(0, 0, None, None, "")])
def test_refusals_are_not_over_while_nothing_is_sent(emails):
    assert is_over(samples(), at(0), "mail", "refuses")
    assert not is_over(samples(emails=emails), at(0), "mail", "refuses")


@pytest.mark.parametrize(
    ("tried", "refused", "over"),
    [(100, 6, True), (100, 5, False), (100, 3, False), (100, 2, True), (1_000, 25, True)],
)
def test_refusals_end_below_half_of_the_threshold(tried, refused, over):
    """Else refusals around the threshold would begin and end all day."""
    found = samples(emails=Refusals(tried, refused, at(-600), at(-30), "550 5.7.1 policy"))
    assert is_over(found, at(0), "mail", "refuses") is over
