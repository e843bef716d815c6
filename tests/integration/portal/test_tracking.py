"""The customer's page: one order and nothing of a person, by a link."""

import html
import itertools
import re
from datetime import UTC, datetime

import pytest
from sqlalchemy import select, text

from shared.db.models import (
    Account,
    EmailSender,
    Order,
    OrderStatusHistory,
    Suppression,
    WebhookPolicy,
)
from shared.ids import new_id
from shared.security import tracking
from tests.integration.arrange import account, get
from tests.integration.portal.conftest import running_portal

A_MINUTE = 20
PERSON = ("Zoë Ade", "zoe@shop.example", "+234 800", "12 Marina Road")
_addresses = itertools.count(1)


@pytest.fixture(scope="module")
def ingress_settings():
    return {
        "TRUSTED_PROXIES": "1",
        "TRACKING_VIEWS_PER_MINUTE": str(A_MINUTE),
        "TRACKING_URL": "https://portal.example/track",
    }


def an_order(stage, email="zoe@shop.example", **more):
    now, id_ = datetime.now(UTC), new_id()
    with stage.api.session() as session:
        business = account(session, company_name="Blue <b>Kettle</b>")
    with stage.api.session() as session, session.begin():
        session.add(
            Order(
                id=id_,
                account_id=business.id,
                customer_name="Zoë Ade",
                customer_email=email,
                customer_phone="+234 800",
                item_summary="2 × blue kettle",
                address="12 Marina Road",
                tracking_status="IN TRANSIT",
                status_at=now,
                status_event_id=id_,
                accepted_at=now,
                **more,
            )
        )
        for status, note, applied in (
            ("IN TRANSIT", "Left the depot", True),
            ("PENDING", "Too late", False),
        ):
            session.add(
                OrderStatusHistory(
                    event_id=new_id(),
                    order_id=id_,
                    tracking_status=status,
                    note=note,
                    at=now,
                    applied=applied,
                )
            )
    return id_


def follow(stage, token, address=""):
    address = address or f"203.0.113.{next(_addresses)}"
    return get(f"{stage.url}/track/{token}", headers={"X-Forwarded-For": address})


def test_a_customer_sees_the_order_and_nothing_of_a_person(stage):
    answer = follow(stage, tracking.token_for(an_order(stage)))
    assert answer.status_code == 200
    for shown in ("Blue &lt;b&gt;Kettle", "2 × blue kettle", "in transit", "Left the depot"):
        assert shown in answer.text
    assert not [each for each in (*PERSON, "Too late", "<b>Kettle") if each in answer.text]


def test_the_parcel_is_shown_and_where_it_can_be_followed(stage):
    parcel = {
        "carrier": "Swift <b>&</b> Co",
        "tracking_number": "JD0146",
        "tracking_url": "https://track.carrier.example/?id=JD0146&lang=en",
        "estimated_delivery": "2026-12-03",
    }
    id_ = an_order(stage, order_number="A-1001 <i>", tracking=parcel, tracking_said={})
    shown = follow(stage, tracking.token_for(id_)).text
    for each in (
        "Swift &lt;b&gt;&amp;&lt;/b&gt; Co, JD0146",
        "3 December 2026",
        "A-1001 &lt;i&gt;",
    ):
        assert each in shown
    assert f'href="{parcel["tracking_url"].replace("&", "&amp;")}" rel="noreferrer"' in shown
    plain = follow(stage, tracking.token_for(an_order(stage))).text
    assert "None" not in plain
    assert "Parcel" not in plain


@pytest.mark.parametrize(
    ("status", "told"), [("IN_TRANSIT", "all"), ("DELIVERED", "but the day"), ("CANCELLED", "none")]
)
def test_of_a_parcel_the_page_shows_what_the_emails_say(stage, status, told):
    """What does not come is not due, and cannot be followed; a label may have been made for it."""
    parcel = {
        "carrier": "Swift Parcels",
        "tracking_number": "JD0146",
        "tracking_url": "https://track.carrier.example/?id=JD0146",
        "estimated_delivery": "2026-12-03",
    }
    id_ = an_order(stage, tracking=parcel, tracking_said={})
    with stage.api.session() as session, session.begin():
        session.get_one(Order, id_).tracking_status = status
    shown = follow(stage, tracking.token_for(id_)).text
    assert ("3 December 2026" in shown) == (told == "all")
    assert ("Swift Parcels, JD0146" in shown) == (told != "none")
    assert (parcel["tracking_url"] in shown) == (told != "none")


def test_it_leads_to_where_the_emails_end(stage):
    id_ = an_order(stage)
    shown = follow(stage, tracking.token_for(id_)).text
    link = html.unescape(re.search(r'href="([^"]+/unsubscribe/[^"]+)" rel="noreferrer"', shown)[1])
    assert "zoe" not in link
    path = link.partition("/api/v1")[2]
    answer = stage.api.http.post(path, data={"List-Unsubscribe": "One-Click"})
    assert answer.status_code == 200
    with stage.api.session() as session:
        business = session.get_one(Order, id_).account_id
        (left,) = session.query(Suppression).filter_by(account_id=business)
    assert (left.cause, left.order_id) == ("unsubscribed", id_)
    of_a_test = follow(stage, tracking.token_for(an_order(stage, is_test=True))).text
    assert "unsubscribe" not in of_a_test


def test_the_page_leaves_no_trace(stage):
    for token in (tracking.token_for(an_order(stage)), "nonsense"):
        answer = follow(stage, token)
        assert "Set-Cookie" not in answer.headers
        assert answer.headers["Referrer-Policy"] == "no-referrer"
        assert "noindex" in answer.headers["X-Robots-Tag"]
        assert answer.headers["Cache-Control"] == "no-store"
        assert "<form" not in answer.text
        assert "<script" not in answer.text


