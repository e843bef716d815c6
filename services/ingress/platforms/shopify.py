"""Shopify: its webhooks over HTTPS, which carry orders of its REST Admin API.

From its documentation: `X-Shopify-Hmac-Sha256` is made with the secret that Shopify shows (of an
app, or of the shop's own webhooks). A delivery that is not answered 2xx within 5 s is retried 8
times in 4 hours, with the same `X-Shopify-Webhook-Id`. After that a subscription may be deleted, so
unread topics are answered 200 too. `X-Shopify-Event-Id` is shared by deliveries of several topics
of one action, so it identifies none of them.

A test notification (`X-Shopify-Test: true`) carries a made-up order with a stranger's address.
"""

from collections.abc import Iterator
from typing import Any

import msgspec

from services.ingress.platforms import platform
from services.ingress.platforms.platform import (
    NO_ADDRESS,
    NO_NAME,
    REFUNDED,
    OrderContent,
    Platform,
    State,
    Text,
)
from shared.bus.contract.events import TrackingStatus
from shared.languages.shops import our_word


# None of these Structs is part of a reference cycle, so the garbage collector may ignore them.
class ShopifyAddress(msgspec.Struct, gc=False):
    """`shipping_address` or `billing_address`."""

    name: Text = None
    first_name: Text = None
    last_name: Text = None
    company: Text = None
    address1: Text = None
    address2: Text = None
    city: Text = None
    province: Text = None
    zip: Text = None
    country: Text = None
    phone: Text = None


class ShopifyCustomer(msgspec.Struct, gc=False):
    """`customer`: null for a guest's order."""

    first_name: Text = None
    last_name: Text = None
    email: Text = None
    phone: Text = None


class ShopifyItem(msgspec.Struct, gc=False):
    """One of `line_items`."""

    name: Text = None
    title: Text = None
    quantity: int | None = None
    current_quantity: int | None = None
    requires_shipping: bool | None = None


class ShopifyFulfillment(msgspec.Struct, gc=False):
    """One of `fulfillments`: a parcel, or items that need none, such as a gift card."""

    status: str | None = None
    shipment_status: str | None = None
    tracking_company: Text = None
    tracking_number: Text = None
    tracking_url: Text = None
    line_items: list[ShopifyItem] | None = None


class ShopifyMoney(msgspec.Struct, gc=False):
    """A sum, in one currency."""

    amount: Text = None
    currency_code: Text = None


class ShopifyPrice(msgspec.Struct, gc=False):
    """`total_price_set`: the customer's currency; the shop's is not read."""

    presentment_money: ShopifyMoney | None = None


class ShopifyOrder(msgspec.Struct, gc=False):
    """The members of a Shopify order that are read; others are ignored."""

    id: int
    name: Text = None
    order_number: Text = None
    email: Text = None
    contact_email: Text = None
    phone: Text = None
    currency: Text = None
    total_price: Text = None
    total_price_set: ShopifyPrice | None = None
    current_total_price: Text = None
    current_total_price_set: ShopifyPrice | None = None
    created_at: str | None = None
    processed_at: str | None = None
    updated_at: str | None = None
    cancelled_at: str | None = None
    cancel_reason: str | None = None
    financial_status: str | None = None
    fulfillment_status: str | None = None
    customer: ShopifyCustomer | None = None
    shipping_address: ShopifyAddress | None = None
    billing_address: ShopifyAddress | None = None
    line_items: list[ShopifyItem] | None = None
    fulfillments: list[ShopifyFulfillment] | None = None


