"""Orders as WooCommerce and Shopify document them, and their signatures, made by OpenSSL."""

import base64
import json
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any


def woocommerce(**changes: Any) -> dict[str, Any]:
    """An order of `wc/v3`, with members that are not read."""
    person = {
        "first_name": "Zoë",
        "last_name": "Ade",
        "company": "",
        "address_1": "12 Marina Road",
        "address_2": "",
        "city": "Lagos",
        "state": "LA",
        "postcode": "101001",
        "country": "NG",
        "phone": "+2348000000",
    }
    return {
        "id": 727,
        "parent_id": 0,
        "number": "727",
        "order_key": "wc_order_58d2d042d1d",
        "created_via": "checkout",
        "status": "processing",
        "currency": "EUR",
        "date_created": "2026-11-02T09:00:00",
        "date_created_gmt": "2026-11-02T08:00:00",
        "date_modified": "2026-11-02T09:00:05",
        "date_modified_gmt": "2026-11-02T08:00:05",
        "date_completed": None,
        "date_completed_gmt": None,
        "total": "68.90",
        "prices_include_tax": False,
        "customer_id": 0,
        "billing": person | {"email": "zoe@shop.example"},
        "shipping": person,
        "payment_method": "bacs",
        "meta_data": [{"id": 13106, "key": "_download", "value": {"a": [1, None]}}],
        "line_items": [
            {"id": 315, "name": "Blue kettle", "quantity": 2, "sku": "K-1", "price": 30},
            {"id": 316, "name": "Lid - Red", "quantity": 1, "sku": "", "price": 4.5},
        ],
        "tax_lines": [],
        "shipping_lines": [{"id": 317, "method_id": "flat_rate", "total": "4.40"}],
        "refunds": [],
        "_links": {"self": [{"href": "https://kettles.example/wp-json/wc/v3/orders/727"}]},
    } | changes


def shopify(**changes: Any) -> dict[str, Any]:
    """An order of the REST Admin API, with members that are not read."""
    address = {
        "first_name": "Zoë",
        "last_name": "Ade",
        "name": "Zoë Ade",
        "company": None,
        "address1": "12 Marina Road",
        "address2": None,
        "city": "Lagos",
        "province": "Lagos",
        "zip": "101001",
        "country": "Nigeria",
        "phone": "+2348000000",
        "latitude": 6.45,
    }
    return {
        "id": 5940139491234,
        "admin_graphql_api_id": "gid://shopify/Order/5940139491234",
        "name": "#1001",
        "number": 1,
        "order_number": 1001,
        "email": "zoe@shop.example",
        "contact_email": "zoe@shop.example",
        "phone": None,
        "created_at": "2026-11-02T03:00:00-05:00",
        "updated_at": "2026-11-02T03:00:05-05:00",
        "cancelled_at": None,
        "cancel_reason": None,
        "closed_at": None,
        "currency": "EUR",
        "total_price": "68.90",
        "total_price_set": {"shop_money": {"amount": "68.90", "currency_code": "EUR"}},
        "financial_status": "paid",
        "fulfillment_status": None,
        "customer": {"id": 1, "first_name": "Zoë", "last_name": "Ade", "email": None},
        "shipping_address": address,
        "billing_address": address,
        "line_items": [
            {"id": 1, "name": "Kettle - Blue", "title": "Kettle", "quantity": 2, "grams": 500},
            {"id": 2, "name": "Lid", "title": "Lid", "quantity": 1, "requires_shipping": True},
        ],
        "fulfillments": [],
        "refunds": [],
        "test": False,
    } | changes


def recent(made: Callable[..., dict[str, Any]], **changes: Any) -> dict[str, Any]:
    """Such an order of yesterday, for whoever goes by the clock: old ones are taken for imports.

    Args:
        made: makes it.
        **changes: members that differ.
    """
    yesterday = f"{datetime.now(UTC) - timedelta(days=1):%Y-%m-%d}"
    order = json.dumps(made(**changes)).replace("2026-11-02", yesterday)
    return dict(json.loads(order))


def parcel(shipment_status: str | None = None, status: str = "success") -> dict[str, Any]:
    """One of a Shopify order's `fulfillments`."""
    return {
        "id": 255858046,
        "status": status,
        "shipment_status": shipment_status,
        "tracking_company": "DHL",
        "tracking_number": "JD0001",
        "tracking_numbers": ["JD0001"],
        "tracking_url": "https://dhl.example/JD0001",
        "tracking_urls": ["https://dhl.example/JD0001"],
    }


def raw(order: Any) -> bytes:
    """JSON as PHP and Ruby write it: non-ASCII letters and slashes escaped."""
    return json.dumps(order, separators=(",", ":")).replace("/", "\\/").encode()


def signature(key: str, body: bytes) -> str:
    """Base64 of HMAC-SHA256, by the `openssl` command."""
    mac = ("-mac", "HMAC", "-macopt", f"hexkey:{key.encode().hex()}")
    command = ["openssl", "dgst", "-sha256", *mac, "-binary"]
    done = subprocess.run(command, input=body, capture_output=True, check=True)
    return base64.b64encode(done.stdout).decode()
