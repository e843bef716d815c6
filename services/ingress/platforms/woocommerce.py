"""WooCommerce: its webhooks, and the orders of its REST API (`wc/v3`, and v1 and v2, which agree).

From its source (`includes/class-wc-webhook.php`): the key of `X-WC-Webhook-Signature` is the text
that the shop's owner pasted as the secret. The ping at the creation of a webhook is not signed, and
must be answered 200. A failed delivery is not retried, and the seventh failure in a row disables
the webhook.

`X-WC-Webhook-Delivery-ID` is made of the webhook and the second, so two orders of one second share
it, and it identifies no delivery: copies are detected by their content. `X-WC-Webhook-Source` is
not signed: the shop of an order is read from the order's `_links`.
"""

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import msgspec
from msgspec import structs

from services.ingress.platforms import lenient_reading, platform
from services.ingress.platforms.platform import (
    NO_ADDRESS,
    NO_NAME,
    REFUNDED,
    OrderContent,
    OrderGoneError,
    Platform,
    State,
    Text,
)
from shared.bus.contract.events import TrackingStatus
from shared.validation.reading import InvalidValueError


# None of these Structs is part of a reference cycle, so the garbage collector may ignore them.
class WooCommercePerson(msgspec.Struct, gc=False):
    """`billing` or `shipping`, of guests and registered customers."""

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


class WooCommerceItem(msgspec.Struct, gc=False):
    """One of `line_items`."""

    name: Text = None
    quantity: Text = None


class WooCommerceMethod(msgspec.Struct, gc=False):
    """One of `shipping_lines`."""

    method_id: str | None = None


class WooCommerceMeta(msgspec.Struct, gc=False):
    """One of `meta_data`."""

    key: str | None = None
    value: msgspec.Raw = msgspec.field(default_factory=msgspec.Raw)


class WooCommerceOrder(msgspec.Struct, gc=False):
    """The members of a WooCommerce order that are read; others are ignored."""

    id: int
    status: str | None = None
    number: Text = None
    currency: Text = None
    total: Text = None
    order_key: Text = None
    created_via: Text = None
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


_WRITTEN_DOWN = (
    "it has no line of `shipping_lines`, an address in `shipping`, and was entered by staff or by "
    "the REST API (`created_via`: admin, rest-api or nothing)"
)
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
    State("completed", _WRITTEN_DOWN, TrackingStatus.IN_TRANSIT),
    State("completed", "nothing is shipped", TrackingStatus.DELIVERED),
    State("partial-shipped", "", TrackingStatus.IN_TRANSIT),
    State("partially-shipped", "", TrackingStatus.IN_TRANSIT),
    State("shipped", "", TrackingStatus.IN_TRANSIT),
    State("dispatched", "", TrackingStatus.IN_TRANSIT),
    State("in-transit", "", TrackingStatus.IN_TRANSIT),
    State("out-for-delivery", "", TrackingStatus.OUT_FOR_DELIVERY),
    State("delivered", "", TrackingStatus.DELIVERED),
    State("cancelled", "", TrackingStatus.CANCELLED, is_placed=False),
    State(
        "refunded",
        "it was never completed, and has no parcel",
        TrackingStatus.CANCELLED,
        is_placed=False,
    ),
    State("refunded", "it was completed before, or has a parcel", None, is_placed=False),
    State("any, with `refunds` of a part", "", None),
    State("trash", "", None, is_placed=False),
    State("any other", "", None),
)
_ALWAYS = {state.theirs: state.ours for state in STATES if not state.when}
_NOT_PLACED = {state.theirs for state in STATES if not state.is_placed}
_KNOWN = {status for state in STATES for status in state.theirs.split(", ")}
_OPEN = ("pending", "on-hold", "processing")
_NO_PERSON = WooCommercePerson()
_TEN_MINUTES = len("2026-11-02T08:0")
"""The number of characters of a time that give it to ten minutes."""
_PICKUP = ("local_pickup", "pickup_location")  # prefixes, as of `local_pickup:3`
_BY_HAND = ("admin", "rest-api", "", None)
# The shop's address, and the name of its REST API there: usually `wp-json`; with plain permalinks
# it is in the query.
_ORDERS = re.compile(r"https?://(.+?)(/index\.php)?(/wp-json|/?\?rest_route=)?/wc/v[0-9]+/orders")


def _read(order: WooCommerceOrder, _: str) -> OrderContent:
    billing, shipping = order.billing or _NO_PERSON, order.shipping or _NO_PERSON
    shop = _shop(order)
    number, key = f"{shop}\x1f{order.id}", platform.reference(order.order_key)
    # Order keys are random, so the spelling of a shop's address need not tell two shops apart.
    spelled_alike = _without_language(shop) if key else shop
    made = order.date_created_gmt or order.date_created or ""
    modified = order.date_modified_gmt or order.date_modified or ""
    state = (order.status or "").strip().lower().removeprefix("wc-")
    status = _status(order, state)
    content = OrderContent(
        # A reinstalled or restored shop starts its ids again; the random keys differ.
        key=f"{spelled_alike}\x1f{order.id}\x1f{key}" if key else number,
        is_unique=bool(key),
        former_key=number if key else "",
        spelled_key=f"{number}\x1f{key}" if spelled_alike != shop else "",
        made=made,
        is_untouched=made[:_TEN_MINUTES] == modified[:_TEN_MINUTES],
        is_placed=state not in _NOT_PLACED or status is TrackingStatus.PENDING,
        number=platform.reference(order.number) or platform.reference(order.id),
        shop=platform.line(shop),
        status=status,
        unknown_status="" if state in _KNOWN else platform.code(state),
        reason=REFUNDED if state == "refunded" else "",
        # API version v1 has the shop's local time alone.
        at=platform.moment(modified),
        name=_name(billing) or _name(shipping) or NO_NAME,
        email=platform.email(billing.email),
        phone=platform.line(billing.phone or shipping.phone),
        items=platform.listed(
            ((item.quantity, platform.plain(item.name)) for item in order.line_items or ()),
            platform.amount(order.total, order.currency),
        ),
        address=_address(shipping) or _address(billing) or NO_ADDRESS,
    )
    parcel = _parcel(order)
    return structs.replace(content, **parcel) if parcel else content


