"""Pages that look into queues: a queue that hangs is no database that is away."""

import time
from contextlib import closing, contextmanager, suppress

import falcon.asgi
import httpx
import pytest
from falcon.testing import TestClient
from kombu import Connection
from sqlalchemy import text

from services.ops.broker import hold as holding
from services.ops.console.app import Console
from services.ops.console.web.mount import mount
from services.ops.console.web.page import Page, View
from services.ops.console.web.rendering import render
from services.ops.monitoring.snapshot import SnapshotCollector
from shared.bus.contract import topology
from shared.db.session import engine, transaction
from shared.http import mount as api
from shared.http.errors import OVERLOADED
from shared.http.route import Answer, Route, Throttles
from shared.ids import new_id
from shared.web.answers import DATABASE_AWAY, USED_UP, add_error_handlers
from tests.integration.arrange import PATIENCE, account, an_order, lanes, publish_raw, until
from tests.integration.ops.cli.test_cli import fellow
from tests.integration.ops.console.pages.test_masked_pages import signed_in
from tests.integration.ops.console.running import running_console
from tests.integration.relay.test_stuck import stuck

RUNG = topology.RETRY_DELAYS[1]
DEAD = topology.ORDERS_INTAKE.dead
IMPATIENT = "-c idle_in_transaction_session_timeout={}s"


@pytest.fixture
def service():
    return "ops"


@pytest.fixture
def order(db):
    business, id_ = account(db, status="approved"), new_id()
    db.add(an_order(business.id, id=id_))
    db.commit()
    return str(id_), str(business.id)


def with_options(url, options):
    mark = "&" if "?" in url else "?"
    return f"{url}{mark}options={options.replace(' ', '%20').replace('=', '%3D')}"


@contextmanager
def console(settings, amqp_url, database_url, tmp_path, **more):
    with running_console(tmp_path, amqp_url, database_url, **more) as (url, _):
        yield url


def pages(order):
    id_, business = order
    return [
        f"/orders/{id_}",
        f"/accounts/{business}",
        "/ladder",
        f"/dead/{topology.ORDERS_INTAKE.name}",
        f"/dead/{topology.ORDERS_INTAKE.name}/reasons",
        "/find?q=zoe@shop.example",
    ]


@pytest.mark.parametrize("queue", [RUNG.name, DEAD])
def test_a_queue_that_hangs_is_not_said_of_the_database(
    queue, settings, amqp_url, database_url, tmp_path, db, order, broker
):
    """Its server ends a transaction that waits for longer than a password takes."""
    impatient = with_options(database_url, IMPATIENT.format(8))
    with (
        console(settings, amqp_url, impatient, tmp_path) as url,
        signed_in(url, db, "act") as client,
    ):
        client.timeout = httpx.Timeout(PATIENCE)
        with stuck(broker, amqp_url, queue):
            for page in pages(order):
                answer = client.get(page)
                assert DATABASE_AWAY not in answer.text, page
                is_shown = answer.status_code in (200, 303)
                assert is_shown or f"{queue} does not answer" in answer.text, page


def test_a_page_that_looks_into_queues_needs_one_connection_at_a_time(
    settings, amqp_url, database_url, tmp_path, db, order
):
    one = {"DATABASE_POOL_SIZE": "1"}
    with (
        console(settings, amqp_url, database_url, tmp_path, **one) as url,
        signed_in(url, db, "act") as client,
    ):
        for page in pages(order):
            assert client.get(page).status_code in (200, 303), page


def test_a_trail_by_the_command_line_lets_go_of_the_database(
    settings, configure, amqp_url, db, order, broker
):
    impatient = configure(database_url=with_options(settings.database_url, IMPATIENT.format(1)))
    id_, business = order
    with stuck(broker, amqp_url, DEAD):
        for command in (["trail", id_], ["account", "show", business]):
            code, out, said = fellow(impatient, *command)
            assert f"{DEAD} does not answer" in said, (code, out)
            assert code == 1


@contextmanager
def used_up():
    """Every connection that this process may have."""
    taken = []
    with suppress(Exception):
        while True:
            taken.append(engine().connect())
    try:
        yield
    finally:
        for connection in taken:
            connection.close()


def test_connections_that_are_used_up_are_no_database_that_is_away(configure, settings):
    config = configure(database_pool_size="2", database_connect_timeout="1")
    app = falcon.asgi.App()
    with lanes() as threads:
        add_error_handlers(app, render)
        show = lambda session, _: View(str(session.connection()), {})  # noqa: E731
        page = Page("GET", "/page", "nobody", show)
        mount(app, [page], Console(config).system, threads)
        public = falcon.asgi.App()
        api.add_error_handlers(public)
        route = Route(
            method="GET",
            path="/page/",
            handler=lambda session, _: Answer(200 if session.connection() else 500),
            summary="x",
            answers={200: None},
        )
        api.mount(public, "", [route], threads, Throttles(*[lambda _: None] * 4))
        with used_up():
            shown = TestClient(app).simulate_get("/page")
            answered = TestClient(public).simulate_get("/page")
            with closing(SnapshotCollector(config)) as collector:
                snapshot = collector.collect()
    assert (shown.status_code, DATABASE_AWAY in shown.text) == (503, False)
    assert USED_UP in shown.text
    assert (answered.status_code, answered.json["code"]) == OVERLOADED[:2]
    assert snapshot.sample.database_error is None
    assert not [trouble for trouble in snapshot.troubles if trouble.about == "database"]
    with transaction() as session:
        session.connection()


def test_a_page_that_takes_too_long_is_no_database_that_is_away(settings):
    app = falcon.asgi.App()
    with lanes() as threads:
        add_error_handlers(app, render)
        slow = lambda session, _: View(str(session.scalar(text("SELECT pg_sleep(60)"))), {})  # noqa: E731
        mount(
            app,
            [Page("GET", "/page", "nobody", slow, seconds=0.5)],
            Console(settings).system,
            threads,
        )
        shown = TestClient(app).simulate_get("/page")
    assert (shown.status_code, DATABASE_AWAY in shown.text) == (503, False)
    assert "has not done this in 0.5 s. Nothing was changed. Narrow it down" in shown.text


def test_a_look_at_what_expires_meanwhile_ends(settings, amqp_url, monkeypatch):
    """They go on when they are returned, and are not waited for."""
    monkeypatch.setattr(holding, "RETURN_SECONDS", 3_600.0)
    publish_raw(amqp_url, RUNG.name, "orders.intake", b"x", delivery_mode=2)
    with Connection(amqp_url) as connection:
        until(lambda: holding.count(connection, RUNG.name), "it waits there")
        with holding.hold(connection, RUNG.name) as held:
            assert len(held.take(10)) == 1
            time.sleep(RUNG.seconds + 1)
        until(lambda: not holding.count(connection, RUNG.name), "it has gone on")


def test_what_is_not_settled_is_back_when_a_look_ends(settings, amqp_url):
    publish_raw(amqp_url, "dead", "orders.intake", b"x", delivery_mode=2)
    with Connection(amqp_url) as connection:
        until(lambda: holding.count(connection, DEAD), "it lies there")
        for _ in range(50):
            with holding.hold(connection, DEAD) as held:
                assert len(held.take(10)) == 1
            assert holding.count(connection, DEAD) == 1
