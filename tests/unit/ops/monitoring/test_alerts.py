"""The troubles found in samples."""

from dataclasses import replace
from datetime import timedelta

import pytest

from services.ops.console.pages.runbook import section
from services.ops.monitoring.alerts import too_old, troubles
from services.ops.monitoring.heartbeats import Beat, QueueBeat
from services.ops.monitoring.order_flow import Refusals
from services.ops.times import duration
from shared.bus.broker.queue_counts import Count
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


def test_a_queue_that_grows_with_consumers():
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


def test_an_unreachable_mail_server_is_one_trouble():
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


@pytest.mark.parametrize(
    ("part", "reason", "level", "what_to_do"),
    [
        ("job schedule", "the job has not gone well for 20 min", "warning", "JobFailing"),
        ("journal", "the journal is not known to have 12 facts", "warning", "JournalMisses"),
        ("API", "9 of 90 requests ended in an error of ours", "warning", "ApiFailing"),
        ("webhooks", "9 of 90 webhooks were answered with 5xx", "down", "OrdersRefused"),
    ],
)
def test_a_processs_own_report_is_the_text_of_its_trouble(part, reason, level, what_to_do):
    beats = everybody(0, **{part: QueueBeat(state="failing", reason=reason)})
    (found,) = troubles([sample(0, beats=beats)])
    assert found.text == f"services.orders (services.orders:1): {reason}"
    assert (found.level, section(found.about, found.kind)) == (level, what_to_do)


def refusals(tried, refused):
    return Refusals(tried, refused, at(-600), at(-30), "550 5.7.1 policy")


@pytest.mark.parametrize(
    ("tried", "refused", "levels"),
    [
        (4, 4, []),
        (5, 5, ["down"]),
        (100, 5, []),
        (100, 6, ["warning"]),
        (1_000, 51, ["warning"]),
        (1_000, 501, ["down"]),
    ],
)
def test_emails_that_are_refused_permanently(tried, refused, levels):
    found = troubles([replace(well(0), emails=refusals(tried, refused))])
    assert [one.level for one in found] == levels
    assert troubles([replace(well(0), emails=Refusals(9, 0, None, None, ""))]) == []


def test_refusals_name_their_times_and_the_answer():
    (text,) = said(replace(well(0), emails=refusals(40, 34)))
    assert text == (
        "Of the last 40 emails 34 were refused for good, the first of those at 2026-11-24 11:50 "
        "UTC, the last 30 s ago: whom they were for is not told. Most often the answer was “550 "
        "5.7.1 policy”. Once that is mended, replay their dead letters"
    )


def test_a_service_without_a_heartbeat():
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


def test_troubles_that_are_down_come_first():
    now = well(0, orders_intake_dead=(1, 0), kyc_decisions=(0, 0))
    assert [t.level for t in troubles([now])] == ["down", "warning"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(5.2, "5 s"), (240, "4 min"), (7_300, "2 h"), (timedelta(days=3).total_seconds(), "3 days")],
)
def test_durations(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize("lacks", ["mail", "database", ""])
def test_a_queue_whose_process_waits_for_a_dependency_is_not_without_a_consumer(lacks):
    """It was started while the dependency was unreachable, and consumes once that is back."""
    held = QueueBeat(state="holding", reason="It waits.", lacks=lacks, since=at(-60))
    beats = everybody(0, notifier_orders=held)
    now = sample(0, beats=beats, notifier_orders=(10, 0))
    assert not [text for text in said(now) if "no consumer" in text]
    # Once it is not heard of any more, that says nothing.
    assert [text for text in said(replace(now, at=at(60))) if "no consumer" in text]
    # Nor does a process that has what it needs.
    works = [replace(beat, queues={}) for beat in beats]
    assert [text for text in said(replace(now, beats=works)) if "no consumer" in text]


def test_an_old_snapshot_is_a_trouble():
    assert too_old(at(0), at(60)) is None
    assert too_old(at(0), at(200)).text == (
        "The console has not been able to look for 3 min: all that it shows is of "
        "2026-11-24 12:00 UTC"
    )


def test_a_recorder_that_tries_one_shard_after_another_leaves_none_without_a_consumer():
    def snapshot(seconds, *consumers):
        found = well(seconds, orders_intake=(0, min(consumers)))
        names = ("orders.intake", "orders.intake.1", "orders.intake.2")
        shards = {n: Count(0, c) for n, c in zip(names, consumers, strict=True)}
        return replace(found, shards=shards)

    alone = "orders.intake has no consumer (0 in orders.intake.2: were all recorders"
    assert said(snapshot(0, 1, 1, 1), snapshot(5, 1, 0, 0), snapshot(10, 1, 1, 1)) == []
    assert said(snapshot(0, 1, 0, 1), snapshot(5, 1, 1, 0)) == []
    for samples in ([snapshot(0, 1, 1, 0)], [snapshot(0, 0, 0, 0), snapshot(5, 1, 1, 0)]):
        (text,) = said(*samples)
        assert text.startswith(alone)
    assert said(snapshot(0, 1, 1, 1), snapshot(5, 0, 0, 0)) == ["orders.intake has no consumer"]
