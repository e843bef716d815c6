"""Cookies, as a browser takes them."""

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


def test_one_that_is_to_be_forgotten_ended_long_ago(client):
    """A browser that kept an empty value would send it, and forms would be made for that."""
    (put,) = client.simulate_put("/").cookies.values()
    (gone,) = client.simulate_delete("/").cookies.values()
    assert (put.name, put.path, put.secure) == (gone.name, gone.path, gone.secure)
    assert put.expires is None
    assert gone.expires.year == 1970


def test_what_the_version_before_left_is_nothing(client):
    (put,) = client.simulate_put("/").cookies.values()
    kept = client.simulate_get("/", headers={"Cookie": f"{put.name}=a-token"})
    left = client.simulate_get("/", headers={"Cookie": f'{put.name}=""'})
    assert (kept.json, left.json) == ("a-token", "")
