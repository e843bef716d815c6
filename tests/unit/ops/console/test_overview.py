"""What the overview says is well."""

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from services.ops.console.pages.overview import inside
from services.ops.monitoring.alerts import troubles
from services.ops.monitoring.poller import Lookout
from services.ops.monitoring.queue_stats import figures
from services.ops.monitoring.snapshot import Look
from shared.bus.contract import topology
from tests.unit.ops.monitoring.samples import everybody, sample


def rows(seen):
    """The dots of a look's page: those of the queues, and those of the services and servers."""
    look = Look(seen, {one.name: one for one in figures([seen])}, troubles([seen]), None)
    lookout = Lookout(lambda: look)
    lookout._latest = look
    html = inside(lookout)
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


def test_what_is_seen_to_be_well_is_said_to_be(seen):
    assert well(rows(seen)[0]) == len(topology.WORK_QUEUES)


def test_of_a_queue_that_nobody_has_seen_it_is_not_said_that_it_is_well(seen):
    for refused in (False, True):
        unseen = replace(seen, counts={}, broker_error="away", is_refused=refused)
        assert well(rows(unseen)[0]) == 0


def test_nothing_is_said_to_be_well_by_an_old_look(seen):
    queues, rest = rows(replace(seen, at=now() - timedelta(hours=1)))
    assert well([*queues, rest]) == 0
    assert "has not been able to look" in rest
