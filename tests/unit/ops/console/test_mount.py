"""What a page's answer carries."""

from types import SimpleNamespace

import falcon.asgi
import pytest

from services.ops.console.signing_in.sign_in import _ours
from services.ops.console.web.mount import SESSION, _set_cookie
from shared.config.settings import Settings


@pytest.mark.parametrize(
    ("environment", "secure", "name"),
    [("production", True, f"__Host-{SESSION}"), ("development", False, SESSION)],
)
def test_the_sessions_cookie_is_for_tls_alone_in_production(environment, secure, name):
    resp = falcon.asgi.Response()
    _set_cookie(resp, SESSION, "x", SimpleNamespace(config=Settings(environment=environment)))
    cookie = resp._cookies[name]
    assert bool(cookie["secure"]) is secure
    assert cookie["httponly"]
    assert cookie["samesite"] == "Strict"


@pytest.mark.parametrize("path", ["/", "/orders/7?x=//y", "/dead/orders.intake"])
def test_a_path_of_ours(path):
    assert _ours(path) == path


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
        # Browsers leave out what is too many of slashes (WHATWG, "URL", 4.4).
        "///evil.example",
        "////evil.example/x",
        "/\\/evil.example",
        "/\\\\evil.example",
    ],
)
def test_a_path_of_somebody_elses(path):
    assert _ours(path) == "/"
