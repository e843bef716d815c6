"""The portal's client of the API, and its errors as pages show them."""

import falcon.asgi
import httpx
import pytest
from falcon import testing

from services.portal.web.api import OUTCOME_UNKNOWN, UNAVAILABLE, Api
from shared.config.settings import Settings
from shared.web.answers import add_error_handlers
from shared.web.results import PageError


class Shown:
    """A page that fails."""

    def __init__(self, error):
        self._error = error

    async def on_get(self, _, __):
        raise self._error


def page_of(error):
    app = falcon.asgi.App()
    add_error_handlers(app, lambda _, about: about["sentence"])
    app.add_route("/", Shown(error))
    return testing.TestClient(app).simulate_get("/")


def refused_by(fault, call):
    api = Api(Settings())
    api._http = httpx.Client(base_url="http://api.test", transport=httpx.MockTransport(fault))
    with pytest.raises(PageError) as refused:
        call(api.for_browser("192.0.2.1", ""))
    api.close()
    return refused.value


def unreachable(request):
    raise httpx.ConnectError("refused", request=request)


def silent(request):
    raise httpx.ReadTimeout("late", request=request)


def no_json(_):
    return httpx.Response(502, text="<html>")


@pytest.mark.parametrize(
    ("fault", "method", "sentence"),
    [
        (unreachable, "get", UNAVAILABLE),
        (silent, "get", UNAVAILABLE),
        (no_json, "get", UNAVAILABLE),
        (unreachable, "post", UNAVAILABLE),
        (silent, "post", OUTCOME_UNKNOWN),
        (no_json, "post", OUTCOME_UNKNOWN),
    ],
)
def test_a_page_without_the_api_may_be_repeated_if_nothing_was_done(fault, method, sentence):
    page = page_of(refused_by(fault, lambda api: getattr(api, method)("/orders/")))
    assert (page.status_code, page.text) == (503, sentence)
    assert page.headers.get("Retry-After") == ("5" if sentence == UNAVAILABLE else None)


def test_a_renewal_may_be_repeated():
    page = page_of(refused_by(silent, lambda api: api.renewed("token", "attempt")))
    assert (page.text, page.headers.get("Retry-After")) == (UNAVAILABLE, "5")
