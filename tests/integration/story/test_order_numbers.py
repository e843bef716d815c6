"""A shop that knows its orders by its own numbers, from the order to what its customer reads."""

import uuid

import pytest

from stack.mailbox import text_of
from tests.integration.arrange import until
from tests.integration.story.test_story import Business, order

URL = "https://track.carrier.example/?id=JD0146&lang=en"


@pytest.fixture(scope="module")
def business(running):
    return Business(running).register().submit().decide("approve")


def mails_to(business, address):
    return [mail for mail in business.mailbox.emails() if address in mail["To"]]


def test_an_order_by_number_an_update_by_number_and_a_parcel_to_follow(business):
    run = uuid.uuid4().hex[:6]
    secret, number, customer = business.secret(), f"A-{run}", f"customer1{run}@shop.example"

    def said(body):
        answer = until(lambda: business.send(secret, body), "an answer")
        assert answer.status_code == 201, answer.text
        return answer.json()["order_id"]

    order_id = said(order(1, run) | {"order_number": number, "metadata": {"branch": "Lekki"}})
    update = {
        "type": "order.status_changed",
        "order_number": number,
        "tracking_status": "IN_TRANSIT",
        "carrier": "Swift Parcels",
        "tracking_number": 146,
        "tracking_url": URL,
        "estimated_delivery": "2026-12-03",
    }
    assert said(update) == order_id

    def detail():
        query = {"order_number": f" {number} "}
        (found,) = business.http.get("/orders/", params=query).json()["results"] or [{}]
        return found and business.http.get(f"/orders/{found['id']}/").json()

    until(lambda: len(detail().get("emails", ())) == 2, "two emails")
    found = detail()
    assert (found["id"], found["order_number"]) == (order_id, number)
    assert found["metadata"] == {"branch": "Lekki"}
    parcel = {"carrier": "Swift Parcels", "tracking_number": "146", "tracking_url": URL}
    assert {name: found[name] for name in parcel} == parcel
    assert found["estimated_delivery"] == "2026-12-03"
    assert [h["tracking_url"] for h in found["status_history"]] == [None, URL]

    received, moved = mails_to(business, customer)
    assert number in received["Subject"]
    assert number in moved["Subject"]
    assert f"Track your parcel: {URL}" in text_of(moved)
    for mail in (received, moved):
        html = mail.get_body(("html",)).get_content()
        assert number in html
        assert order_id not in html + text_of(mail)
    assert f'href="{URL.replace("&", "&amp;")}"' in html

    assert said({"type": "order.cancelled", "order_number": number}) == order_id
    until(lambda: len(mails_to(business, customer)) == 3, "the cancellation")

    def logged():
        log = business.http.get("/webhooks/log/").json()["results"]
        return [entry["order_number"] for entry in log if entry["order_id"] == order_id]

    until(lambda: len(logged()) == 3, "every request is in the log")
    assert set(logged()) == {number}
