"""What the portal says of a business's secret, requests and emails is so."""

import re
from datetime import UTC, datetime, timedelta
from html import unescape
from typing import get_args

import pytest
from sqlalchemy import select, update

from services.ingress.platforms.order_events import Note
from services.portal.pages.requests import NOTES
from shared.db.models import (
    Account,
    EmailDelivery,
    OrderConflict,
    OrderStatusHistory,
    WaitingUpdate,
    WebhookRequest,
    WebhookSecret,
)
from shared.ids import new_id
from tests.integration.arrange import an_order
from tests.integration.portal.test_walk import approved, secret_of


@pytest.fixture(scope="module")
def business(stage):
    """Its browser, and its id."""
    browser, email = approved(stage)
    with stage.api.session() as session:
        return browser, session.scalar(select(Account.id).where(Account.email == email))


def keep(stage, *rows):
    with stage.api.session() as session, session.begin():
        session.add_all(rows)


def a_request(business, *, order_id=None, **more):
    return WebhookRequest(
        account_id=business,
        accepted=True,
        code="accepted",
        event_type="order.created",
        event_id=new_id(),
        order_id=order_id,
        latency_us=1000,
        client_address="203.0.113.7",
        **{"at": datetime.now(UTC), "scheme": "x-api-key"} | more,
    )


def page_of(browser, request):
    browser.get("/requests")
    links = re.findall(r'href="(/requests/2[^"]+)"', browser.page)
    shown = [page for page in map(browser.get, links) if str(request.event_id) in page]
    assert len(shown) == 1
    return shown[0]


@pytest.mark.parametrize(
    ("number", "is_kept", "said", "not_said"),
    [
        ("A-1001", True, "Its order number was used before", "idempotency key was"),
        # Of many that say otherwise than the first, the event id alone is kept.
        ("A-1002", False, "Its order number was used before", "idempotency key was"),
        (None, True, "Its idempotency key was used before", "order number was"),
        (None, False, "Its idempotency key was used before", "order number was"),
    ],
)
def test_a_conflict_is_said_to_be_of_what_it_is(stage, business, number, is_kept, said, not_said):
    browser, account_id = business
    order = an_order(account_id, order_number=number)
    # Whoever has a number is known by it, whatever its key.
    request = a_request(account_id, order_id=order.id, idempotency_key=f"k-{order.id}")
    conflict = OrderConflict(
        event_id=request.event_id,
        order_id=order.id,
        account_id=account_id,
        event={"order_number": number} if is_kept else None,
        at=request.at,
    )
    keep(stage, order, request, conflict)
    page = page_of(browser, request)
    assert said in page
    assert not_said not in page
    assert f"<dt>Order number</dt><dd>{number or '–'}</dd>" in page


@pytest.mark.parametrize("note", get_args(Note))
def test_why_nothing_is_recorded_of_a_delivery_is_said_in_words(stage, business, note):
    browser, account_id = business
    request = a_request(account_id, note=note)
    keep(stage, request)
    page = page_of(browser, request)
    assert NOTES[note].replace("'", "&#39;") in page


def test_why_a_shops_delivery_was_refused_is_said_on_its_page(stage, business):
    """WooCommerce and Shopify show no answer."""
    browser, account_id = business
    request = a_request(account_id, scheme="woocommerce", fault="`status` <must> be text.")
    request.accepted, request.code = False, "invalid_body"
    keep(stage, request)
    page = page_of(browser, request)
    assert "<code>status</code> &lt;must&gt; be text." in page
    assert "writes into that member" in page


@pytest.mark.parametrize(("scheme", "can_send"), [("x-api-key", True), ("woocommerce", False)])
def test_who_sent_what_is_given_up_is_advised_what_it_can_do(stage, business, scheme, can_send):
    browser, account_id = business
    request = a_request(account_id, order_id=new_id(), scheme=scheme)
    update = WaitingUpdate(
        event_id=request.event_id,
        account_id=account_id,
        order_id=request.order_id,
        since=request.at,
        given_up_at=request.at,
    )
    keep(stage, request, update)
    page = page_of(browser, request)
    assert ("send the order first" in page) == can_send
    assert ("webhook for new orders (Order created)" in page) != can_send


