"""Bodies of other systems, recognised by their members: a refusal says whose it is and what to do.

A body of a shop's own webhook is not wrong, it is somebody else's: its fields have other names.
"""

from collections.abc import Mapping, Set
from dataclasses import dataclass
from typing import Any

from shared.validation.words import listed


@dataclass(frozen=True, slots=True)
class Shape:
    """How one system's bodies are known.

    Attributes:
        name: in a sentence.
        members: of the top level; all of them are there.
        one_of: of these at least one is there too; empty: none is needed.
        cure: what to do, in sentences.
    """

    name: str
    members: Set[str]
    one_of: Set[str]
    cure: str


# From what each documents of its webhooks.
SHAPES = (
    Shape(
        "a notification of BigCommerce",
        frozenset({"scope", "producer", "data"}),
        frozenset(),
        "It names an order and does not have it: fetch that from `/v2/orders/{id}`, and send it "
        "with our names.",
    ),
    Shape(
        "a CloudEvent",
        frozenset({"specversion", "source", "id", "type"}),
        frozenset(),
        "Send its `data` with our names, and as `type` order.created, order.status_changed or "
        "order.cancelled.",
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
        "It names its customer and its address and does not have them: fetch those from "
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
"""The names under which systems put an order into another object."""


def recognised(body: Mapping[str, Any]) -> list[str]:
    """A sentence that says whose body it looks like and what to do; none where that is unknown.

    Args:
        body: the top level. An order in it, under a usual name, is looked at too.
    """
    inner = [body[name] for name in WRAPPERS if isinstance(body.get(name), dict)]
    for candidate in (body, *inner):
        for shape in SHAPES:
            if _has(candidate, shape):
                shown = sorted(shape.members | (shape.one_of & candidate.keys()))
                names = listed([f"`{name}`" for name in shown])
                return [f"This looks like {shape.name} ({names}). {shape.cure}"]
    return []


def _has(body: Mapping[str, Any], shape: Shape) -> bool:
    names = body.keys()
    return shape.members <= names and (not shape.one_of or bool(shape.one_of & names))
