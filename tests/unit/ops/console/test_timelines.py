"""Reports of incomplete searches."""

from contextlib import contextmanager, nullcontext
from types import SimpleNamespace

import pytest
import typer
from sqlalchemy.orm import Session

from services.ops.broker.hold import NOT_WHOLE, BusyError
from services.ops.cli.businesses import trail as command
from services.ops.console.app import _broker
from services.ops.console.pages.timelines import show_order
from services.ops.dead_letters import digest
from services.ops.monitoring.poller import SnapshotPoller
from services.ops.timelines import order as trail
from services.ops.timelines import requests, search
from shared.bus.broker.queue_counts import Count
from shared.bus.contract import topology
from shared.ids import new_id
from shared.web.results import PageError


def of_a_long_log(on_the_bus):
    """The trail of an order that the request log times out on, and that the bus has."""

    def order_trail(_session, _order_id, *, connection=None, **_):
        if connection is None or on_the_bus is None:
            raise BusyError(requests.NOT_WHOLE)
        return on_the_bus

    return order_trail


@pytest.fixture
def visit(monkeypatch):
    """A visit of the page of an unrecorded order."""
    opened = lambda _: nullcontext(object())  # noqa: E731
    monkeypatch.setattr("services.ops.console.app.open_connection", opened)
    broker = _broker(SimpleNamespace(amqp_url="amqp://"), SnapshotPoller(lambda: None))
    order_id = new_id()
    return SimpleNamespace(
        path={"order_id": str(order_id)},
        query={},
        asked_for=f"/orders/{order_id}",
        system=SimpleNamespace(broker=broker, digests=SimpleNamespace(browse=None)),
    )


@pytest.mark.parametrize("query", [{}, {"everywhere": "yes"}])
def test_an_order_is_searched_on_the_bus_if_the_request_log_is_too_long(monkeypatch, visit, query):
    visit.query = query
    found = object()
    monkeypatch.setattr(trail, "order_trail", of_a_long_log(found))
    shown = show_order(None, visit).about
    assert (shown["order"], shown["looked"]) == (found, True)
    monkeypatch.setattr(trail, "order_trail", of_a_long_log(None))
    with pytest.raises(PageError) as refused:
        show_order(None, visit)
    assert (refused.value.status, refused.value.sentence) == (503, requests.NOT_WHOLE)


@pytest.fixture
def told(monkeypatch):
    """The standard error of `fellow trail`."""
    said = []

    @contextmanager
    def database(_):
        yield Session()

    def say(sentence):
        said.append(sentence)

    monkeypatch.setattr("services.ops.cli.terminal.say", say)
    monkeypatch.setattr(command, "say", say)
    monkeypatch.setattr(command, "sign_in", lambda: None)
    monkeypatch.setattr(command, "database", database)
    return said


@pytest.mark.parametrize(
    ("are_all_requests", "is_whole", "sentences"),
    [
        (False, True, [requests.NOT_WHOLE]),
        (True, False, [NOT_WHOLE]),
        (False, False, [requests.NOT_WHOLE, NOT_WHOLE]),
    ],
)
def test_an_incomplete_search_is_reported_without_a_traceback(
    monkeypatch, told, are_all_requests, is_whole, sentences
):
    found = search.Results()
    found.are_all_requests, found.is_whole = are_all_requests, is_whole
    monkeypatch.setattr(search, "search", lambda *_, **__: found)
    monkeypatch.setattr(trail, "order_trail", of_a_long_log(None))
    with pytest.raises(typer.Exit) as ended:
        command.show(str(new_id()), bus=False)
    assert ended.value.exit_code == 1
    assert told == [*sentences, requests.NOT_WHOLE]


@pytest.mark.parametrize("ready", [0, 10_000])
def test_a_held_queue_is_not_digested(monkeypatch, ready):
    monkeypatch.setattr(digest.queue_counts, "of", lambda *_: Count(ready, 1))
    looks = []
    monkeypatch.setattr(digest.Digests, "read", lambda *_: looks.append(1))
    monkeypatch.setattr(digest, "locked", lambda *_: nullcontext(True))
    connection = SimpleNamespace(channel=lambda: nullcontext(object()))
    seen = digest.Digests(lambda: nullcontext(connection), str)
    assert seen.find(connection, topology.ORDERS_INTAKE, "m") is None
    assert looks == []
