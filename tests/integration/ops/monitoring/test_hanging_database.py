"""A database that keeps its connections and does not answer, as one that is paused."""

import asyncio
import threading
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.exc import ProgrammingError

from services.ops.alerting import alerter
from services.ops.alerting.alerter import Alerter
from services.ops.alerting.channels import channels
from services.ops.monitoring import sampler, snapshot
from services.ops.monitoring.alerts import Trouble
from services.ops.monitoring.poller import SnapshotPoller
from services.ops.monitoring.snapshot import Snapshot, SnapshotCollector
from shared.db.deadline import NoAnswerError, within
from shared.db.session import is_database_unavailable, make_engine
from tests.integration.arrange import until
from tests.integration.gate import Gate
from tests.integration.ops.alerting.test_alerter import Hook
from tests.unit.ops.monitoring.samples import sample

AWAY = Trouble("down", "database", "The database does not answer: it is gone", "away")


@pytest.fixture
def service():
    return "ops"


@pytest.fixture
def gate(settings):
    with Gate(settings.database_url) as made:
        yield made


@pytest.fixture
def config(settings, configure, gate):
    return configure(database_url=gate.url)


@pytest.fixture
def impatient(monkeypatch):
    """While the database does not answer, one waits for less time than usual."""

    @contextmanager
    def shortened():
        with monkeypatch.context() as patched:
            for module in (sampler, snapshot, alerter):
                patched.setattr(module, "PATIENCE", 2.0)
            yield

    return shortened


def kinds(snapshot):
    return {trouble.key for trouble in snapshot.troubles}


def test_a_look_ends_and_says_so(config, gate, impatient):
    with closing(SnapshotCollector(config)) as collector:
        assert "database: away" not in kinds(collector.collect())
        gate.stall()
        with impatient():
            for _ in range(2):
                snapshot = collector.collect()
                assert "database: away" in kinds(snapshot)
                assert snapshot.stats is None
        gate.open()
        until(lambda: "database: away" not in kinds(collector.collect()), "it is back")


def test_a_write_that_waits_for_ever_is_no_answer(config, engine, impatient):
    """As a commit that waits for a standby."""
    with closing(SnapshotCollector(config)) as collector:
        collector.collect()
        with engine.begin() as other, impatient():
            other.execute(text("LOCK TABLE ops_troubles IN ACCESS EXCLUSIVE MODE"))
            snapshot = collector.collect()
            (said,) = [one.text for one in snapshot.troubles if one.key == "database: away"]
        assert "has not answered for 2 s" in said
        assert "database: away" not in kinds(collector.collect())


def test_an_outbox_that_takes_too_long_to_count_is_no_database_that_is_away(
    config, engine, monkeypatch
):
    """As in a long outage of the broker, when it has millions of rows."""
    with closing(SnapshotCollector(config)) as collector:
        assert collector.collect().sample.outbox == 0
        monkeypatch.setattr(sampler, "COUNT_SECONDS", 0.2)
        with engine.begin() as other:
            other.execute(text("LOCK TABLE outbox IN ACCESS EXCLUSIVE MODE"))
            snapshot = collector.collect()
    assert (snapshot.sample.database_error, snapshot.sample.outbox) == (None, None)
    assert snapshot.sample.beats is not None
    assert "database: away" not in kinds(snapshot)
    assert snapshot.stats is not None


def test_what_fails_in_time_is_what_it_is(config):
    engine = make_engine(config)
    wrong = pytest.raises(ProgrammingError, match="no_such_table")
    with wrong, within(30), engine.connect() as connection:
        connection.execute(text("SELECT * FROM no_such_table"))
    with pytest.raises(NoAnswerError) as none, within(1), engine.connect() as connection:
        connection.execute(text("SELECT pg_sleep(60)"))
    assert is_database_unavailable(none.value)
    with within(30), engine.connect() as connection:
        assert connection.scalar(text("SELECT 1")) == 1
    engine.dispose()


def at(seconds_ago):
    return datetime.now(UTC) - timedelta(seconds=seconds_ago)


@pytest.fixture
def hook():
    made = Hook()
    yield made
    made.stop()


def test_it_is_told_without_the_database(config, configure, gate, hook, impatient, monkeypatch):
    """First by a look that says so; and by one that is old, since the next does not end."""
    config = configure(alert_webhook_url=hook.url, alert_after_seconds="0.001")
    (channel,) = channels(config)
    an_alerter = Alerter(config, channel)
    well = Snapshot(replace(sample(0), at=at(0)), {}, [], None)
    an_alerter.notify(well)
    gate.stall()
    with impatient():
        an_alerter.notify(well)  # goes by the books, and comes back
    seen = Snapshot(replace(sample(0), at=at(5), database_error="it is gone"), {}, [AWAY], None)
    an_alerter.notify(seen)
    assert "The database does not answer" in hook.texts[0]
    poller = SnapshotPoller(lambda: well)
    poller._latest = Snapshot(replace(sample(0), at=at(600)), {}, [], None)
    monkeypatch.setattr(alerter, "SECONDS", 0.1)
    another = Alerter(config, channel)
    another.notify(poller.latest)
    assert "The console has not been able to look for 10 min" in hook.texts[1]


def test_a_look_that_does_not_end_is_seen(settings):
    end = threading.Event()
    snapshots = iter([Snapshot(replace(sample(0), at=at(120)), {}, [], None)])

    def snapshot():
        found = next(snapshots, None)
        if found is None:
            end.wait(60)
        return found

    async def see():
        poller = SnapshotPoller(snapshot)
        poller.start()
        async for seen in poller.watch():
            said = seen.troubles
            break
        end.set()
        await poller.stop()
        return said

    (said,) = asyncio.run(see())
    assert (said.key, said.level) == ("console: blind", "down")
