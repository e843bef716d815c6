"""WooCommerce: its webhooks, and the orders of its REST API (`wc/v3`, and v1 and v2, which agree).

From its source (`includes/class-wc-webhook.php`): `X-WC-Webhook-Signature` is made with the secret
that the shop's owner has pasted, as text. The ping when a webhook is made is not signed, and must
be answered 200. What fails is not sent again, and after the sixth failure in a row the webhook is
off.

`X-WC-Webhook-Delivery-ID` names the webhook and the second: two orders of one second share it. So
it tells nothing apart here; what is sent twice is known by what it says. Nor does
`X-WC-Webhook-Source`, which is not signed: which shop an order is of stands in its `_links`.
"""

import re
from functools import lru_cache

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


class WooCommercePerson(msgspec.Struct):
    """`billing` or `shipping`; a guest's as well as a registered customer's."""

    first_name: Text = None
    last_name: Text = None
    company: Text = None
    address_1: Text = None
    address_2: Text = None
    city: Text = None
    state: Text = None
    postcode: Text = None
    country: Text = None
    email: Text = None
    phone: Text = None


class WooCommerceItem(msgspec.Struct):
    """One of `line_items`."""

    name: Text = None
    quantity: Text = None


class WooCommerceMethod(msgspec.Struct):
    """One of `shipping_lines`."""

    method_id: str | None = None


class WooCommerceMeta(msgspec.Struct):
    """One of `meta_data`."""

    key: str | None = None
    value: msgspec.Raw = msgspec.field(default_factory=msgspec.Raw)


class WooCommerceOrder(msgspec.Struct):
    """What is read of an order of WooCommerce; whatever else it has is passed over."""

    id: int
    status: str | None = None
    number: Text = None
    currency: Text = None
    total: Text = None
    order_key: Text = None
    date_created_gmt: str | None = None
    date_modified_gmt: str | None = None
    date_completed_gmt: str | None = None
    date_created: str | None = None
    date_modified: str | None = None
    date_completed: str | None = None
    billing: WooCommercePerson | None = None
    shipping: WooCommercePerson | None = None
    line_items: list[WooCommerceItem] | None = None
    shipping_lines: list[WooCommerceMethod] | None = None
    meta_data: list[WooCommerceMeta] | None = None
    links: msgspec.Raw = msgspec.field(name="_links", default_factory=msgspec.Raw)


_SHIPPED = "it is shipped: a line of `shipping_lines` is no local pickup"
STATES = (
    State("", "it is empty, or null", None, is_placed=False),
    State("auto-draft", "", None, is_placed=False),
    State("draft", "", None, is_placed=False),
    State("new", "", None, is_placed=False),
    State("checkout-draft", "", None, is_placed=False),
    State("pending", "", None, is_placed=False),
    State("on-hold", "", None),
    State("processing", "", None),
    State("pending, on-hold, processing", "it was completed before", TrackingStatus.PENDING),
    State("failed", "", None, is_placed=False),
    State("completed", _SHIPPED, TrackingStatus.IN_TRANSIT),
    State("completed", "nothing is shipped", TrackingStatus.DELIVERED),
    State("partial-shipped", "", TrackingStatus.IN_TRANSIT),
    State("shipped", "", TrackingStatus.IN_TRANSIT),
    State("out-for-delivery", "", TrackingStatus.OUT_FOR_DELIVERY),
    State("delivered", "", TrackingStatus.DELIVERED),
    State("cancelled", "", TrackingStatus.CANCELLED, is_placed=False),
    State("refunded", "it was never completed", TrackingStatus.CANCELLED, is_placed=False),
    State("refunded", "it was completed before", None, is_placed=False),
    State("any, with `refunds` of a part", "", None),
    State("trash", "", None, is_placed=False),
    State("any other", "", None),
)
_ALWAYS = {state.theirs: state.ours for state in STATES if not state.when}
_NOT_PLACED = {state.theirs for state in STATES if not state.is_placed}
_OPEN = ("pending", "on-hold", "processing")
_TEN_MINUTES = len("2026-11-02T08:0")
"""Characters of a time by which it is told apart from others to ten minutes."""
_PICKUP = ("local_pickup", "pickup_location")
# Before it stands the shop's address, and what its REST API is called there: `wp-json` as a rule,
# or behind a question mark where links are plain.
_ORDERS = re.compile(r"https?://(.+?)(/index\.php)?(/wp-json|/?\?rest_route=)?/wc/v[0-9]+/orders")