def test_no_link_and_no_address_is_in_a_log(stage, tmp_path):
    token = tracking.token_for(an_order(stage))
    follow(stage, token)
    browser, _ = stage.registered()
    browser.get("/orders?customer_email=zoe.logged@shop.example")
    with running_portal(tmp_path, stage.api, PORTAL_API_URL="http://127.0.0.1:9") as away:
        assert get(f"{away}/track/{token}").status_code == 503
        said = (tmp_path / "portal.log").read_text()
    assert "api_away" in said
    for log in (said, stage.log.read_text()):
        assert token not in log
        assert "zoe.logged" not in log


@pytest.mark.parametrize("token", ["nonsense", "a" * 43, "..%2Forders", "%00", "x" * 4000])
def test_a_link_that_is_none_leads_nowhere(stage, token):
    answer = follow(stage, token)
    assert answer.status_code == 404
    assert "blue kettle" not in answer.text


def test_a_link_of_no_order_is_as_one_that_is_wrong(stage):
    shown = {follow(stage, token).text for token in (tracking.token_for(new_id()), "nonsense")}
    assert len(shown) == 1


def test_a_link_ends_with_the_customers_data(stage):
    token = tracking.token_for(an_order(stage, "gone@shop.example"))
    assert follow(stage, token).status_code == 200
    with stage.api.session() as session, session.begin():
        session.execute(text("SELECT erase_customer('gone@shop.example')"))
    assert follow(stage, token).status_code == 404


def test_of_a_blocked_business_nothing_is_shown_to_its_customers(stage):
    """What its orders say, and where they lead, may be what it was blocked for."""
    order_id = an_order(stage)
    link = tracking.token_for(order_id)
    with stage.api.session() as session, session.begin():
        account_id = session.get_one(Order, order_id).account_id
        session.add(WebhookPolicy(account_id=account_id, blocked_at=datetime.now(UTC)))
    assert follow(stage, link).status_code == 404
    with stage.api.session() as session, session.begin():
        session.get_one(WebhookPolicy, account_id).blocked_at = None
    assert follow(stage, link).status_code == 200


def test_who_guesses_is_slowed_down_and_nobody_else(stage):
    token = tracking.token_for(an_order(stage))
    found = set()
    for _ in range(20 * A_MINUTE):
        found.add(follow(stage, "guess", "198.51.100.1").status_code)
        if 429 in found:
            break
    assert found == {404, 429}
    assert follow(stage, token).status_code == 200


def test_the_page_is_in_the_sellers_language_and_time(stage):
    id_ = an_order(stage, tracking={"estimated_delivery": "2026-12-03"}, tracking_said={})
    with stage.api.session() as session, session.begin():
        order = session.get_one(Order, id_)
        session.add(
            EmailSender(account_id=order.account_id, language="fr", time_zone="Asia/Kathmandu")
        )
    shown = follow(stage, tracking.token_for(id_)).text
    for each in ('<html lang="fr">', "Votre commande est en transit", "3 décembre", "UTC+5:45"):
        assert each in shown
    assert "Your order" not in shown


def test_our_words_in_a_shops_order_are_in_the_language_of_the_page(stage):
    id_ = an_order(stage, order_number="#1001", sent_metadata={"shop": "kettles.example"})
    with stage.api.session() as session, session.begin():
        order = session.get_one(Order, id_)
        order.item_summary = "No items were named.\nTotal: 68.90 EUR"
        session.add(EmailSender(account_id=order.account_id, language="fr"))
        session.execute(
            text("UPDATE order_status_history SET note = :note WHERE order_id = :id"),
            {"id": id_, "note": "The order was refunded."},
        )
    shown = follow(stage, tracking.token_for(id_)).text
    for each in ("Total : 68.90 EUR", "Aucun article", "La commande a été remboursée."):
        assert each in shown


def test_a_business_ends_the_links_of_one_order_and_the_next_one_works(stage):
    browser, email = stage.registered()
    with stage.api.session() as session, session.begin():
        me = session.scalar(select(Account.id).where(Account.email == email))
    mine, other, stranger = an_order(stage), an_order(stage), an_order(stage)
    with stage.api.session() as session, session.begin():
        for id_ in (mine, other):
            session.get(Order, id_).account_id = me
    first = tracking.token_for(mine)
    assert follow(stage, first).status_code == 200
    browser.get(f"/orders/{mine}")
    browser.send(f"/orders/{mine}/links")
    assert "End the links of every email about this order so far?" in browser.page
    assert follow(stage, first).status_code == 200
    browser.send(f"/orders/{mine}/links")
    assert "The links so far are ended." in browser.page
    assert follow(stage, first).status_code == 404
    # It says no more than a link that never was.
    assert follow(stage, first).text == follow(stage, tracking.token_for(new_id())).text
    token = re.search(r"data-customer-page>\S+/([^/<]+)</a>", browser.page)[1]
    assert token == tracking.token_for(mine, 1)
    assert follow(stage, token).status_code == 200
    assert follow(stage, tracking.token_for(mine, 2)).status_code == 404
    # Another order's, and another business's, stay.
    assert follow(stage, tracking.token_for(other)).status_code == 200
    asked = browser.page.replace(str(mine), str(stranger))
    browser.page = asked
    browser.send(f"/orders/{stranger}/links")
    assert browser.status == 404
    token = re.search(r'name="form_token" value="([^"]+)"', asked)[1]
    data = {"form_token": token, "sure": "yes"}
    assert browser.http.post(f"/orders/{stranger}/links", data=data).status_code == 404
    assert follow(stage, tracking.token_for(stranger)).status_code == 200
