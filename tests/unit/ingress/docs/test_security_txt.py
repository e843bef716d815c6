"""security.txt as RFC 9116 has it."""

from datetime import UTC, datetime, timedelta

import falcon.asgi
import pytest
from falcon import testing

from services.ingress.docs import security_txt
from shared.config.environment import ConfigurationError
from shared.config.loading import load


def served(**variables):
    app = falcon.asgi.App()
    config = load({"PUBLIC_URL": "https://fellow.example/", **variables})
    app.add_route(security_txt.PATH, security_txt.SecurityTxt(config))
    return testing.TestClient(app).simulate_get("/.well-known/security.txt")


def test_it_has_a_contact_and_an_expiry():
    answer = served(SECURITY_CONTACT="mailto:security@fellow.example")
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    fields = dict(line.split(": ", 1) for line in answer.text.splitlines())
    assert fields["Contact"] == "mailto:security@fellow.example"
    assert fields["Canonical"] == "https://fellow.example/.well-known/security.txt"
    expires = datetime.fromisoformat(fields["Expires"])
    assert timedelta(days=30) < expires - datetime.now(UTC) < timedelta(days=365)


@pytest.mark.parametrize("contact", ["security@fellow.example", "mailto:a@b\nX: y", "ftp://x"])
def test_a_contact_that_is_no_uri_is_refused_at_start(contact):
    with pytest.raises(ConfigurationError, match="SECURITY_CONTACT"):
        load({"SECURITY_CONTACT": contact})
