"""Probes of a server between two snapshots, while a page waits."""

import asyncio
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest

from services.ops.console.pages import overview
from services.ops.monitoring.poller import HUNG, OLD, Probe, SnapshotPoller
from services.ops.monitoring.snapshot import Snapshot
from tests.unit.ops.monitoring.samples import everybody, sample


def well():
    now = datetime.now(UTC)
    return Snapshot(replace(sample(0, beats=everybody(0)), at=now), {}, [], None)


@pytest.fixture
def hang():
    """Blocks the answer of a probe."""
    made = threading.Event()
    yield made
    made.set()


@pytest.fixture
def cut(hang):
    """A probe that fails after that, as a cut connection does."""

    def ask():
        hang.wait()
        raise OSError

    return ask


async def finds_hung(poller, *thread):
    """Probe until it is found: a stalled event loop reports nothing."""
    async with asyncio.timeout(60):
        while not await poller.finds_hung(*thread):
            pass


def test_a_hung_database_is_known_before_the_next_snapshot_and_until_a_later_one(hang, cut):
    async def run():
        poller = SnapshotPoller(well, cut)
        poller.start()
        snapshots = poller.watch()
        await anext(snapshots)
        assert not poller.is_database_unavailable
        await finds_hung(poller)
        assert poller.is_database_unavailable
        (said,) = poller.latest.troubles
        assert (said.key, said.text) == (
            "database: away",
            f"The database does not answer: {HUNG}",
        )
        # Also where that is the only look of the hour.
        assert said.text in overview.inside(poller)
        hang.set()
        while poller.is_database_unavailable:
            await anext(snapshots)
        assert poller.latest.troubles == []
        await poller.stop()

    asyncio.run(run())


@pytest.mark.parametrize("server", ["database", "broker"])
def test_a_late_answer_clears_it_without_a_snapshot(hang, server):
    async def run():
        poller = SnapshotPoller(well, **{f"ask_{server}": hang.wait})
        poller._latest = well()

        def is_away():
            return poller.is_database_unavailable or poller.broker_error is not None

        with poller.at_broker():
            await finds_hung(poller)
        assert is_away()
        hang.set()
        await asyncio.gather(poller._database.ask(), poller._broker.ask())
        assert not is_away()
        assert poller.latest.troubles == []
        with poller.at_broker():
            assert not await poller.finds_hung()
        await poller.stop()

    asyncio.run(run())


def test_a_probes_result_expires_without_new_snapshots(hang, monkeypatch):
    async def run():
        poller = SnapshotPoller(well, hang.wait)
        await finds_hung(poller)
        assert poller.is_database_unavailable
        later = time.monotonic() + OLD.total_seconds()
        with monkeypatch.context() as patched:
            clock = SimpleNamespace(monotonic=lambda: later)
            patched.setattr("services.ops.monitoring.poller.time", clock)
            assert not poller.is_database_unavailable
        hang.set()
        await poller.stop()

    asyncio.run(run())


def test_the_broker_is_probed_if_a_page_waits_for_it(hang):
    async def run():
        poller = SnapshotPoller(well, ask_broker=hang.wait)
        poller._latest = well()
        assert not await poller.finds_hung()
        own = threading.get_ident()
        with poller.at_broker():
            with poller.at_broker():
                pass
            # Who is at work elsewhere does not wait for it; who has not begun may.
            assert not await poller.finds_hung(own + 1)
            await finds_hung(poller, own)
            await finds_hung(poller)
        assert not await poller.finds_hung(own)
        assert poller.broker_error == HUNG
        assert HUNG.endswith(".")
        assert [said.key for said in poller.latest.troubles] == ["broker: away"]
        hang.set()
        await poller.stop()

    asyncio.run(run())


@pytest.mark.parametrize("ask", [int, lambda: 1 / 0])
def test_a_server_that_answers_or_refuses_does_not_hang(ask):
    async def run():
        poller = SnapshotPoller(well, ask)
        assert not await poller.finds_hung()
        await poller.stop()

    asyncio.run(run())


def test_a_stalled_event_loop_reports_no_hung_server(hang, monkeypatch):
    async def run():
        probe = Probe("database", hang.wait)
        wait = asyncio.wait

        async def late(*given, **more):
            found = await wait(*given, **more)
            clock[0] += 1.0
            return found

        monkeypatch.setattr(asyncio, "wait", late)
        clock = [1_000.0]
        of_the_module = SimpleNamespace(monotonic=lambda: clock[0])
        monkeypatch.setattr("services.ops.monitoring.poller.time", of_the_module)
        assert not await probe.is_hung()
        monkeypatch.undo()
        hang.set()
        probe.stop()

    asyncio.run(run())
