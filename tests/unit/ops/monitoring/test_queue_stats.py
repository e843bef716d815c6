"""The figures that are derived: rates, and the age of the first message."""

import pytest

from services.ops.monitoring.queue_stats import figures, in_rate, oldest
from tests.unit.ops.monitoring.samples import everybody, handling, sample

INTAKE = "orders.intake"


def shown(samples, name=INTAKE):
    return next(queue for queue in figures(samples) if queue.name == name)


def test_one_sample_tells_what_the_broker_and_the_services_say():
    beats = everybody(0, orders_intake=handling(90, rate=4.5, unacked=7))
    now = shown([sample(1, beats=beats, orders_intake=(5, 2), orders_intake_dead=(3, 0))])
    assert (now.ready, now.unacked, now.consumers, now.dead) == (5, 7, 2, 3)
    assert (now.in_rate, now.out_rate) == (None, 4.5)


def test_dead_letters_that_somebody_has_in_hand_are_not_gone():
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


def test_what_is_not_there_is_none():
    now = shown([sample(0, missing=(INTAKE,))])
    assert now.ready is None


def test_the_rate_in_is_what_was_handled_and_what_there_is_more():
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
