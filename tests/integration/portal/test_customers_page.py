"""The customer's page when many look, when it is not to be had, and what its link may do."""

import html
import re

import httpx
import pytest

from shared.db.models import EmailSender, Order, Suppression
from shared.ids import new_id
from shared.security import tracking
from shared.security.unsubscribe_tokens import unsubscribe_tokens
from tests.integration.arrange import get
from tests.integration.portal.conftest import running_portal
from tests.integration.portal.test_tracking import an_order, follow

A_MINUTE = 4
CARRIER = "198.51.100.7"
OURS = ("Order Fellow", 'href="/"')


@pytest.fixture(scope="module")
def ingress_settings():
    return {
        "TRUSTED_PROXIES": "1",
        "SIGN_IN_ATTEMPTS_PER_MINUTE": str(A_MINUTE),
        "TRACKING_VIEWS_PER_MINUTE": str(A_MINUTE),
        "WEB_CONCURRENCY": "1",
    }


def an_order_of(stage, language="", display_name="", reply_to="", **more):
    id_ = an_order(stage, **more)
    with stage.api.session() as session, session.begin():
        business = session.get_one(Order, id_).account_id
        chosen = {"language": language, "display_name": display_name, "reply_to": reply_to}
        session.add(EmailSender(account_id=business, **chosen))
    return id_


def is_for_customers(answer):
    assert not [each for each in OURS if each in answer.text], answer.text
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    assert "noindex" in answer.headers["X-Robots-Tag"]
    return True


def test_customers_behind_one_address_see_each_their_own(stage):
    tokens = [tracking.token_for(an_order(stage)) for _ in range(3 * A_MINUTE)]
    assert {follow(stage, token, CARRIER).status_code for token in tokens} == {200}


def test_who_looks_too_often_is_told_so_as_a_customer(stage):
    token = tracking.token_for(an_order_of(stage, "fr"))
    looks = [follow(stage, token) for _ in range(2 * A_MINUTE)]
    late = looks[-1]
    assert (looks[0].status_code, late.status_code) == (200, 429)
    assert is_for_customers(late)
    assert '<html lang="fr">' in late.text
    assert int(late.headers["Retry-After"]) > 0
    assert f"dans {late.headers['Retry-After']} secondes" in late.text
    # It is this link alone.
    assert follow(stage, tracking.token_for(an_order(stage))).status_code == 200


@pytest.mark.parametrize("path", ["x", "x/y"])
def test_a_link_that_leads_nowhere_is_explained_in_the_browsers_language(stage, path):
    french, other = (
        get(f"{stage.url}/track/{path}", headers=headers | {"X-Forwarded-For": "198.51.100.9"})
        for headers in (FRENCH, {"Accept-Language": "xx,*"})
    )
    assert (french.status_code, other.status_code) == (404, 404)
    assert '<html lang="fr">' in french.text
    assert '<html lang="en">' in other.text


def test_who_guesses_is_told_as_a_customer_and_keeps_nobody_out(stage):
    guesses = [follow(stage, "guess", "198.51.100.8") for _ in range(2 * A_MINUTE)]
    assert [answer.status_code for answer in (guesses[0], guesses[-1])] == [404, 429]
    assert is_for_customers(guesses[-1])
    token = tracking.token_for(an_order(stage))
    assert follow(stage, token, "198.51.100.8").status_code == 200


FRENCH = {"Accept-Language": "fr-CA,fr;q=0.9,en;q=0.8"}


def test_a_page_that_is_not_to_be_had_is_a_customers_too(stage, tmp_path):
    with running_portal(tmp_path, stage.api, PORTAL_API_URL="http://127.0.0.1:9") as away:
        answer = get(f"{away}/track/{tracking.token_for(new_id())}", headers=FRENCH)
    assert answer.status_code == 503
    assert '<html lang="fr">' in answer.text
    assert int(answer.headers["Retry-After"]) > 0
    assert is_for_customers(answer)


@pytest.mark.parametrize("path", ["/track", "/track/", "/track/abc/def", "/track/a.b/c?d=e"])
def test_a_link_that_was_cut_or_grown_leads_to_a_customers_page(stage, path):
    answer = get(stage.url + path)
    assert answer.status_code == 404
    assert is_for_customers(answer)
    assert "leads to no order" in answer.text