class _Parcel(msgspec.Struct, gc=False):
    """A parcel in the format of WooCommerce's extension Shipment Tracking, which others copy."""

    tracking_provider: Text = None
    custom_tracking_provider: Text = None
    custom_tracking_link: Text = None
    tracking_number: Text = None


def _parcel(order: WooCommerceOrder) -> dict[str, Any]:
    """Return the tracking data of the parcel that was added last; empty if there is none."""
    for meta in order.meta_data or ():
        if meta.key == "_wc_shipment_tracking_items":
            try:
                parcels = _parcels.decode(meta.value)
            except (ValueError, RecursionError):
                # Plugins remove a parcel and leave a gap in the array, or write other values.
                found = lenient_reading.fitting(meta.value, list[_Parcel]) or []
                parcels = [p for p in found if p.tracking_number or p.custom_tracking_link]
            if parcels:
                return _tracking(parcels[-1])
    return {}


_parcels = msgspec.json.Decoder(list[_Parcel])


def _tracking(parcel: _Parcel) -> dict[str, Any]:
    return {
        "carrier": platform.reference(parcel.custom_tracking_provider)
        or platform.reference(parcel.tracking_provider),
        "tracking_number": platform.reference(parcel.tracking_number),
        "tracking_url": platform.link(parcel.custom_tracking_link),
    }


class _Link(msgspec.Struct, gc=False):
    href: str = ""


class _Links(msgspec.Struct, gc=False):
    self_: list[_Link] = msgspec.field(name="self", default_factory=list)


def _shop(order: WooCommerceOrder) -> str:
    """Return the shop's address from the order's links; each shop numbers its own orders.

    It has no scheme, since shops change that; empty if a plugin removed the links.
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
    """Return a shop's address without the language that its links may have.

    Plugins for several languages (WPML, Polylang, TranslatePress) append the language of the
    request that causes a delivery: of one order some deliveries have `/fr`, and some do not.
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
        has_left = was_completed or bool(_parcel(order))
        return None if has_left else TrackingStatus.CANCELLED
    if status in _OPEN and was_completed:
        return TrackingStatus.PENDING
    return _ALWAYS.get(status)


def _is_shipped(order: WooCommerceOrder) -> bool:
    """Return whether the order has items to ship.

    A checkout writes a shipping line if it has, and the block checkout writes an address in any
    case; a renewal of a subscription copies both. An order entered by staff or a program may lack
    the line, so there the address decides.
    """
    if order.shipping_lines or order.created_via not in _BY_HAND:
        return any(
            not (method.method_id or "").startswith(_PICKUP)
            for method in order.shipping_lines or ()
        )
    place = order.shipping or _NO_PERSON
    return bool(place.address_1 or place.postcode or place.city)


def _address(person: WooCommercePerson) -> str:
    return platform.joined(
        person.address_1,
        person.address_2,
        platform.line(person.postcode, person.city),
        person.state,
        person.country,
    )


def _instead(body: Mapping[str, Any]) -> None:
    """Raise if the body is an error of WooCommerce's REST API, which it sends in an order's place.

    It reads the order as the user who made the webhook.
    """
    if isinstance(body.get("order"), dict):
        raise InvalidValueError(
            "This is an order of the Legacy REST API. Choose WP REST API Integration v3 as the API "
            "version of the webhook."
        )
    code, data = body.get("code"), body.get("data")
    if not isinstance(code, str) or not isinstance(data, dict) or "status" not in data:
        return
    if code.endswith("_invalid_id"):
        raise OrderGoneError
    raise InvalidValueError(
        f"WooCommerce could not read the order itself (`{platform.code(code)}`): "
        + (
            "the user who made the webhook may no longer see orders. Save it again as an "
            "administrator."
            if data["status"] in (401, 403)
            else "the logs of WooCommerce say why its REST API does not return it."
        )
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
            "The base64 of the HMAC-SHA256 of the raw body, keyed with the text of your webhook "
            "secret (`whsk_...` or `whsec_...`)."
        ),
        "X-WC-Webhook-Topic": "Such as `order.created`.",
        "X-WC-Webhook-Source": "The address of the shop; it is not signed, and is ignored.",
        "X-WC-Webhook-Delivery-ID": "Made of the webhook and the second.",
    },
    required=("X-WC-Webhook-Signature", "X-WC-Webhook-Topic", "X-WC-Webhook-Source"),
    topics={"order.created": "new", "order.updated": "change"},
    gives_secret=False,
    order=WooCommerceOrder,
    needed=("id", "status", "shipping_lines"),
    instead=_instead,
    read=_read,
    states=STATES,
    ping=re.compile(rb"webhook_id=[0-9]{1,20}\s*"),
)
