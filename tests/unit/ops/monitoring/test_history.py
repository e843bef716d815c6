"""The last hour, minute by minute."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from services.ops.monitoring import history, order_flow
from services.ops.monitoring.queue_stats import Sample
from services.ops.monitoring.snapshot import Books, Look
from shared.bus.broker.queue_counts import Count

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)


def look(seconds_ago: float, recorded: int, emailed: int = 0, ready: int = 0) -> Look:
    at = NOW - timedelta(seconds=seconds_ago)
    sample = Sample(at=at, counts={"orders.intake": Count(ready, 1)}, beats=())
    books = Books(
        order_flow.Counters(recorded, emailed),
        order_flow.Latency(None, None, None, None, 0),
        order_flow.Database("15", 1, 100, 0),
        0.0,
    )
    return Look(sample, {}, [], books)


def test_a_minute_has_what_was_added_in_it():
    looks = [look(130, 100), look(70, 160, 20), look(10, 190, 80), look(0, 200, 100)]
    found = history.flow(looks, NOW)
    assert found.recorded[-2:] == [60, 40]
    assert found.emailed[-2:] == [20, 80]
    assert found.recorded[:-2] == [None] * 58
    assert found.at[-1] - found.at[0] == 59 * 60


def test_what_waits_to_be_recorded_was_accepted():
    looks = [look(60, 100), look(0, 100, ready=30)]
    assert history.flow(looks, NOW).accepted[-1] == 30
    assert history.per_minute(looks, NOW, history.accepted) == 30


def test_a_rate_is_by_the_time_that_was_really_seen():
    assert history.per_minute([look(40, 100), look(10, 150)], NOW, history.recorded) == 100
    assert history.per_minute([look(10, 150)], NOW, history.recorded) is None


def test_what_is_not_known_now_is_no_rate():
    away = replace(look(0, 0), books=None)
    assert history.per_minute([look(40, 100), look(10, 150), away], NOW, history.recorded) is None


def test_counters_that_begin_anew_are_no_negative_flow():
    looks = [look(60, 1000), look(0, 3)]
    assert history.flow(looks, NOW).recorded[-1] is None
    assert history.per_minute(looks, NOW, history.recorded) == 0


def test_what_came_while_nobody_could_see_is_no_flow_of_none_and_then_of_all_at_once():
    blind = [replace(look(ago, 0), books=None) for ago in range(480, 100, -20)]
    looks = [look(540, 90), look(485, 100), *blind, look(61, 700), look(0, 750)]
    assert history.flow(looks, NOW).recorded[-9:] == [10, *[None] * 7, 50]


def test_a_queues_line_has_the_most_of_each_minute():
    looks = [look(65, 0, ready=7), look(50, 0, ready=2), look(20, 0, ready=9), look(0, 0)]
    line = history.depths(looks, NOW, "orders.intake")
    assert line[-2:] == [7, 9]
    assert line[:-2] == [None] * 58
