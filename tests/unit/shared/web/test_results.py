"""Attributes of responses, and redirect paths."""

import falcon.asgi
import pytest

from shared.config.settings import Settings
from shared.web import cookies
from shared.web.results import own_path


@pytest.mark.parametrize(
    ("environment", "secure", "name"),
    [("production", True, "__Host-session"), ("development", False, "session")],
)
def test_the_session_cookie_is_secure_in_production(environment, secure, name):
    resp = falcon.asgi.Response()
    cookies.put(resp, "session", "x", Settings(environment=environment))
    cookie = resp._cookies[name]
    assert bool(cookie["secure"]) is secure
    assert cookie["httponly"]
    assert cookie["samesite"] == "Strict"


@pytest.mark.parametrize("path", ["/", "/orders/7?x=//y", "/dead/orders.intake"])
def test_a_path_of_this_site(path):
    assert own_path(path) == path


@pytest.mark.parametrize(
    "path",
    [
        "",
        "x",
        "//evil.example",
        "/\\evil.example",
        "https://evil.example",
        "/a\nb",
        "/\t/b",
        # Browsers drop surplus slashes (WHATWG, "URL", 4.4).
        "///evil.example",
        "////evil.example/x",
        "/\\/evil.example",
        "/\\\\evil.example",
    ],
)
def test_a_path_of_another_site_becomes_the_first_page(path):
    assert own_path(path) == "/"
