"""Derived figures: rates, and the age of the first message."""

from dataclasses import replace

import pytest

from services.ops.monitoring.queue_stats import figures, in_rate, oldest
from shared.bus.broker.queue_counts import Count
from tests.unit.ops.monitoring.samples import at, everybody, handling, sample

INTAKE = "orders.intake"


def shown(samples, name=INTAKE):
    return next(queue for queue in figures(samples) if queue.name == name)


def test_one_sample_has_the_figures_of_broker_and_services():
    beats = everybody(0, orders_intake=handling(90, rate=4.5, unacked=7))
    now = shown([sample(1, beats=beats, orders_intake=(5, 2), orders_intake_dead=(3, 0))])
    assert (now.ready, now.unacked, now.consumers, now.dead) == (5, 7, 2, 3)
    assert (now.in_rate, now.out_rate) == (None, 4.5)


def test_dead_letters_held_by_a_tool_still_count():
    samples = [sample(0, orders_intake_dead=(900, 0)), sample(2, orders_intake_dead=(0, 1))]
    assert shown(samples).dead == 900
    dead = shown(samples, f"{INTAKE}.dead")
    assert (dead.ready, dead.consumers) == (900, 1)
    assert shown([*samples, sample(4)]).dead == 0
    assert shown(samples[1:]).dead == 0


def test_an_old_heartbeat_does_not_count():
    beats = everybody(0, orders_intake=handling(90, rate=4.5, unacked=7))
    now = shown([sample(60, beats=beats, orders_intake=(5, 0))])
    assert (now.unacked, now.out_rate) == (None, None)


def test_a_missing_queue_has_no_figures():
    now = shown([sample(0, missing=(INTAKE,))])
    assert now.ready is None


def test_the_rate_in_is_the_handled_and_the_growth():
    samples = [
        sample(0, beats=everybody(0, orders_intake=handling(100)), orders_intake=(50, 1)),
        sample(10, beats=everybody(10, orders_intake=handling(400)), orders_intake=(250, 1)),
    ]
    assert in_rate(samples, INTAKE) == 50.0
    assert in_rate(samples[:1], INTAKE) is None
    # A consumer that has started anew counts from nothing.
    anew = sample(20, beats=everybody(20, orders_intake=handling(30)), orders_intake=(250, 1))
    assert in_rate([samples[1], anew], INTAKE) == 0.0


@pytest.mark.parametrize(
    ("samples", "age"),
    [
        # Empty now.
        ([sample(0, orders_intake=(5, 1)), sample(5)], (None, None)),
        # Nobody takes anything, and it was seen empty: between the two.
        ([sample(0), sample(5, orders_intake=(1, 0)), sample(60, orders_intake=(9, 0))],
         (60.0, "about")),
        # It was there when the watch began.
        ([sample(0, orders_intake=(1, 0)), sample(60, orders_intake=(9, 0))], (60.0, "at least")),
        # It moves: the first one came after the newest that was handled.
        ([sample(40, beats=everybody(40, orders_intake=handling(9, rate=2.0, reached=-200)),
                 orders_intake=(9, 1))], (240.0, "about")),
        # Its consumer is gone, and the first one came at some time after that.
        ([sample(600, beats=everybody(100, orders_intake=handling(9, reached=90)),
                 orders_intake=(1, 0))], (510.0, "at most")),
        # The same, and the watch has seen it empty since.
        ([sample(590, beats=everybody(100, orders_intake=handling(9, reached=90))),
          sample(600, beats=everybody(100, orders_intake=handling(9, reached=90)),
                 orders_intake=(1, 0))], (10.0, "about")),
        # Nothing is ready, but something is in hand.
        ([sample(0), sample(30, beats=everybody(30, orders_intake=handling(9, unacked=4)))],
         (30.0, "at most")),
    ],
)  # fmt: skip
def test_the_age_of_the_first_message(samples, age):
    assert oldest(samples, INTAKE) == age


SHARD = f"{INTAKE}.1"


def sharded(seconds, one, other, *, reached=None, **reached_in):
    """Samples of two shards, with ready messages and consumers of each."""
    beat = replace(
        handling(9, rate=2.0, reached=reached),
        reached_in={{"first": INTAKE, "second": SHARD}[n]: at(t) for n, t in reached_in.items()},
    )
    both = (one[0] + other[0], min(one[1], other[1]))
    found = sample(seconds, beats=everybody(seconds, orders_intake=beat), orders_intake=both)
    return replace(found, shards={INTAKE: Count(*one), SHARD: Count(*other)})


@pytest.mark.parametrize(
    ("samples", "age"),
    [
        # One is hours behind, the other is not.
        ([sharded(600, (3, 1), (500, 1), reached=599, first=599, second=-3000)],
         (3600.0, "at most")),
        ([sharded(590, (0, 1), (0, 1), reached=589, first=589, second=-3000),
          sharded(600, (3, 1), (500, 1), reached=599, first=599, second=-3000)], (10.0, "about")),
        ([sharded(600, (3, 1), (0, 1), reached=599, first=500, second=599)], (100.0, "at most")),
        # The recorder is of before the second was declared, and consumes the first alone.
        ([sharded(0, (0, 1), (5, 0), reached=-1), sharded(600, (0, 1), (500, 0), reached=599)],
         (600.0, "at least")),
        ([sharded(600, (3, 1), (0, 0), reached=500)], (100.0, "at most")),
        # Nothing is ready in either, but something is in hand.
        ([replace(sharded(600, (0, 1), (0, 1), reached=598), beats=everybody(
            600, orders_intake=handling(9, rate=2.0, unacked=4, reached=598)))], (2.0, "about")),
    ],
)  # fmt: skip
def test_the_first_message_of_several_shards_is_that_of_the_one_furthest_behind(samples, age):
    assert oldest(samples, INTAKE) == age
