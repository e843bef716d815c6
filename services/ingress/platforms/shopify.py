"""Shopify: its webhooks over HTTPS, and the orders of its REST Admin API, which they carry.

From its documentation: `X-Shopify-Hmac-Sha256` is made with the secret that Shopify shows (of an
app, or of the shop's own webhooks). A delivery that is not answered 2xx within 5 s is tried again 8
times in 4 hours, with the same `X-Shopify-Webhook-Id`; after that a subscription may be deleted, so
what is not wanted here is answered 200 too. `X-Shopify-Event-Id` is the same for several deliveries
of one action, of several topics, and names none of them.

A test notification (`X-Shopify-Test: true`) carries a made-up order with a stranger's address.
"""

from collections.abc import Iterator

import msgspec

from services.ingress.platforms import platform
from services.ingress.platforms.platform import (
    NO_ADDRESS,
    NO_NAME,
    REFUNDED,
    Platform,
    Said,
    State,
    Text,
)
from shared.bus.contract.events import TrackingStatus
from shared.languages.shops import our_word


class ShopifyAddress(msgspec.Struct):
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


class ShopifyCustomer(msgspec.Struct):
    """`customer`: null for a guest's order."""

    first_name: Text = None
    last_name: Text = None
    email: Text = None
    phone: Text = None


class ShopifyItem(msgspec.Struct):
    """One of `line_items`."""

    name: Text = None
    title: Text = None
    quantity: int | None = None
    current_quantity: int | None = None
    requires_shipping: bool | None = None


class ShopifyFulfillment(msgspec.Struct):
    """One of `fulfillments`: a parcel, or what needs none, such as a gift card."""

    status: str | None = None
    shipment_status: str | None = None
    tracking_company: Text = None
    tracking_number: Text = None
    tracking_url: Text = None
    line_items: list[ShopifyItem] | None = None


class ShopifyMoney(msgspec.Struct):
    """A sum, in one currency."""

    amount: Text = None
    currency_code: Text = None


class ShopifyPrice(msgspec.Struct):
    """`total_price_set`: in the shop's currency, which is not read, and in the customer's."""

    presentment_money: ShopifyMoney | None = None


class ShopifyOrder(msgspec.Struct):
    """What is read of an order of Shopify; whatever else it has is passed over."""

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
    # A parcel may have them after `null`, and a customer hears of no parcel that goes back.
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


def _read(order: ShopifyOrder, shop: str) -> Said:
    customer = order.customer or ShopifyCustomer()
    shipping, billing = order.shipping_address, order.billing_address
    place = shipping or billing or ShopifyAddress()
    number = order.order_number
    sent = _sent(_parcels(order))
    parcel = sent[-1] if sent else ShopifyFulfillment()
    status = _status(order)
    return Said(
        # Counted by Shopify for all shops together, so no shop need be named.
        key=str(order.id),
        number=platform.reference(order.name) or platform.reference(number or order.id),
        shop=platform.line(shop),
        # An import sets it: it is the date that the shop shows.
        made=order.processed_at or order.created_at or "",
        status=status,
        is_placed=status is not TrackingStatus.CANCELLED,
        reason=_reason(order),
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
        carrier=platform.reference(parcel.tracking_company),
        tracking_number=platform.reference(parcel.tracking_number),
        tracking_url=platform.link(parcel.tracking_url),
    )


def _status(order: ShopifyOrder) -> TrackingStatus | None:
    if order.cancelled_at:
        return TrackingStatus.CANCELLED
    parcels = _parcels(order)
    sent = _sent(parcels)
    is_all = order.fulfillment_status == "fulfilled"
    if not sent and (parcels or not is_all):
        if order.financial_status == "refunded" and order.fulfillment_status != "partial":
            return TrackingStatus.CANCELLED
        return TrackingStatus.PENDING if any(p.status in _FAILED for p in parcels) else None
    arrived = _ARRIVED if _is_shipped(order) else (None, *_ARRIVED)
    if is_all and (sent or None in arrived) and all(p.shipment_status in arrived for p in sent):
        return TrackingStatus.DELIVERED
    steps = [_PARCELS.get(str(p.shipment_status or "null").lower(), _ON_ITS_WAY) for p in sent]
    return max(steps, key=_STEPS.index, default=_ON_ITS_WAY)


def _lines(order: ShopifyOrder) -> Iterator[tuple[Text, Text]]:
    """How many of what; without what was taken out of the order since it was made."""
    return (
        (item.quantity if item.current_quantity is None else item.current_quantity,
         item.name or item.title)
        for item in order.line_items or ()
        if item.current_quantity != 0
    )  # fmt: skip


def _total(order: ShopifyOrder) -> str:
    """What the customer pays, in the customer's currency where that is known."""
    for price in (order.current_total_price_set, order.total_price_set):
        paid = price.presentment_money if price else None
        if paid and (total := platform.amount(paid.amount, paid.currency_code)):
            return total
    current = platform.amount(order.current_total_price, order.currency)
    return current or platform.amount(order.total_price, order.currency)


def _parcels(order: ShopifyOrder) -> list[ShopifyFulfillment]:
    """The fulfilments that are parcels: where their lines are not known, they are."""
    return [
        one
        for one in order.fulfillments or ()
        if not one.line_items or any(item.requires_shipping is not False for item in one.line_items)
    ]


def _sent(parcels: list[ShopifyFulfillment]) -> list[ShopifyFulfillment]:
    return [parcel for parcel in parcels if parcel.status not in _NOT_SENT]


def _is_shipped(order: ShopifyOrder) -> bool:
    """Whether anything is sent anywhere; what is bought in a shop is handed over there."""
    if order.shipping_address is None:
        return False
    return any(item.requires_shipping is not False for item in order.line_items or ())


def _reason(order: ShopifyOrder) -> str:
    if order.cancelled_at:
        return _REASONS.get(order.cancel_reason or "", "")
    return REFUNDED if order.financial_status == "refunded" else ""


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
        "X-Shopify-Webhook-Id": "Names the delivery, the same for each try.",
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
    gives_secret=True,
    order=ShopifyOrder,
    needed=("id", "cancelled_at", "financial_status", "fulfillment_status", "fulfillments"),
    read=_read,
    states=STATES,
    test="X-Shopify-Test",
)
