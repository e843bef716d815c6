"""Cookies as browsers parse them."""

import falcon.asgi
import pytest
from falcon.testing import TestClient

from shared.config.settings import Settings
from shared.web import cookies

NAME = "session"


@pytest.fixture(params=["development", "production"])
def client(request):
    config = Settings(environment=request.param)

    class Page:
        async def on_get(self, req, resp):
            resp.media = cookies.get(req, NAME, config)

        async def on_put(self, _, resp):
            cookies.put(resp, NAME, "a-token", config)

        async def on_delete(self, _, resp):
            cookies.forget(resp, NAME, config)

    app = falcon.asgi.App()
    app.add_route("/", Page())
    return TestClient(app)


def test_a_deleted_cookie_has_expired(client):
    """A browser that kept an empty value would send it, and forms would be bound to it."""
    (put,) = client.simulate_put("/").cookies.values()
    (gone,) = client.simulate_delete("/").cookies.values()
    assert (put.name, put.path, put.secure) == (gone.name, gone.path, gone.secure)
    assert put.expires is None
    assert gone.expires.year == 1970


def test_a_cookie_deleted_by_the_previous_version_is_empty(client):
    (put,) = client.simulate_put("/").cookies.values()
    kept = client.simulate_get("/", headers={"Cookie": f"{put.name}=a-token"})
    left = client.simulate_get("/", headers={"Cookie": f'{put.name}=""'})
    assert (kept.json, left.json) == ("a-token", "")