_NO_CUSTOMER, _NO_PLACE = ShopifyCustomer(), ShopifyAddress()
_OUT = TrackingStatus.OUT_FOR_DELIVERY
_ON_ITS_WAY = TrackingStatus.IN_TRANSIT
_PARCEL = "`shipment_status` of a parcel; the one that is furthest counts"
STATES = (
    State("cancelled_at", "it is set", TrackingStatus.CANCELLED, is_placed=False),
    State(
        "financial_status: refunded",
        "nothing was fulfilled",
        TrackingStatus.CANCELLED,
        is_placed=False,
    ),
    State("financial_status: partially_refunded, voided or any other", "", None),
    State("fulfillment_status: null, restocked", "no parcel is on its way", None),
    State("fulfillment_status: partial, fulfilled", "a parcel is there, see below", None),
    State(
        "fulfillment_status: fulfilled",
        "nothing is shipped, and no parcel says otherwise",
        TrackingStatus.DELIVERED,
    ),
    State("fulfillments[].status: cancelled", "all of them are", TrackingStatus.PENDING),
    State("fulfillments[].status: pending, open", "no other parcel is there", None),
    # A parcel may get these after `null`: they must not take an order back.
    State("label_purchased", _PARCEL, None),
    State("label_printed", _PARCEL, None),
    State("confirmed", _PARCEL, None),
    State("null", _PARCEL, _ON_ITS_WAY),
    State("carrier_picked_up", _PARCEL, _ON_ITS_WAY),
    State("in_transit", _PARCEL, _ON_ITS_WAY),
    State("delayed", _PARCEL, _ON_ITS_WAY),
    State("failure", _PARCEL, _ON_ITS_WAY),
    State("ready_for_pickup", _PARCEL, _ON_ITS_WAY),
    State("out_for_delivery", _PARCEL, _OUT),
    State("attempted_delivery", _PARCEL, _OUT),
    State("delivered, picked_up", "some parcel, or not all is fulfilled", _ON_ITS_WAY),
    State("delivered, picked_up", "every parcel, and all is fulfilled", TrackingStatus.DELIVERED),
)
_PARCELS = {state.theirs: state.ours for state in STATES if state.when == _PARCEL}
_FAILED = ("cancelled", "error", "failure")
_NOT_SENT = (*_FAILED, "pending", "open")
_ARRIVED = ("delivered", "picked_up")
_STEPS = (None, _ON_ITS_WAY, _OUT)
_REASONS = {
    "customer": our_word("customer_cancelled"),
    "inventory": our_word("out_of_stock"),
    "declined": our_word("declined"),
}


def _read(order: ShopifyOrder, shop: str) -> OrderContent:
    customer = order.customer or _NO_CUSTOMER
    shipping, billing = order.shipping_address, order.billing_address
    place = shipping or billing or _NO_PLACE
    number = order.order_number
    parcels = _parcels(order)
    sent = _sent(parcels)
    status = _status(order, parcels, sent)
    return OrderContent(
        # Shopify's ids are unique across shops, so the key names no shop.
        key=str(order.id),
        number=platform.reference(order.name) or platform.reference(number or order.id),
        shop=platform.line(shop),
        # The date that the shop shows, which an import sets.
        made=order.processed_at or order.created_at or "",
        status=status,
        is_placed=status is not TrackingStatus.CANCELLED,
        reason=_reason(order, parcels),
        at=platform.moment(order.updated_at),
        name=platform.line(customer.first_name, customer.last_name)
        or _name(shipping)
        or _name(billing)
        or NO_NAME,
        email=platform.email(order.email)
        or platform.email(order.contact_email)
        or platform.email(customer.email),
        phone=platform.line(order.phone or customer.phone or place.phone),
        items=platform.listed(_lines(order), _total(order)),
        address=_address(place) or NO_ADDRESS,
        # The last of the parcels that decide the status, preferably one that has not arrived.
        **(_tracking(max(reversed(sent), key=_furthest)) if sent else {}),
    )


def _tracking(parcel: ShopifyFulfillment) -> dict[str, Any]:
    return {
        "carrier": platform.reference(parcel.tracking_company),
        "tracking_number": platform.reference(parcel.tracking_number),
        "tracking_url": platform.link(parcel.tracking_url),
    }


def _status(
    order: ShopifyOrder, parcels: list[ShopifyFulfillment], sent: list[ShopifyFulfillment]
) -> TrackingStatus | None:
    if order.cancelled_at:
        return TrackingStatus.CANCELLED
    fulfilled = _lower(order.fulfillment_status)
    is_all = fulfilled == "fulfilled"
    if not sent and (parcels or not is_all):
        if _lower(order.financial_status) == "refunded" and fulfilled != "partial":
            return TrackingStatus.CANCELLED
        return TrackingStatus.PENDING if any(_lower(p.status) in _FAILED for p in parcels) else None
    arrived = _ARRIVED if _is_shipped(order, sent) else (None, *_ARRIVED)
    if is_all and (sent or None in arrived) and all(_at(p) in arrived for p in sent):
        return TrackingStatus.DELIVERED
    return max(map(_step, sent), key=_STEPS.index, default=_ON_ITS_WAY)


def _lower(state: str | None) -> str | None:
    """Return a state in lower case; GraphQL's, which programs copy, are in upper case."""
    return state.lower() if state else None