@pytest.mark.parametrize("note", ["not_placed", "no_change", "no_email_address", None])
@pytest.mark.parametrize("is_recorded", [False, True])
def test_a_request_leads_to_its_order_where_there_is_one(stage, business, note, is_recorded):
    """One that was just accepted may be on its way, so it does as well."""
    browser, account_id = business
    order = an_order(account_id, order_number="A-7")
    id_ = order.id
    number = "A-7" if note else None
    noted = {"note": note, "order_number": number}
    request = a_request(account_id, order_id=id_, scheme="woocommerce", **noted)
    keep(stage, request, *([order] if is_recorded else []))
    link = f'href="/orders/{id_}"'
    page = page_of(browser, request)
    assert (link in page) == (is_recorded or note is None)
    has_number = is_recorded or note is not None
    assert ("<dt>Order number</dt><dd>A-7</dd>" in page) == has_number
    for query in (f"note={note}", "order_number=A-7") if note else ():
        assert str(request.event_id) in browser.get(f"/requests?{query}")


def test_or_to_the_id_that_it_has_from_an_earlier_version(stage, business):
    browser, account_id = business
    order = an_order(account_id, order_number="A-7")
    id_, at = order.id, datetime.now(UTC)
    request = a_request(account_id, order_id=new_id(), scheme="woocommerce")
    moved = OrderStatusHistory(
        event_id=request.event_id, order_id=id_, tracking_status="IN_TRANSIT", at=at, applied=True
    )
    keep(stage, order, request, moved)
    page = page_of(browser, request)
    assert f'href="/orders/{id_}"' in page
    assert "<dt>Order number</dt><dd>A-7</dd>" in page


def test_an_email_that_was_not_sent_is_not_said_to_have_been(stage, business):
    browser, account_id = business
    order = an_order(account_id, order_number="A-9")
    keep(stage, order, a_request(account_id, order_id=order.id))
    assert "no email yet" in browser.get("/")
    assert "customers are told" not in browser.page
    keep(
        stage,
        EmailDelivery(
            fact_id=new_id(),
            subject_id=str(order.id),
            recipient="zoe@shop.example",
            template="order_received",
            message_id="1@x",
            state="suppressed",
        ),
    )
    assert "its newest email suppressed" in browser.get("/")
    assert "customers are told" not in browser.page


def test_who_has_no_secret_that_works_is_not_said_to_be_live(stage, business):
    browser, account_id = business
    keep(stage, an_order(account_id), a_request(account_id))
    assert "You have no webhook secret that works." in browser.get("/kyc")
    assert "is ready" not in browser.page
    secret_of(browser)
    assert "Your webhook secret is ready" in browser.get("/kyc")
    assert "Until you are live" not in browser.get("/")
    for change in ({"expires_at": datetime.now(UTC) - timedelta(days=1)}, {"state": "revoked"}):
        with stage.api.session() as session, session.begin():
            mine = WebhookSecret.account_id == account_id
            session.execute(update(WebhookSecret).where(mine).values(change))
        page = browser.get("/")
        assert "You are live" not in page
        assert "you have no valid secret" in page
        assert "is ready" not in browser.get("/kyc")


def test_what_is_accepted_and_not_recorded_is_no_first_order(stage):
    browser, email = approved(stage)
    account_id = id_of(stage, email)
    tried = a_request(account_id, order_id=new_id(), scheme="shopify", note="test")
    keep(stage, tried)
    page = browser.get("/first-request?after=")
    assert NOTES["test"] in unescape(page)
    assert "every 2s" in page
    assert f"/orders/{tried.order_id}" not in page
    keep(stage, a_request(account_id, order_id=new_id(), at=tried.at - timedelta(seconds=1)))
    assert "A request was accepted" in browser.get("/first-request/state?after=")
    assert "every 2s" not in browser.page


def test_the_test_orders(stage):
    """They are a step on the way and a list of their own; nothing that is live is among them."""
    browser, email = approved(stage)
    account_id = id_of(stage, email)
    assert "Try it with a test order" in browser.get("/")
    browser.get("/orders?mode=test")
    browser.send("/orders/tests")
    assert "Have a test order made?" in browser.page
    browser.send("/orders/tests")
    assert f"its email to {email}" in browser.page
    test = an_order(account_id, is_test=True, order_number="T-1")
    keep(stage, test)
    assert "4 of 5 steps" in browser.get("/")
    assert "T-1" in browser.get("/orders?mode=test")
    assert "never to the customer that it names" in browser.get(f"/orders/{test.id}")
    assert "T-1" not in browser.get("/orders")
    live = an_order(account_id, order_number="L-1")
    keep(stage, live)
    assert "Until you are live" not in browser.get("/")
    assert "A test order:" not in browser.get(f"/orders/{live.id}")
    browser.get("/orders?mode=test")
    browser.send("/orders/tests/clear")
    assert "Remove your test orders?" in browser.page
    browser.send("/orders/tests/clear")
    assert "Removed: 1 test orders." in browser.page
    assert "No test order matches." in browser.page
    assert "L-1" in browser.get("/orders")


def id_of(stage, email):
    with stage.api.session() as session:
        return session.scalar(select(Account.id).where(Account.email == email))
