"""To leave while the database does not answer: who opens the link of an email is told in words."""

import falcon.asgi
import pytest
from falcon.testing import TestClient

from services.notifier.suppression.page import UnsubscribePage
from shared.http.mount import add_error_handlers
from shared.ids import new_id
from shared.security import tracking
from shared.security.unsubscribe_tokens import unsubscribe_tokens
from stack.servers.ports import Port
from tests.integration.arrange import lanes


@pytest.fixture
def client(configure):
    """The page alone, whose database is at a port where nobody listens."""
    app = falcon.asgi.App()
    add_error_handlers(app)
    with Port() as port, lanes() as made:
        configure(database_url=f"postgresql+psycopg2://nobody@127.0.0.1:{port}/nothing")
        app.add_route("/unsubscribe", UnsubscribePage(made.ordinary, lambda _: None))
        yield TestClient(app)


@pytest.mark.parametrize("kind", ["token", "link"])
def test_a_database_that_is_away_is_said_on_a_page(client, kind):
    if kind == "token":
        given = unsubscribe_tokens().make(new_id(), new_id(), "zoe@shop.example")
    else:
        given = tracking.token_for(new_id())
    french = client.simulate_get(
        "/unsubscribe", params={kind: given}, headers={"Accept-Language": "fr"}
    )
    assert '<html lang="fr">' in french.text
    asked = client.simulate_get("/unsubscribe", params={kind: given})
    done = client.simulate_post(
        "/unsubscribe",
        params={kind: given},
        body="List-Unsubscribe=One-Click",
        headers={"Content-Type": "application/x-www-form-urlencoded"},
    )
    for answer in (asked, done):
        assert answer.status_code == 503
        assert int(answer.headers["Retry-After"]) > 0
        assert answer.headers["Content-Type"].startswith("text/html")
        assert "This cannot be done at the moment" in answer.text
        assert "You get no more emails" not in answer.text


def test_a_link_that_is_none_is_said_without_a_database(client):
    answer = client.simulate_get("/unsubscribe", params={"link": "nonsense"})
    assert (answer.status_code, "This link does not work" in answer.text) == (404, True)
    french = client.simulate_get("/unsubscribe", headers={"Accept-Language": "fr-FR"})
    assert (french.status_code, '<html lang="fr">' in french.text) == (404, True)
