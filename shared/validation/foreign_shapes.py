"""Recognises bodies of other systems by their members, so that a refusal can explain what to do."""

from collections.abc import Mapping, Set
from dataclasses import dataclass
from typing import Any

from shared.validation.phrases import listed


@dataclass(frozen=True, slots=True)
class Shape:
    """The members by which one system's bodies are recognised.

    Attributes:
        name: of the body, with its article.
        members: names that are all present at the top level.
        one_of: names of which at least one is present too; empty if none is needed.
        remedy: what to do, in sentences.
    """

    name: str
    members: Set[str]
    one_of: Set[str]
    remedy: str


# From each system's documentation of its webhooks.
SHAPES = (
    Shape(
        "a notification of BigCommerce",
        frozenset({"scope", "producer", "data"}),
        frozenset(),
        "It contains only the order's id: fetch the order from `/v2/orders/{id}`, and send it with "
        "our field names.",
    ),
    Shape(
        "a CloudEvent",
        frozenset({"specversion", "source", "id", "type"}),
        frozenset(),
        "Send its `data` with our field names, and order.created, order.status_changed or "
        "order.cancelled as its `type`.",
    ),
    Shape(
        "an event of Stripe",
        frozenset({"object", "livemode", "api_version", "data"}),
        frozenset(),
        "A payment is no order here: fill the body from your own order, `customer_details` from "
        "`data.object.customer_details` of a Checkout Session.",
    ),
    Shape(
        "an order of Shopify",
        frozenset({"line_items"}),
        frozenset({"admin_graphql_api_id", "financial_status", "fulfillment_status"}),
        "Shopify can send it by itself, to `POST /api/v1/webhooks/{account_id}/shopify/`. Or "
        "rename: `customer_details.name` from `shipping_address.name`, `customer_details.email` "
        "from `email`, `item_summary` from `line_items`, `address` from `shipping_address`, "
        "`tracking_status` from `fulfillment_status` and `cancelled_at`.",
    ),
    Shape(
        "an order of WooCommerce",
        frozenset({"line_items", "billing"}),
        frozenset({"order_key", "payment_method", "date_created_gmt", "shipping_lines"}),
        "WooCommerce can send it by itself, to "
        "`POST /api/v1/webhooks/{account_id}/woocommerce/`. Or rename: `customer_details` from "
        "`billing` (`first_name`, `last_name`, `email`, `phone`), `item_summary` from "
        "`line_items`, `address` from `shipping`, `tracking_status` from `status`.",
    ),
    Shape(
        "an order of PrestaShop",
        frozenset({"id_customer", "current_state"}),
        frozenset(),
        "It contains only the ids of its customer and address: fetch them from "
        "`/api/customers/{id}` and `/api/addresses/{id}`. Then rename: `item_summary` from "
        "`associations.order_rows`, `order_number` from `reference`, `tracking_status` from "
        "`current_state`.",
    ),
    Shape(
        "an order of Magento",
        frozenset({"increment_id", "items"}),
        frozenset({"customer_email", "base_grand_total", "grand_total"}),
        "Rename: `customer_details` from `customer_firstname`, `customer_lastname` and "
        "`customer_email`, `item_summary` from `items`, `address` from `billing_address` or the "
        "shipping assignment, `tracking_status` from `state`.",
    ),
)
WRAPPERS = ("order", "data", "payload", "event")
"""The names of members in which systems wrap an order."""


def recognise(body: Mapping[str, Any]) -> list[str]:
    """Return a sentence that names the system of a body and what to do; empty if unknown.

    Args:
        body: its top level. An order wrapped in one of `WRAPPERS` is examined too.
    """
    inner = [body[name] for name in WRAPPERS if isinstance(body.get(name), dict)]
    for candidate in (body, *inner):
        for shape in SHAPES:
            if _has(candidate, shape):
                shown = sorted(shape.members | (shape.one_of & candidate.keys()))
                names = listed([f"`{name}`" for name in shown])
                return [f"This looks like {shape.name} ({names}). {shape.remedy}"]
    return []


def _has(body: Mapping[str, Any], shape: Shape) -> bool:
    names = body.keys()
    return shape.members <= names and (not shape.one_of or bool(shape.one_of & names))
