"""What no route of ours answers is answered in the one shape too, and says what to do."""

import falcon.asgi
import pytest
from falcon import testing

from shared.http.mount import NOTHING_HERE, add_error_handlers


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
def test_a_path_with_nothing_there_says_how_paths_are_compared(client, path):
    found = client.simulate_post(path)
    assert (found.status_code, found.json) == (404, {"error": NOTHING_HERE, "code": "not_found"})


def test_a_method_that_is_not_taken_says_which_is(client):
    found = client.simulate_get("/api/v1/webhooks/orders")
    assert found.json == {
        "error": "This path takes POST, OPTIONS, and not GET.",
        "code": "method_not_allowed",
    }
    assert found.status_code == 405
