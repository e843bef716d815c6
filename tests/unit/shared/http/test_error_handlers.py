"""Errors of Falcon, and exceptions of handlers, as API errors and as pages."""

import falcon.asgi
import pytest
from falcon import testing
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from shared.http.mount import NOTHING_HERE, add_error_handlers
from shared.web import answers


class Order:
    async def on_post(self, req, resp):
        pass


@pytest.fixture
def client():
    app = falcon.asgi.App()
    add_error_handlers(app)
    app.add_route("/api/v1/webhooks/orders", Order())
    return testing.TestClient(app)


@pytest.mark.parametrize("path", ["/", "/api/v1/webhooks//orders", "/api/v1/Webhooks/orders"])
def test_a_404_explains_how_paths_are_compared(client, path):
    found = client.simulate_post(path)
    assert (found.status_code, found.json) == (404, {"error": NOTHING_HERE, "code": "not_found"})


def test_a_405_names_the_allowed_methods(client):
    found = client.simulate_get("/api/v1/webhooks/orders")
    assert found.json == {
        "error": "This path takes POST, OPTIONS, and not GET.",
        "code": "method_not_allowed",
    }
    assert found.status_code == 405


@pytest.mark.parametrize(
    "add", [add_error_handlers, lambda app: answers.add_error_handlers(app, page)]
)
@pytest.mark.parametrize(
    ("error", "status", "retry_after"),
    [
        (OperationalError("SELECT 1", None, Exception("refused")), 503, "5"),
        (PoolTimeoutError(), 503, "1"),
        (ZeroDivisionError(), 500, None),
    ],
)
def test_a_503_says_when_to_retry(add, error, status, retry_after):
    class Failing:
        async def on_get(self, req, resp):
            raise error

    app = falcon.asgi.App()
    add(app)
    app.add_route("/", Failing())
    found = testing.TestClient(app).simulate_get("/")
    assert (found.status_code, found.headers.get("Retry-After")) == (status, retry_after)


def page(template, about):
    return about["sentence"]
