"""The last hour, minute by minute."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from services.ops.monitoring import history, order_flow
from services.ops.monitoring.customer_flow import UNKNOWN_FOR
from services.ops.monitoring.queue_stats import Sample
from services.ops.monitoring.snapshot import DatabaseStats, Snapshot
from shared.bus.broker.queue_counts import Count

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)


def snapshot(seconds_ago: float, recorded: int, emailed: int = 0, ready: int = 0) -> Snapshot:
    at = NOW - timedelta(seconds=seconds_ago)
    sample = Sample(at=at, counts={"orders.intake": Count(ready, 1)}, beats=())
    stats = DatabaseStats(
        order_flow.Counters(recorded, emailed),
        order_flow.Latency(None, None, None, None, 0),
        order_flow.Database("15", 1, 100, 0),
        0.0,
    )
    return Snapshot(sample, {}, [], stats)


def test_flow_is_the_growth_in_each_minute():
    snapshots = [
        snapshot(130, 100),
        snapshot(70, 160, 20),
        snapshot(10, 190, 80),
        snapshot(0, 200, 100),
    ]
    found = history.flow(snapshots, NOW)
    assert found.recorded[-2:] == [60, 40]
    assert found.emailed[-2:] == [20, 80]
    assert found.recorded[:-2] == [None] * 58
    assert found.at[-1] - found.at[0] == 59 * 60


def test_waiting_orders_count_as_accepted():
    snapshots = [snapshot(60, 100), snapshot(0, 100, ready=30)]
    assert history.flow(snapshots, NOW).accepted[-1] == 30
    assert history.per_minute(snapshots, NOW, history.accepted) == 30


def test_a_rate_is_over_the_time_between_the_snapshots():
    assert history.per_minute([snapshot(40, 100), snapshot(10, 150)], NOW, history.recorded) == 100
    assert history.per_minute([snapshot(10, 150)], NOW, history.recorded) is None


def test_no_rate_without_a_current_count():
    away = replace(snapshot(0, 0), stats=None)
    assert (
        history.per_minute([snapshot(40, 100), snapshot(10, 150), away], NOW, history.recorded)
        is None
    )


def test_no_minute_grows_by_what_was_not_counted_while_the_count_was_unknown():
    """Of a minute's ends one may be known for a minute longer, and the other a minute later."""
    gap = UNKNOWN_FOR.total_seconds()
    before = [snapshot(gap + 62 + ago, 10) for ago in (2, 0)]
    after = [snapshot(ago, 50_010) for ago in range(60, -61, -2)]
    for late in range(60):
        found = history.flow([*before, *after], NOW + timedelta(seconds=late))
        assert not any(found.recorded)


def test_restarted_counters_give_no_negative_flow():
    snapshots = [snapshot(60, 1000), snapshot(0, 3)]
    assert history.flow(snapshots, NOW).recorded[-1] is None
    assert history.per_minute(snapshots, NOW, history.recorded) == 0


def test_the_growth_of_an_outage_is_in_no_minute():
    blind = [replace(snapshot(ago, 0), stats=None) for ago in range(480, 100, -20)]
    snapshots = [snapshot(540, 90), snapshot(485, 100), *blind, snapshot(61, 700), snapshot(0, 750)]
    assert history.flow(snapshots, NOW).recorded[-9:] == [10, *[None] * 7, 50]


def test_depths_are_the_maximum_of_each_minute():
    snapshots = [
        snapshot(65, 0, ready=7),
        snapshot(50, 0, ready=2),
        snapshot(20, 0, ready=9),
        snapshot(0, 0),
    ]
    line = history.depths(snapshots, NOW, "orders.intake")
    assert line[-2:] == [7, 9]
    assert line[:-2] == [None] * 58