def _at(parcel: ShopifyFulfillment) -> str | None:
    return _lower(parcel.shipment_status)


def _step(parcel: ShopifyFulfillment) -> TrackingStatus | None:
    return _PARCELS.get(_at(parcel) or "null", _ON_ITS_WAY)


def _furthest(parcel: ShopifyFulfillment) -> tuple[int, bool]:
    return _STEPS.index(_step(parcel)), _at(parcel) not in _ARRIVED


def _lines(order: ShopifyOrder) -> Iterator[tuple[Text, Text]]:
    """Yield quantities and names, without the lines that were removed from the order."""
    return (
        (item.quantity if item.current_quantity is None else item.current_quantity,
         item.name or item.title)
        for item in order.line_items or ()
        if item.current_quantity != 0
    )  # fmt: skip


def _total(order: ShopifyOrder) -> str:
    """Return the price of the order, in the customer's currency if that is known."""
    for price in (order.current_total_price_set, order.total_price_set):
        paid = price.presentment_money if price else None
        if paid and (total := platform.amount(paid.amount, paid.currency_code)):
            return total
    current = platform.amount(order.current_total_price, order.currency)
    return current or platform.amount(order.total_price, order.currency)


def _parcels(order: ShopifyOrder) -> list[ShopifyFulfillment]:
    """Return the fulfilments that are parcels, or whose lines are unknown."""
    return [
        made
        for made in order.fulfillments or ()
        if not made.line_items
        or any(item.requires_shipping is not False for item in made.line_items)
    ]


def _sent(parcels: list[ShopifyFulfillment]) -> list[ShopifyFulfillment]:
    return [parcel for parcel in parcels if _lower(parcel.status) not in _NOT_SENT]


def _is_shipped(order: ShopifyOrder, sent: list[ShopifyFulfillment]) -> bool:
    """Return whether the order has items to ship; a sale in a shop has no shipping address."""
    if order.shipping_address is None:
        return False
    items = order.line_items or []
    # Removed lines may be in a parcel that left before.
    left = items if sent else [item for item in items if item.current_quantity != 0]
    return any(item.requires_shipping is not False for item in left or items)


def _reason(order: ShopifyOrder, parcels: list[ShopifyFulfillment]) -> str:
    if order.cancelled_at:
        return _REASONS.get(_lower(order.cancel_reason) or "", "")
    # The recorder does not count a mere refund of an order that is under way. An order with parcels
    # of which none was sent (cancelled, failed, pending) is not, whatever the recorder knows.
    is_refund = _lower(order.financial_status) == "refunded" and not parcels
    return REFUNDED if is_refund else ""


def _name(address: ShopifyAddress | None) -> str:
    if address is None:
        return ""
    named = platform.line(address.name) or platform.line(address.first_name, address.last_name)
    return named or platform.line(address.company)


def _address(address: ShopifyAddress) -> str:
    return platform.joined(
        address.address1,
        address.address2,
        platform.line(address.zip, address.city),
        address.province,
        address.country,
    )


PLATFORM = Platform(
    name="shopify",
    title="Shopify",
    signature="X-Shopify-Hmac-Sha256",
    topic="X-Shopify-Topic",
    delivery="X-Shopify-Webhook-Id",
    shop="X-Shopify-Shop-Domain",
    headers={
        "X-Shopify-Hmac-Sha256": (
            "The base64 of the HMAC-SHA256 of the raw body, keyed with the secret that Shopify "
            "shows and that you gave us."
        ),
        "X-Shopify-Topic": "Such as `orders/create`.",
        "X-Shopify-Shop-Domain": "The shop, such as `kettles.myshopify.com`.",
        "X-Shopify-Webhook-Id": "The id of the delivery, the same for each retry.",
    },
    required=("X-Shopify-Hmac-Sha256", "X-Shopify-Topic"),
    topics={
        "orders/create": "new",
        "orders/updated": "change",
        "orders/paid": "change",
        "orders/fulfilled": "change",
        "orders/partially_fulfilled": "change",
        "orders/cancelled": "change",
    },
    privacy=("customers/redact", "customers/data_request", "shop/redact"),
    gives_secret=True,
    order=ShopifyOrder,
    needed=("id", "cancelled_at", "financial_status", "fulfillment_status", "fulfillments"),
    read=_read,
    states=STATES,
    test="X-Shopify-Test",
)
