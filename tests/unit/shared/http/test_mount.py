"""Behaviour of all routes of the API."""

from datetime import UTC, datetime
from uuid import uuid4

import falcon.asgi
import pytest
from falcon.testing import TestClient

from services.ingress.app import ROUTES
from shared.http.errors import too_many_requests
from shared.http.lanes import Lane, Lanes
from shared.http.mount import add_error_handlers, mount
from shared.http.route import Throttles
from shared.security import tokens

CHANGES = [route for route in ROUTES if route.bearer and route.method != "GET"]


@pytest.fixture
def lanes():
    made = Lanes(Lane("ordinary", 1, 1), Lane("passwords", 1, 1))
    yield made
    made.shutdown()


def unthrottled(lanes):
    app = falcon.asgi.App()
    add_error_handlers(app)
    mount(app, "", ROUTES, lanes, Throttles(*[lambda _: None] * 4))
    return TestClient(app)


def path_of(route):
    return route.path.rstrip("/").replace("{", "").replace("}", "")


def test_refusals_are_not_cacheable(lanes):
    """A 404, 405 or 414 is cacheable by default (RFC 9110, 15.1)."""
    browser = unthrottled(lanes)
    asked = [("GET", "/nowhere"), ("PUT", "/users/auth/login")]
    asked += [(r.method, path_of(r)) for r in ROUTES if r.bearer or r.body is not None]
    answers = [browser.simulate_request(*where, body="no JSON") for where in asked]
    assert {answer.status_code for answer in answers} == {400, 401, 404, 405}
    assert {answer.headers.get("cache-control") for answer in answers} == {"no-store"}


def test_changes_of_a_session_are_counted_by_route(lanes):
    """Each costs rows, events or an email; routes are counted separately."""
    counted = []

    def count(key):
        counted.append(key)
        return too_many_requests(7)

    app = falcon.asgi.App()
    add_error_handlers(app)
    nobody = lambda _: pytest.fail("it is the account's")  # noqa: E731
    mount(app, "", ROUTES, lanes, Throttles(nobody, session=count, account=nobody, link=nobody))
    browser, session_id = TestClient(app), uuid4()
    access = tokens.make(uuid4(), "access", datetime.now(UTC), session_id).text
    headers = {"Authorization": f"Bearer {access}"}
    for route in CHANGES:
        answer = browser.simulate_request(
            route.method, path_of(route), headers=headers, body="no JSON"
        )
        # Before the body is read.
        assert (answer.status_code, answer.json["code"]) == (429, "rate_limited"), route.path
        assert answer.headers["retry-after"] == "7"
    assert len(set(counted)) == len(counted) == len(CHANGES) > 20
    # A stolen, ended session does not use up the limits of the owner's others.
    assert all(key.endswith(str(session_id)) for key in counted)
