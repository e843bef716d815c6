"""What is wrong, in words."""

from dataclasses import replace
from datetime import timedelta

import pytest

from services.ops.monitoring.alerts import too_old, troubles
from services.ops.monitoring.heartbeats import Beat, QueueBeat
from services.ops.times import duration
from tests.unit.ops.monitoring.samples import NOON, at, everybody, handling, sample


def said(*samples):
    return [trouble.text for trouble in troubles(samples)]


def well(seconds, **more):
    return sample(seconds, beats=everybody(seconds), **more)


def test_nothing_is_wrong():
    assert said(well(0), well(5), well(10)) == []


def test_a_queue_that_grows_without_a_consumer():
    samples = [well(5 * i, notifier_orders=(10 * i, 0)) for i in range(61)]
    assert said(*samples)[0] == "notifier.orders has grown for 5 min: no consumer"
    assert said(samples[-1])[0] == "notifier.orders has no consumer: 600 messages wait"
    assert said(well(0, kyc_decisions=(0, 0))) == ["kyc.decisions has no consumer"]


def test_a_queue_that_grows_all_the_same():
    samples = [well(5 * i, orders_intake=(100 + i, 2)) for i in range(25)]
    grown = "orders.intake has grown for 2 min: 124 messages wait, 2 consumers cannot keep up"
    assert grown in said(*samples)
    # It was level for a long time, and has grown for ten seconds: no news yet.
    level = [well(5 * i, orders_intake=(100 if i < 23 else 101 + i, 2)) for i in range(25)]
    assert not any("grown" in text for text in said(*level))


def test_an_old_message():
    beats = everybody(0, orders_intake=handling(9, rate=1.0, reached=-240))
    (text,) = said(sample(0, beats=beats, orders_intake=(1, 1)))
    assert text == "orders.intake: its oldest message is 4 min old"


def test_dead_letters_and_retries():
    now = sample(0, beats=everybody(0), kyc_decisions_dead=(3, 0), retry_5s=(1, 0), retry_1h=(2, 0))
    found = said(now)
    assert "3 dead letters in kyc.decisions" in found
    # The broker's own count, whatever became of the process that put them there.
    assert "3 messages failed and will be tried again: 1 in retry.5s, 2 in retry.1h" in found


def test_no_mail_server_is_called_that_once():
    held = QueueBeat(
        unacked=3,
        state="holding",
        reason="A batch is kept: the sender was refused: 550 5.7.1 not you",
        lacks="mail",
        since=at(-60),
    )
    beats = everybody(0, notifier_urgent=held, notifier_orders=replace(held, since=at(-120)))
    (text,) = said(sample(0, beats=beats, notifier_orders=(10, 1)))
    assert text == (
        "No mail server takes our mail: 16 emails wait since 2026-11-24 11:58 UTC. They are sent "
        "once one does. A batch is kept: the sender was refused: 550 5.7.1 not you"
    )
    # What was held an hour ago by a process that is gone is not said.
    late = [replace(beat, queues={}) for beat in everybody(120)]
    assert "mail" not in " ".join(said(sample(120, beats=[*late, *beats])))


@pytest.mark.parametrize("state", ["away", "refused", "failing"])
def test_a_part_that_does_not_work_is_down(state):
    part = QueueBeat(state=state, reason="It is so.")
    (text,) = said(sample(0, beats=everybody(0, orders_intake=part)))
    assert text == "services.orders (services.orders:1) does not work on orders.intake: It is so."


def test_a_service_that_is_not_heard_of():
    beats = [beat for beat in everybody(120) if beat.service != "services.kyc"]
    assert said(sample(120, beats=beats)) == ["services.kyc was never heard of: start it"]
    old = Beat("services.kyc", "h:1", "1.0", NOON, at(0), {})
    found = said(sample(120, beats=[*beats, old]))
    assert found == ["services.kyc has not been heard of for 2 min"]
    # Another instance of it lives.
    young = replace(old, instance="h:2", seen_at=at(119))
    assert said(sample(120, beats=[*beats, young, old])) == []


def test_the_servers():
    now = replace(well(0), broker_error="refused", counts={})
    assert said(now) == ["The broker does not answer: refused"]
    now = replace(well(0), database_error="refused", beats=None)
    assert said(now) == ["The database does not answer: refused"]
    assert "takes no messages" in said(replace(well(0), alarm="it is short of disk space"))[0]
    late = replace(well(0), outbox=12, outbox_since=at(-120))
    assert said(late)[0].startswith("12 messages in the outbox, the oldest for 2 min")
    parked = replace(well(0), parked=2, parked_since=at(-120))
    assert said(parked)[0].startswith("2 messages of the outbox cannot be published")
    assert said(well(0, missing=("kyc.decisions",))) == [
        "kyc.decisions is not there: declare the topology"
    ]


def test_what_is_down_comes_first():
    now = well(0, orders_intake_dead=(1, 0), kyc_decisions=(0, 0))
    assert [t.level for t in troubles([now])] == ["down", "warning"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(5.2, "5 s"), (240, "4 min"), (7_300, "2 h"), (timedelta(days=3).total_seconds(), "3 days")],
)
def test_durations(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize("lacks", ["mail", "database", ""])
def test_a_queue_that_a_process_waits_with_is_not_without_a_consumer(lacks):
    """It was started anew while something was away, and begins to consume once that is back."""
    held = QueueBeat(state="holding", reason="It waits.", lacks=lacks, since=at(-60))
    beats = everybody(0, notifier_orders=held)
    now = sample(0, beats=beats, notifier_orders=(10, 0))
    assert not [text for text in said(now) if "no consumer" in text]
    # Once it is not heard of any more, that says nothing.
    assert [text for text in said(replace(now, at=at(60))) if "no consumer" in text]
    # Nor does a process that has what it needs.
    works = [replace(beat, queues={}) for beat in beats]
    assert [text for text in said(replace(now, beats=works)) if "no consumer" in text]


def test_a_look_of_long_ago_says_so():
    assert too_old(at(0), at(60)) is None
    assert too_old(at(0), at(200)).text == (
        "The console has not been able to look for 3 min: all that it shows is of "
        "2026-11-24 12:00 UTC"
    )
