"""Bodies of other systems are recognised, and the refusal says what to do."""

import json
import time

import pytest

from shared.ids import new_id
from shared.intake.bodies import BodyError, read
from shared.validation.foreign_shapes import SHAPES, recognise

# Made up, with the members that each documents.
SHOPIFY = {
    "id": 820982911946154508,
    "admin_graphql_api_id": "gid://shopify/Order/820982911946154508",
    "email": "zoe@shop.example",
    "financial_status": "paid",
    "fulfillment_status": None,
    "line_items": [{"name": "blue kettle", "quantity": 2}],
    "shipping_address": {"name": "Zoë Ade", "address1": "12 Marina Road"},
}
WOOCOMMERCE = {
    "id": 727,
    "status": "processing",
    "order_key": "wc_order_58d2d042d1d",
    "date_created_gmt": "2026-03-22T19:28:02",
    "billing": {"first_name": "Zoë", "last_name": "Ade", "email": "zoe@shop.example"},
    "shipping": {"address_1": "12 Marina Road"},
    "line_items": [{"name": "blue kettle", "quantity": 2}],
    "payment_method": "bacs",
}
MAGENTO = {
    "entity_id": 5,
    "increment_id": "000000005",
    "state": "new",
    "base_grand_total": 12.5,
    "customer_email": "zoe@shop.example",
    "items": [{"sku": "kettle", "qty_ordered": 2}],
    "billing_address": {"street": ["12 Marina Road"]},
}
STRIPE = {
    "id": "evt_1NG8Du2eZvKYlo2CUI79vXWy",
    "object": "event",
    "api_version": "2026-09-30",
    "livemode": False,
    "type": "checkout.session.completed",
    "data": {"object": {"id": "cs_1", "object": "checkout.session"}},
}
CLOUD_EVENT = {
    "specversion": "1.0",
    "id": "A234-1234-1234",
    "source": "https://shop.example",
    "type": "example.shop.order",
    "time": "2026-04-05T17:31:00Z",
    "data": {"number": 5},
}
BIGCOMMERCE = {
    "scope": "store/order/created",
    "store_id": "1025646",
    "data": {"type": "order", "id": 250},
    "hash": "dd70c0976e06b67aaf671e73f49dcb79230ebf9d",
    "created_at": 1561479335,
    "producer": "stores/store_hash",
}
PRESTASHOP = {
    "id": 6,
    "id_address_delivery": "5",
    "id_cart": "6",
    "id_customer": "3",
    "current_state": "2",
    "reference": "XKBKNABJK",
    "associations": {"order_rows": [{"product_name": "blue kettle", "product_quantity": "2"}]},
}
BY_NAME = {
    "PrestaShop": PRESTASHOP,
    "BigCommerce": BIGCOMMERCE,
    "Shopify": SHOPIFY,
    "WooCommerce": WOOCOMMERCE,
    "Magento": MAGENTO,
    "Stripe": STRIPE,
    "CloudEvent": CLOUD_EVENT,
}


@pytest.mark.parametrize("name", BY_NAME)
@pytest.mark.parametrize("wrapper", [None, "order", "payload"])
def test_a_foreign_body_is_recognised_first(name, wrapper):
    body = BY_NAME[name] if wrapper is None else {wrapper: BY_NAME[name]}
    with pytest.raises(BodyError) as refused:
        read(json.dumps(body).encode(), new_id(), time.time(), None)
    first = refused.value.faults[0]
    assert first.startswith("This looks like ")
    assert name in first
    assert len(refused.value.faults) > 1
    others = set(BY_NAME) - {name}
    assert not any(other in first for other in others)


def test_all_shapes_are_tested():
    assert len(SHAPES) == len(BY_NAME)


def test_our_own_bodies_are_not_recognised():
    order = {"customer_details": {"name": "Zoë"}, "items": [1], "data": {"id": 5, "object": "x"}}
    assert recognise(order) == []


def test_our_event_in_a_cloud_event_is_accepted():
    order_id = str(new_id())
    body = CLOUD_EVENT | {"type": "order.cancelled", "data": {"order_id": order_id}}
    found, message = read(json.dumps(body).encode(), new_id(), time.time(), None)
    assert (str(found), message.type) == (order_id, "order.cancelled")


@pytest.mark.parametrize("body", [{"a": 1}, {"order_number": "A-1"}, [{"a": 1}]])
def test_a_body_serialised_twice_is_refused_with_a_reason(body):
    with pytest.raises(BodyError, match="serialised twice"):
        read(json.dumps(f" {json.dumps(body)}").encode(), new_id(), time.time(), None)