def _read(order: WooCommerceOrder, _: str) -> Said:
    billing, shipping = order.billing or WooCommercePerson(), order.shipping or WooCommercePerson()
    parcel, shop = _parcel(order), _shop(order)
    number, key = f"{shop}\x1f{order.id}", platform.reference(order.order_key)
    spelled = f"{number}\x1f{key}" if key else number
    # Keys are drawn by lot, so no two shops need be told apart by how their addresses are spelled.
    one = f"{_without_language(shop)}\x1f{order.id}\x1f{key}" if key else number
    made = order.date_created_gmt or order.date_created or ""
    modified = order.date_modified_gmt or order.date_modified or ""
    state = (order.status or "").strip().lower().removeprefix("wc-")
    status = _status(order, state)
    return Said(
        # A shop that is installed anew or restored begins to count again; keys it draws by lot.
        key=one,
        is_unique=bool(key),
        former_key=number if key else "",
        spelled_key=spelled if spelled != one else "",
        made=made,
        is_untouched=made[:_TEN_MINUTES] == modified[:_TEN_MINUTES],
        is_placed=state not in _NOT_PLACED or status is TrackingStatus.PENDING,
        number=platform.reference(order.number) or platform.reference(order.id),
        shop=platform.line(shop),
        status=status,
        reason=REFUNDED if state == "refunded" else "",
        # API version v1 has the shop's own time alone.
        at=platform.moment(modified),
        name=_name(billing) or _name(shipping) or NO_NAME,
        email=platform.email(billing.email),
        phone=platform.line(billing.phone or shipping.phone),
        items=platform.listed(
            ((item.quantity, platform.plain(item.name)) for item in order.line_items or ()),
            platform.amount(order.total, order.currency),
        ),
        address=_address(shipping) or _address(billing) or NO_ADDRESS,
        carrier=platform.reference(parcel.custom_tracking_provider)
        or platform.reference(parcel.tracking_provider),
        tracking_number=platform.reference(parcel.tracking_number),
        tracking_url=platform.link(parcel.custom_tracking_link),
    )


class _Parcel(msgspec.Struct):
    """As WooCommerce's own extension Shipment Tracking keeps it, and others like it."""

    tracking_provider: Text = None
    custom_tracking_provider: Text = None
    custom_tracking_link: Text = None
    tracking_number: Text = None


def _parcel(order: WooCommerceOrder) -> _Parcel:
    """The parcel that was added last."""
    for meta in order.meta_data or ():
        if meta.key == "_wc_shipment_tracking_items":
            try:
                parcels = _parcels.decode(meta.value)
            except (ValueError, RecursionError):
                continue  # another plugin's idea of it
            if parcels:
                return parcels[-1]
    return _Parcel()


_parcels = msgspec.json.Decoder(list[_Parcel])


class _Link(msgspec.Struct):
    href: str = ""


class _Links(msgspec.Struct):
    self_: list[_Link] = msgspec.field(name="self", default_factory=list)


def _shop(order: WooCommerceOrder) -> str:
    """Which shop it is, as the body says: each counts its orders by itself.

    Without the scheme, which shops change; empty where a plugin has taken the links away.
    """
    try:
        link = _links.decode(order.links).self_[0]
    except (ValueError, RecursionError, IndexError):
        return ""
    return _shop_at(link.href.rpartition("/")[0])


@lru_cache(maxsize=1_000)
def _shop_at(orders: str) -> str:
    found = _ORDERS.fullmatch(orders)
    return found[1].rstrip("/").lower() if found else ""


@lru_cache(maxsize=1_000)
def _without_language(shop: str) -> str:
    """A shop's address without the language that its links may have.

    Plugins for several languages (WPML, Polylang, TranslatePress) put that of the request in which
    a delivery is made behind it: of one order some come by `/fr`, and some without.
    """
    return _LANGUAGE.sub("", shop)


_LANGUAGE = re.compile(r"/[a-z]{2}(?:[-_][a-z]{2,4})?\Z")
_links = msgspec.json.Decoder(_Links)


def _name(person: WooCommercePerson) -> str:
    return platform.line(person.first_name, person.last_name) or platform.line(person.company)


def _status(order: WooCommerceOrder, status: str) -> TrackingStatus | None:
    if status == "completed":
        return TrackingStatus.IN_TRANSIT if _is_shipped(order) else TrackingStatus.DELIVERED
    was_completed = bool(order.date_completed_gmt or order.date_completed)
    if status == "refunded":
        return None if was_completed else TrackingStatus.CANCELLED
    if status in _OPEN and was_completed:
        return TrackingStatus.PENDING
    return _ALWAYS.get(status)


def _is_shipped(order: WooCommerceOrder) -> bool:
    return any(method.method_id not in _PICKUP for method in order.shipping_lines or ())


def _address(person: WooCommercePerson) -> str:
    return platform.joined(
        person.address_1,
        person.address_2,
        platform.line(person.postcode, person.city),
        person.state,
        person.country,
    )


PLATFORM = Platform(
    name="woocommerce",
    title="WooCommerce",
    signature="X-WC-Webhook-Signature",
    topic="X-WC-Webhook-Topic",
    delivery="X-WC-Webhook-Delivery-ID",
    shop="X-WC-Webhook-Source",
    headers={
        "X-WC-Webhook-Signature": (
            "The base64 of the HMAC-SHA256 of the raw body, keyed with your webhook secret "
            "(`whsk_...` or `whsec_...`, as it stands)."
        ),
        "X-WC-Webhook-Topic": "Such as `order.created`.",
        "X-WC-Webhook-Source": "The address of the shop; it is not signed, and counts for nothing.",
        "X-WC-Webhook-Delivery-ID": "Names the webhook and the second.",
    },
    required=("X-WC-Webhook-Signature", "X-WC-Webhook-Topic", "X-WC-Webhook-Source"),
    topics={"order.created": "new", "order.updated": "change"},
    gives_secret=False,
    order=WooCommerceOrder,
    needed=("id", "status", "shipping_lines"),
    wrapped=(
        "This is an order of the Legacy REST API. Choose WP REST API Integration v3 as the API "
        "version of the webhook."
    ),
    read=_read,
    states=STATES,
    ping=re.compile(rb"webhook_id=[0-9]{1,20}\s*"),
)
