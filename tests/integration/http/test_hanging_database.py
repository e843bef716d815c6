"""Whoever waits for an answer gets one while the database keeps its connections and is silent."""

import time

import falcon.asgi
import pytest
from falcon.testing import TestClient
from sqlalchemy import text

from services.portal.web import mount as portal
from services.portal.web import page as portal_page
from services.portal.web.api import Api
from services.portal.web.rendering import render
from shared.db.deadline import NoAnswerError, within
from shared.db.session import engine, transaction
from shared.http import mount as api
from shared.http.route import Answer, Route, Throttles
from shared.web.answers import DATABASE_AWAY, add_error_handlers
from tests.integration.arrange import lanes
from tests.integration.gate import Gate


@pytest.fixture
def gate(settings, configure):
    with Gate(settings.database_url) as made:
        configure(database_url=made.url)
        yield made


def api_site(_, app, threads):
    api.add_error_handlers(app)
    throttles = Throttles(*[lambda _: None] * 4)
    route = Route(
        method="GET",
        path="/page/",
        summary="A page",
        answers={},
        handler=lambda asked, _: Answer(200, {"one": asked.scalar(ONE)}),
    )
    api.mount(app, "", [route], threads, throttles)


def portal_site(config, app, threads):
    add_error_handlers(app, render)
    page = portal_page.Page("GET", "/page", "business", lambda _: pytest.fail("signed in"))
    portal.mount(app, [page], config, Api(config), threads)


ONE = text("SELECT 1")
SITES = {api_site: "database_unavailable", portal_site: DATABASE_AWAY}


@pytest.mark.parametrize("is_new", [True, False], ids=["new connection", "kept connection"])
@pytest.mark.parametrize("site", SITES)
def test_it_is_answered(site, is_new, gate, configure):
    config = configure(database_url=gate.url)
    app = falcon.asgi.App()
    with lanes() as threads:
        site(config, app, threads)
        browser = TestClient(app)
        ask = lambda: browser.simulate_get("/page", cookies={portal.SESSION: "x"})  # noqa: E731
        if not is_new:
            assert ask().status_code in (200, 303)
        gate.stall()
        # The one thread is free again after each.
        for answer in (ask(), ask()):
            assert (answer.status_code, SITES[site] in answer.text) == (503, True)
        gate.open()
        assert ask().status_code in (200, 303)


def test_what_waits_for_others_does_not_count(settings):
    with within(5.0), transaction() as asked:
        asked.execute(ONE)
        time.sleep(5.5)
        assert asked.scalar(ONE) == 1


def test_a_limit_in_another_takes_from_it(settings):
    rest = text("SELECT pg_sleep(30)")
    with within(5.0):
        for asked in (rest, ONE):
            with pytest.raises(NoAnswerError), within(30.0), engine().connect() as connection:
                connection.execute(asked)
    with within(30.0), engine().connect() as connection:
        assert connection.scalar(ONE) == 1