def test_a_program_that_looks_at_links_is_answered(stage):
    token = tracking.token_for(an_order(stage))
    answer = httpx.head(f"{stage.url}/track/{token}")
    assert (answer.status_code, answer.text) == (200, "")


def test_the_page_says_how_far_it_is_and_whom_to_ask(stage):
    id_ = an_order_of(stage, display_name="Kettles <i>", reply_to="help@kettle.example")
    shown = follow(stage, tracking.token_for(id_)).text
    assert "Kettles &lt;i&gt;" in shown
    assert 'href="mailto:help@kettle.example">help@kettle.example</a>' in shown
    way = re.search(r'<ol class="way">(.*?)</ol>', shown, re.S)[1]
    assert re.findall(r"<li([^>]*)>([^<]+)</li>", way) == [
        (' class="done"', "pending"),
        (' class="done" aria-current="step"', "in transit"),
        ("", "out for delivery"),
        ("", "delivered"),
    ]
    gone = an_order(stage)
    with stage.api.session() as session, session.begin():
        session.get_one(Order, gone).tracking_status = "CANCELLED"
    shown = follow(stage, tracking.token_for(gone)).text
    assert '<ol class="way">' not in shown
    assert "mailto:" not in shown


def ending(stage, token):
    """Where the page of an order leads to, to end its emails."""
    shown = follow(stage, token).text
    found = re.search(r'href="([^"]+/unsubscribe/[^"]+)" rel="noreferrer"', shown)
    return html.unescape(found[1]).partition("/api/v1")[2]


def left(stage, id_):
    """What the customer of an order has left, of its business: orders, and None for all."""
    with stage.api.session() as session:
        business = session.get_one(Order, id_).account_id
        found = session.query(Suppression).filter_by(account_id=business)
        return [row.order_id for row in found]


ONE_CLICK = {"List-Unsubscribe": "One-Click"}


@pytest.mark.parametrize("sent", [{"do": "order"}, ONE_CLICK])
def test_a_link_that_was_passed_on_ends_the_emails_of_its_order_alone(stage, sent):
    id_ = an_order(stage)
    path = ending(stage, tracking.token_for(id_))
    offered = re.findall(r'name="do" value="(\w+)"', stage.api.http.get(path).text)
    assert offered == ["order"]
    assert stage.api.http.post(path, data={"do": "all"}).status_code == 400
    assert left(stage, id_) == []
    answer = stage.api.http.post(path, data=sent)
    assert (answer.status_code, 'name="do"' in answer.text) == (200, False)
    assert left(stage, id_) == [id_]
    assert stage.api.http.post(path, data={"do": "back"}).status_code == 400
    assert left(stage, id_) == [id_]


def test_who_has_a_link_does_not_learn_what_else_its_customer_has_left(stage):
    id_ = an_order(stage)
    path = ending(stage, tracking.token_for(id_))
    stage.api.http.post(path, data={"do": "order"})
    of_one = stage.api.http.get(path).text
    with stage.api.session() as session:
        order = session.get_one(Order, id_)
        token = unsubscribe_tokens().make(order.account_id, id_, order.customer_email)
    # What the email's own link can is as it was.
    for do in ("back", "all"):
        answer = stage.api.http.post(f"/unsubscribe/?token={token}", data={"do": do})
        assert answer.status_code == 200
    assert left(stage, id_) == [None]
    assert stage.api.http.get(path).text == of_one
    assert stage.api.http.post(path, data={"do": "back"}).status_code == 400
    assert left(stage, id_) == [None]


def test_a_link_that_was_ended_ends_no_emails(stage):
    id_, other = an_order(stage), an_order(stage, is_test=True)
    path = ending(stage, tracking.token_for(id_))
    with stage.api.session() as session, session.begin():
        session.get_one(Order, id_).tracking_link = 1
    for one in (
        path,
        "/unsubscribe/?link=nonsense",
        f"/unsubscribe/?link={tracking.token_for(new_id())}",
        f"/unsubscribe/?link={tracking.token_for(other)}",
    ):
        assert stage.api.http.get(one).status_code == 404
        assert stage.api.http.post(one, data={"do": "order"}).status_code == 404
    assert left(stage, id_) == []
    assert stage.api.http.get(ending(stage, tracking.token_for(id_, 1))).status_code == 200
