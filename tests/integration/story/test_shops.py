"""Shops on WooCommerce and Shopify, from adding the webhook to the customer's email."""

import uuid

import pytest

from stack.mailbox import text_of
from tests.integration.arrange import until
from tests.integration.story.test_story import Business
from tests.unit.ingress.platforms import orders

SHOP_SECRET = "6ba27713f6ae62b6c3e15a9dd1a1ba8ea4f7ddb6a0a9ebc98cce2d0bbdcb8a55"


@pytest.fixture(scope="module")
def business(running):
    return Business(running).register().submit().decide("approve")


def told(business, customer):
    """Subject and text of each email that a customer had."""
    return [
        (mail["Subject"], text_of(mail))
        for mail in business.mailbox.emails()
        if customer in mail["To"]
    ]


def deliver(business, platform, headers, body):
    path = f"/webhooks/{business.id}/{platform}/"

    def answer():
        found = business.http.post(path, content=body, headers=headers)
        return found if found.status_code < 400 else None

    return until(answer, "the delivery is taken")


def woocommerce(business, topic, order):
    body = orders.raw(order)
    headers = {
        "Content-Type": "application/json",
        "X-WC-Webhook-Source": "https://kettles.example/",
        "X-WC-Webhook-Topic": topic,
        # As WooCommerce makes it: the same for all deliveries of a webhook in one second.
        "X-WC-Webhook-Delivery-ID": "5fa1c0d7e3",
        "X-WC-Webhook-Signature": orders.signature(business.secret(), body),
    }
    return deliver(business, "woocommerce", headers, body)


def shopify(business, topic, order):
    body = orders.raw(order)
    headers = {
        "Content-Type": "application/json",
        "X-Shopify-Topic": topic,
        "X-Shopify-Shop-Domain": "kettles.myshopify.com",
        "X-Shopify-Webhook-Id": str(uuid.uuid4()),
        "X-Shopify-Hmac-Sha256": orders.signature(SHOP_SECRET, body),
    }
    return deliver(business, "shopify", headers, body)


def test_woocommerce_from_add_webhook_to_the_customers_email(business):
    customer = f"zoe-{uuid.uuid4().hex[:8]}@shop.example"
    business.secret()  # which its owner pastes there
    ping = business.http.post(f"/webhooks/{business.id}/woocommerce/", data={"webhook_id": "12"})
    assert ping.status_code == 200
    billing = orders.woocommerce()["billing"] | {"email": customer}
    order = orders.recent(orders.woocommerce, billing=billing, number="K-727")
    other = orders.recent(orders.woocommerce, id=728, billing=billing, number="K-728")
    ids = [woocommerce(business, "order.created", o).json()["order_id"] for o in (order, other)]
    assert ids[0] != ids[1]
    assert woocommerce(business, "order.updated", order).json()["note"] == "no_change"
    until(lambda: len(told(business, customer)) == 2, "both orders are told of")

    shipped = order | {"status": "completed", "date_modified_gmt": "2026-11-03T08:00:00"}
    for _ in range(2):
        assert woocommerce(business, "order.updated", shipped).status_code == 201
    later = shipped | {"date_modified_gmt": "2026-11-03T09:00:00", "customer_note": "Ring twice."}
    woocommerce(business, "order.updated", later)
    over = later | {"status": "delivered", "date_modified_gmt": "2026-11-04T08:00:00"}
    woocommerce(business, "order.updated", over)
    shown = until(lambda: delivered(business, ids[0]), "it is delivered")
    assert shown["customer_details"]["email"] == customer
    # On its way once and delivered once, besides the two that were received.
    until(lambda: len(told(business, customer)) >= 4, "each step is told")
    woocommerce(business, "order.updated", other | {"status": "cancelled"})
    until(lambda: len(told(business, customer)) >= 5, "the cancellation is told")
    assert len(told(business, customer)) == 5


def test_shopify_from_the_secret_to_the_customers_email(business):
    customer = f"zoe-{uuid.uuid4().hex[:8]}@shop.example"
    given = business.http.put("/webhook/secret/shopify/", json={"secret": SHOP_SECRET})
    assert given.status_code == 200, given.text
    assert SHOP_SECRET not in business.mail("The secret of your webhooks from Shopify was set")
    order = orders.recent(orders.shopify, email=customer)
    id_ = shopify(business, "orders/create", order).json()["order_id"]
    until(lambda: len(told(business, customer)) == 1, "the order is told of")
    on_its_way = order | {
        "fulfillment_status": "fulfilled",
        "fulfillments": [orders.parcel()],
        "updated_at": "2026-11-03T03:00:00-05:00",
    }
    for topic in ("orders/fulfilled", "orders/updated", "orders/fulfilled"):
        shopify(business, topic, on_its_way)
    arrived = on_its_way | {
        "fulfillments": [orders.parcel("delivered")],
        "updated_at": "2026-11-04T03:00:00-05:00",
    }
    shopify(business, "orders/updated", arrived)
    until(lambda: delivered(business, id_), "it is delivered")
    until(lambda: len(told(business, customer)) >= 3, "each step is told")
    assert len(told(business, customer)) == 3


def test_the_business_hears_of_orders_that_nobody_can_be_told_of_once(business):
    for id_ in (801, 802):
        billing = orders.woocommerce()["billing"] | {"email": ""}
        order = orders.recent(orders.woocommerce, id=id_, number=f"TILL-{id_}", billing=billing)
        answer = woocommerce(business, "order.created", order)
        assert (answer.status_code, answer.json()["note"]) == (200, "no_email_address")
    assert "TILL-80" in business.mail("it has no email address")
    assert len(business.mails("it has no email address")) == 1


def delivered(business, order_id):
    shown = business.http.get(f"/orders/{order_id}/").json()
    return shown if shown.get("tracking_status") == "DELIVERED" else None
