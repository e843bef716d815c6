"""The dots of the overview."""

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from services.ops.console.pages.overview import inside
from services.ops.monitoring.alerts import troubles
from services.ops.monitoring.poller import SnapshotPoller
from services.ops.monitoring.queue_stats import figures
from services.ops.monitoring.snapshot import Snapshot
from shared.bus.contract import topology
from tests.unit.ops.monitoring.samples import everybody, sample


def rows(seen):
    """The dots of the queues, and those of the services and servers."""
    snapshot = Snapshot(seen, {one.name: one for one in figures([seen])}, troubles([seen]), None)
    poller = SnapshotPoller(lambda: snapshot)
    poller._latest = snapshot
    html = inside(poller)
    queues = re.findall(r'<tr id="queue-.*?</tr>', html, re.DOTALL)
    assert len(queues) == len(topology.WORK_QUEUES)
    return queues, re.sub(r'<tr id="queue-.*?</tr>', "", html, flags=re.DOTALL)


def well(pieces):
    return sum("dot good" in piece for piece in pieces)


def now():
    return datetime.now(UTC).replace(microsecond=0)


@pytest.fixture
def seen():
    return replace(sample(0, beats=everybody(0)), at=now())


def test_dots_are_green_where_all_is_well(seen):
    assert well(rows(seen)[0]) == len(topology.WORK_QUEUES)


def test_an_unseen_queue_has_no_green_dot(seen):
    for refused in (False, True):
        unseen = replace(seen, counts={}, broker_error="away", is_refused=refused)
        assert well(rows(unseen)[0]) == 0


def test_an_old_snapshot_has_no_green_dots(seen):
    queues, rest = rows(replace(seen, at=now() - timedelta(hours=1)))
    assert well([*queues, rest]) == 0
    assert "has not been able to look" in rest


def test_the_hour_may_grow_while_the_page_is_rendered(seen, monkeypatch):
    snapshot = Snapshot(seen, {one.name: one for one in figures([seen])}, [], None)
    poller = SnapshotPoller(lambda: snapshot)
    poller._latest = snapshot
    poller.hour.extend([snapshot, snapshot])

    def at(one):
        poller.hour.append(one)
        return one.sample.at

    monkeypatch.setattr(Snapshot, "at", property(at))
    assert 'id="queue-' in inside(poller)
