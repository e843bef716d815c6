"""The orders of platforms, converted to our terms."""

import json
import re
from datetime import UTC, datetime, timedelta
from itertools import product
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET

from services.ingress.platforms import lenient_reading, order_events
from services.ingress.platforms import platform as platforms
from services.ingress.platforms.known import PLATFORMS
from services.ingress.platforms.shopify import PLATFORM as SHOPIFY
from services.ingress.platforms.woocommerce import PLATFORM as WOOCOMMERCE
from services.ingress.shops import deliveries
from services.ingress.webhook import missing_headers
from shared.bus.contract.events import EVENT_TYPES, TrackingStatus, decode, encode
from shared.ids import derived_id, normalised_number
from shared.security.webhook_keys import GIVEN_BY
from shared.validation.foreign_shapes import SHAPES
from shared.validation.reading import InvalidValueError
from stack.folders import ROOT
from tests.unit.ingress.platforms import orders
from tests.unit.ingress.platforms.orders import parcel
from tests.unit.ingress.platforms.tables import table

ACCOUNT = UUID(int=1)
NOW = datetime(2026, 11, 2, 8, 5, tzinfo=UTC)
SHOP = "https://kettles.example/"
PENDING, DELIVERED = TrackingStatus.PENDING, TrackingStatus.DELIVERED
ON_ITS_WAY, OUT = TrackingStatus.IN_TRANSIT, TrackingStatus.OUT_FOR_DELIVERY
CANCELLED = TrackingStatus.CANCELLED


def say(platform, order, shop=SHOP):
    return platform.read(msgspec.json.decode(orders.raw(order), type=platform.order), shop)


def woo(shop=SHOP, **changes):
    return say(WOOCOMMERCE, orders.woocommerce(**changes), shop)


def shopify(shop="kettles.myshopify.com", **changes):
    return say(SHOPIFY, orders.shopify(**changes), shop)


@pytest.mark.parametrize("platform", PLATFORMS, ids=lambda platform: platform.name)
def test_the_documented_table_of_states_is_the_codes(platform):
    text = (ROOT / "docs" / "platforms.md").read_text()
    shown = re.search(rf"<!-- states: {platform.name} -->(.*?)<!-- end -->", text, re.DOTALL)
    assert shown[1].strip() == table(platform)


@pytest.mark.parametrize("platform", PLATFORMS, ids=lambda platform: platform.name)
def test_other_refusals_point_to_the_platforms_url(platform):
    assert platform.gives_secret == (platform.name in GIVEN_BY)
    assert GIVEN_BY.get(platform.name, platform.title) == platform.title
    shape = next(shape for shape in SHAPES if platform.title in shape.name)
    assert f"`POST /api/v1{platform.path}`" in shape.remedy
    headers = [(platform.signature.lower().encode(), b"x")]
    faults = missing_headers.faults(missing_headers.API_KEY, headers)
    assert any(f"POST /api/v1{platform.path}" in fault for fault in faults)
    assert set(platform.required) <= set(platform.headers)


def test_an_order_of_woocommerce():
    said = woo()
    assert said.number == "727"
    assert (said.name, said.email, said.phone) == ("Zoë Ade", "zoe@shop.example", "+2348000000")
    assert said.items == "2 x Blue kettle, 1 x Lid - Red\nTotal: 68.90 EUR"
    assert said.address == "12 Marina Road, 101001 Lagos, LA, NG"
    assert said.at == datetime(2026, 11, 2, 8, 0, 5, tzinfo=UTC)
    assert said.status is None


def test_an_order_of_shopify():
    said = shopify()
    assert said.number == "#1001"
    assert (said.name, said.email, said.phone) == ("Zoë Ade", "zoe@shop.example", "+2348000000")
    assert said.items == "2 x Kettle - Blue, 1 x Lid\nTotal: 68.90 EUR"
    assert said.address == "12 Marina Road, 101001 Lagos, Lagos, Nigeria"
    assert said.at == datetime(2026, 11, 2, 8, 0, 5, tzinfo=UTC)
    assert said.status is None


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Salt &amp; Pepper <b>XL</b>", "Salt & Pepper XL"),
        ('Kettle - <span class="size">1&nbsp;l</span><br/>Blue', "Kettle - 1 l Blue"),
        ("L&#8217;eau &lt;3", "L’eau <3"),
        ("Salt & Pepper, R&D; 5 < 6 > 4 <3", "Salt & Pepper, R&D; 5 < 6 > 4 <3"),
        ("<img src=x>", "?"),
        ("&lt;b&gt;" * 1_000, "<b>" * 66 + "<b"),
        ("<" * 100_000, "<" * 200),
        ("<" + "a" * 100_000, "<" + "a" * 199),
        ("&#" + "1" * 5_000, "\ufffd"),
    ],
)
def test_html_is_removed_from_product_names(name, said):
    """WooCommerce sends names as its pages print them."""
    listed = woo(line_items=[{"name": name, "quantity": 1}]).items
    assert listed == f"1 x {said}\nTotal: 68.90 EUR"


def price(amount, paid):
    """A price of Shopify: in the currencies of shop and customer."""
    return {
        "shop_money": {"amount": amount, "currency_code": "EUR"},
        "presentment_money": {"amount": paid, "currency_code": "NGN"},
    }


def test_the_total_of_shopify_is_in_the_customers_currency():
    paid = {"total_price_set": price("68.90", "118000.00"), "presentment_currency": "NGN"}
    assert shopify(**paid).items.endswith("\nTotal: 118000.00 NGN")
    nothing = {"presentment_money": None}
    for odd in (None, {}, nothing, {"presentment_money": {"amount": None}}):
        assert shopify(total_price_set=odd).items.endswith("\nTotal: 68.90 EUR")


def test_removed_lines_of_shopify_are_left_out():
    lines = orders.shopify()["line_items"]
    left = [lines[0] | {"current_quantity": 1}, lines[1] | {"current_quantity": 0}]
    changed = {"line_items": left, "current_total_price": "30.00"}
    assert shopify(**changed).items == "1 x Kettle - Blue\nTotal: 30.00 EUR"
    changed["total_price_set"] = price("68.90", "118000.00")
    changed["current_total_price_set"] = price("30.00", "51000.00")
    assert shopify(**changed).items == "1 x Kettle - Blue\nTotal: 51000.00 NGN"


BILLING = orders.woocommerce()["billing"]
ODD = [
    {"billing": BILLING | {"phone": False, "postcode": []}},
    {"shipping": []},
    {"shipping": "none", "currency": ["EUR"], "number": False},
    {"line_items": {"0": orders.woocommerce()["line_items"][0], "2": {"name": [], "quantity": {}}}},
    {"line_items": [None, 5, {"name": "Kettle"}]},
    {"meta_data": [{"key": 5, "value": 1}, {"key": "_x"}]},
    {"meta_data": {"3": {"key": "_x", "value": []}}},
    {"shipping_lines": {"7": {"method_id": "flat_rate"}}},
    {"date_created_gmt": False, "date_modified_gmt": 5, "date_completed_gmt": False},
    {"order_key": False, "_links": False},
]


@pytest.mark.parametrize("odd", ODD)
def test_an_invalid_optional_member_refuses_no_order(odd):
    read = deliveries.order_of(
        orders.raw(orders.woocommerce(**odd, status="completed")), WOOCOMMERCE
    )
    said = WOOCOMMERCE.read(read, "")
    assert (said.email, said.status) == ("zoe@shop.example", ON_ITS_WAY)
    assert said.address.startswith("12 Marina Road")
    check(WOOCOMMERCE, said)


ODD_OF_SHOPIFY = [
    {"customer": [], "phone": False, "order_number": {}},
    {"shipping_address": [], "line_items": {"1": {"name": "Kettle", "quantity": "2"}}},
    {"currency": 5, "total_price": [], "contact_email": False, "updated_at": 7},
]


@pytest.mark.parametrize("odd", ODD_OF_SHOPIFY)
def test_an_invalid_optional_member_refuses_no_order_of_shopify(odd):
    read = deliveries.order_of(orders.raw(orders.shopify(**odd)), SHOPIFY)
    said = SHOPIFY.read(read, "")
    assert said.email == "zoe@shop.example"
    check(SHOPIFY, said)


@pytest.mark.parametrize(
    ("platform", "body", "fault"),
    [
        (WOOCOMMERCE, {"id": "x"}, "$.id must be"),
        (WOOCOMMERCE, {"id": 1, "status": 5}, "$.status must be"),
        (WOOCOMMERCE, {"id": 1, "shipping_lines": "flat_rate"}, "$.shipping_lines must be"),
        (WOOCOMMERCE, {"number": 1, "billing": []}, "$.id is missing"),
        (WOOCOMMERCE, {"order": {"id": 1}}, "This is an order of the Legacy REST API"),
        (WOOCOMMERCE, [1], "The body must be a JSON object"),
        (SHOPIFY, {"id": 1, "cancelled_at": False}, "$.cancelled_at must be"),
        (SHOPIFY, {"id": 1, "fulfillments": "all", "phone": []}, "$.fulfillments must be"),
    ],
)
def test_an_invalid_needed_member_refuses_the_order(platform, body, fault):
    with pytest.raises(InvalidValueError) as refused:
        deliveries.order_of(orders.raw(body), platform)
    (found,) = refused.value.faults
    assert found.startswith(fault)


def rest_error(code, status):
    """The body that WooCommerce sends if its REST API returns no order."""
    return {"code": code, "message": "Sorry, you cannot.", "data": {"status": status}}


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (rest_error("woocommerce_rest_cannot_view", 401), ("cannot_view`", "an administrator.")),
        (rest_error("woocommerce_rest_cannot_view", 403), ("cannot_view`", "an administrator.")),
        (rest_error("rest_no_route", 404), ("`rest_no_route`", "the logs")),
        (rest_error("Zoë <zoe@shop.example>", 500), ("`ozoeshopexample`", "the logs")),
        (rest_error("x" * 5_000, "500"), (f"`{'x' * 60}`", "the logs")),
    ],
)
def test_an_error_of_woocommerces_rest_api_is_recognised(body, words):
    """It is signed like any delivery; seven of them disable the webhook."""
    for topic in ("order.created", "order.updated"):
        with pytest.raises(InvalidValueError) as refused:
            delivered(body, topic)
        (fault,) = refused.value.faults
        assert fault.startswith("WooCommerce could not read the order itself (")
        assert all(word in fault for word in words)
    # With an order around it, it is one.
    assert delivered(orders.woocommerce() | body, "order.created").message is not None


@pytest.mark.parametrize("code", ["data", "woocommerce_rest_shop_order_invalid_id"])
@pytest.mark.parametrize("data", [None, "", 404, []])
def test_a_body_that_is_no_rest_error_lacks_its_id(code, data):
    with pytest.raises(InvalidValueError, match=r"\$\.id is missing"):
        delivered({"code": code, "data": data}, "order.updated")


def test_a_deleted_order_gets_a_note():
    """It is no failure, and seven refusals disable the webhook."""
    body = rest_error("woocommerce_rest_shop_order_invalid_id", 404)
    assert delivered(body, "order.updated") == deliveries.Delivery("order_gone")


@pytest.mark.parametrize(
    ("status", "fault"),
    [
        ("wc-On-the-way", "The status `on-the-way` "),
        ("Zoë <zoe@shop.example> " * 9, "The status `zozoeshopexamplezozoe"),
        ("processing", ""),
        ("trash", ""),
    ],
)
def test_an_unknown_status_is_named_in_the_request_log(status, fault):
    """The body is not kept, and `no_change` alone does not say which status is missing."""
    order = orders.woocommerce(status=status, date_created_gmt="2026-11-01T08:00:00")
    found = delivered(order, "order.updated")
    assert found.note == "no_change"
    assert found.fault.startswith(fault)
    assert ".md" not in found.fault  # a sender has no such file
    assert (len(found.fault) > 0, len(found.fault) < 300) == (bool(fault), True)
    assert delivered(order, "order.created").fault == ""


@pytest.mark.parametrize(
    ("platform", "topic", "named"),
    [
        (SHOPIFY, "fulfillments/create", "`fulfillments/create` "),
        (SHOPIFY, "<Zoë> " * 99, "`" + "zo" * 30 + "` "),
        (SHOPIFY, "Order.Created", "`order.created` "),
        (SHOPIFY, "<Ω>", "This topic is "),
        (WOOCOMMERCE, "order.restored", "`order.restored` "),
    ],
)
def test_an_unread_topic_is_named_with_those_that_are_read(platform, topic, named):
    found = deliveries.read(platform, {platform.topic: topic}.get, b"{}", ACCOUNT, NOW)
    assert found.note == "topic_not_taken"
    assert found.fault.startswith(named)
    assert all(f"`{taken}`" in found.fault for taken in platform.topics)
    assert len(found.fault) < 300


def delivered(body, topic):
    header = {WOOCOMMERCE.topic: topic}.get
    return deliveries.read(WOOCOMMERCE, header, orders.raw(body), ACCOUNT, NOW)


@pytest.mark.parametrize("platform", PLATFORMS, ids=lambda platform: platform.name)
def test_a_refusal_repeats_no_text_of_the_body(platform):
    """The sentence goes into the request log."""
    refused = set()
    for name, value in product(platform.needed, ("Zoë Ade", ["Zoë Ade"], {"Zoë": "Ade"})):
        try:
            deliveries.order_of(orders.raw({"id": 1} | {name: value}), platform)
        except InvalidValueError as error:
            refused.add((name, "Zoë" in str(error)))
    assert refused == {(name, False) for name in platform.needed}


@pytest.mark.parametrize("platform", PLATFORMS, ids=lambda platform: platform.name)
def test_an_id_in_digits_is_a_number(platform):
    order = MADE[platform.name]
    read = deliveries.order_of(orders.raw(order | {"id": str(order["id"])}), platform)
    assert platform.read(read, SHOP) == say(platform, order)
    with pytest.raises(InvalidValueError):
        deliveries.order_of(orders.raw(order | {"id": "9" * 4_000}), platform)


def many(item, most=10_000):
    return [item] * most


LINES = many({"quantity": 1})


@pytest.mark.parametrize(
    ("platform", "body"),
    [
        (WOOCOMMERCE, {"total": False, "line_items": LINES}),
        (WOOCOMMERCE, {"total": False, "meta_data": dict(enumerate(many({"key": "_x"})))}),
        (WOOCOMMERCE, {"total": False, "shipping_lines": many({"method_id": "flat_rate"})}),
        (SHOPIFY, {"phone": False, "line_items": LINES}),
        (SHOPIFY, {"phone": False, "fulfillments": many({"status": "success"})}),
        (SHOPIFY, {"phone": False, "fulfillments": many({"line_items": LINES[:100]}, 100)}),
    ],
    ids=["lines", "meta_data", "shipping_lines", "of Shopify", "parcels", "lines of parcels"],
)
def test_lenient_reading_is_limited_in_items(platform, body, monkeypatch):
    """Each is read on the event loop of a worker, which blocks other senders."""
    order = {WOOCOMMERCE: orders.woocommerce, SHOPIFY: orders.shopify}[platform](**body)
    converted = counted(msgspec, "convert", monkeypatch)
    if body.keys() & set(platform.needed):
        with pytest.raises(InvalidValueError, match="must have at most 2,000 items"):
            deliveries.order_of(orders.raw(order), platform)
    else:
        read = deliveries.order_of(orders.raw(order), platform)
        assert platform.read(read, "").email == "zoe@shop.example"
    assert len(converted) < 15_000


def test_only_the_lines_that_are_kept_are_read(monkeypatch):
    lined = counted(platforms, "line", monkeypatch)
    lines = [{"name": "Kettle", "quantity": 2}] * 5_000
    for said in (woo(line_items=lines), shopify(line_items=lines)):
        assert said.items.startswith("2 x Kettle, 2 x Kettle, ")
        assert "2 x Kettle, and more\nTotal: " in said.items
    assert len(lined) < 2_000


def counted(module, name, monkeypatch):
    """The recorded calls of a function."""
    calls, function = [], getattr(module, name)

    def call(*args, **named):
        calls.append(args)
        return function(*args, **named)

    monkeypatch.setattr(module, name, call)
    return calls


def test_the_reason_of_a_cancellation_by_either_name_of_the_state():
    for state in ("refunded", "wc-refunded"):
        assert woo(status=state).reason == "The order was refunded."
    assert woo(status="cancelled").reason == ""


@pytest.mark.parametrize(
    "state",
    ["auto-draft", "draft", "new", "checkout-draft", "wc-pending", "Pending", "FAILED", "", None],
)
def test_a_draft_by_any_of_its_names_waits_to_be_placed(state):
    assert not woo(status=state).is_placed


@pytest.mark.parametrize("state", ["Completed", "wc-Completed", " completed"])
def test_a_state_is_the_same_in_capital_letters(state):
    assert woo(status=state).status is ON_ITS_WAY


def test_api_version_v1_has_times_by_other_names():
    order = orders.woocommerce(date_completed="2026-11-03T09:00:00", status="refunded")
    v1 = {name: value for name, value in order.items() if not name.endswith("_gmt")}
    said = say(WOOCOMMERCE, v1)
    assert said.status is None
    assert said.at == datetime(2026, 11, 2, 9, 0, 5, tzinfo=UTC)
    assert say(WOOCOMMERCE, v1 | {"date_completed": None}).status is CANCELLED


def test_shopify_is_mailed_at_the_first_address_that_can_be():
    customer = orders.shopify()["customer"] | {"email": "zoe@shop.example"}
    assert shopify(email="n/a", contact_email="-", customer=customer).email == "zoe@shop.example"
    assert shopify(email="n/a", contact_email="a@shop.example").email == "a@shop.example"


PICKUP = {"shipping_lines": [{"method_id": "local_pickup"}]}
COMPLETED = {"date_completed_gmt": "2026-11-03T08:00:00"}
TRACKED = {
    "meta_data": [{"key": "_wc_shipment_tracking_items", "value": [{"tracking_number": "JD1"}]}]
}


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        *(({"status": name}, None) for name in ("pending", "processing", "on-hold", "failed")),
        *(({"status": name}, None) for name in ("checkout-draft", "trash", "of-a-plugin", "")),
        ({"status": "completed"}, ON_ITS_WAY),
        *(
            ({"status": "completed", "shipping_lines": [{"method_id": method}]}, DELIVERED)
            for method in ("local_pickup", "local_pickup:3", "local_pickup_plus", "pickup_location")
        ),
        # A checkout by blocks writes an address of what needs none, and a line of what is sent; and
        # what is made of its orders, as a renewal, has the same of both.
        *(
            ({"status": "completed", "shipping_lines": [], "created_via": by}, DELIVERED)
            for by in ("checkout", "store-api", "subscription", "pos-rest-api", "of-a-plugin", 7)
        ),
        # Of what is entered by hand, or by a program, the line may be missing.
        *(
            ({"status": "completed", "shipping_lines": lines, "created_via": by}, ON_ITS_WAY)
            for by in ("admin", "rest-api", "", None)
            for lines in ([], None)
        ),
        ({"status": "completed", **PICKUP, "created_via": "admin"}, DELIVERED),
        *(
            ({"status": "completed", "shipping_lines": [], "created_via": "admin"} | no, DELIVERED)
            for no in ({"shipping": None}, {"shipping": {"address_1": "", "country": "NG"}})
        ),
        ({"status": "shipped"}, ON_ITS_WAY),
        ({"status": "wc-delivered"}, DELIVERED),
        ({"status": "out-for-delivery"}, OUT),
        ({"status": "cancelled"}, CANCELLED),
        ({"status": "cancelled", **COMPLETED}, CANCELLED),
        ({"status": "refunded"}, CANCELLED),
        ({"status": "refunded", **COMPLETED}, None),
        ({"status": "refunded", **TRACKED}, None),
        *(({"status": name}, ON_ITS_WAY) for name in ("in-transit", "wc-dispatched")),
        ({"status": "processing", **COMPLETED}, PENDING),
        ({"refunds": [{"id": 1, "reason": "", "total": "-4.50"}]}, None),
    ],
)
def test_states_of_woocommerce(changes, status):
    assert woo(**changes).status is status


NOT_SHIPPED = [{"name": "E-book", "quantity": 1, "requires_shipping": False}]
SHIPPED = [{"name": "Mug", "quantity": 1, "requires_shipping": True}]
TAKEN_OUT = [SHIPPED[0] | {"current_quantity": 0}]
ALL, PARTLY = {"fulfillment_status": "fulfilled"}, {"fulfillment_status": "partial"}
UNDER_WAY_TO_THE_CARRIER = ("label_purchased", "label_printed", "confirmed")
FETCHED = {"shipping_address": None}
GIFT_CARD = parcel() | {"tracking_number": None, "line_items": NOT_SHIPPED}
"""Shopify fulfils it automatically, once it is paid."""


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({}, None),
        ({"financial_status": "partially_refunded"}, None),
        ({"financial_status": "voided"}, None),
        ({"financial_status": "refunded", "fulfillment_status": "restocked"}, CANCELLED),
        ({"financial_status": "refunded", **ALL, "fulfillments": [parcel()]}, ON_ITS_WAY),
        ({"cancelled_at": "2026-11-03T08:00:00Z", **ALL, "fulfillments": [parcel()]}, CANCELLED),
        ({**ALL, "fulfillments": [parcel()]}, ON_ITS_WAY),
        ({**ALL}, ON_ITS_WAY),
        ({"fulfillment_status": "partial", "fulfillments": [parcel()]}, ON_ITS_WAY),
        ({"fulfillment_status": "partial", "fulfillments": [parcel("delivered")]}, ON_ITS_WAY),
        *(({**ALL, "fulfillments": [parcel(at)]}, None) for at in UNDER_WAY_TO_THE_CARRIER),
        ({**ALL, "fulfillments": [parcel("confirmed"), parcel("out_for_delivery")]}, OUT),
        ({**ALL, "fulfillments": [parcel("out_for_delivery")]}, OUT),
        ({**ALL, "fulfillments": [parcel("attempted_delivery"), parcel("delivered")]}, OUT),
        ({**ALL, "fulfillments": [parcel("delivered"), parcel("in_transit")]}, ON_ITS_WAY),
        ({**ALL, "fulfillments": [parcel("delivered"), parcel("delivered")]}, DELIVERED),
        ({**ALL, "fulfillments": [parcel("delivered"), parcel(status="cancelled")]}, DELIVERED),
        ({**ALL, "fulfillments": [parcel("something_new")]}, ON_ITS_WAY),
        ({"fulfillments": [parcel(status="cancelled")]}, PENDING),
        *(({**ALL, "fulfillments": [parcel(status=at)]}, None) for at in ("pending", "open")),
        ({**PARTLY, "fulfillments": [parcel(), parcel(status="open")]}, ON_ITS_WAY),
        ({**PARTLY, "fulfillments": [parcel(status="cancelled"), parcel(status="open")]}, PENDING),
        ({**PARTLY, "fulfillments": [GIFT_CARD]}, None),
        ({**PARTLY, "fulfillments": [GIFT_CARD, parcel(status="cancelled")]}, PENDING),
        ({**PARTLY, "line_items": NOT_SHIPPED, "fulfillments": [GIFT_CARD]}, None),
        ({**ALL, "fulfillments": [GIFT_CARD, parcel("out_for_delivery")]}, OUT),
        ({**ALL, "fulfillments": [parcel("delivered"), GIFT_CARD]}, DELIVERED),
        ({**ALL, "line_items": NOT_SHIPPED, "fulfillments": [GIFT_CARD]}, DELIVERED),
        # What was taken out before it left is not shipped; what was so later is on its way.
        ({**ALL, "line_items": TAKEN_OUT + NOT_SHIPPED, "fulfillments": [GIFT_CARD]}, DELIVERED),
        ({**ALL, "line_items": SHIPPED + NOT_SHIPPED, "fulfillments": [GIFT_CARD]}, ON_ITS_WAY),
        ({**ALL, "line_items": TAKEN_OUT, "fulfillments": [parcel()]}, ON_ITS_WAY),
        ({**ALL, "line_items": TAKEN_OUT}, ON_ITS_WAY),
        ({**ALL, "line_items": NOT_SHIPPED, "fulfillments": [parcel()]}, DELIVERED),
        ({**ALL, "shipping_address": None, "fulfillments": [parcel()]}, DELIVERED),
        ({**ALL, **FETCHED, "fulfillments": [parcel("picked_up")]}, DELIVERED),
        ({**ALL, **FETCHED, "fulfillments": [parcel("delivered"), parcel()]}, DELIVERED),
        # It waits in the shop to be fetched; or goes to an address that is not among these.
        ({**ALL, **FETCHED, "fulfillments": [parcel("ready_for_pickup")]}, ON_ITS_WAY),
        ({**ALL, **FETCHED, "fulfillments": [parcel("failure"), parcel()]}, ON_ITS_WAY),
        ({**ALL, **FETCHED, "fulfillments": [parcel("out_for_delivery")]}, OUT),
        ({**ALL, **FETCHED, "fulfillments": [parcel("confirmed")]}, None),
    ],
)
def test_states_of_shopify(changes, status):
    assert shopify(**changes).status is status
    # GraphQL has the same words in capital letters, and so have programs that copy it.
    assert shopify(**capital(changes)).status is status


def capital(said):
    """The same with each state in capital letters."""
    if isinstance(said, list):
        return [capital(one) for one in said]
    if not isinstance(said, dict):
        return said
    return {
        name: value.upper() if isinstance(value, str) and name.endswith("status")
        else capital(value)
        for name, value in said.items()
    }  # fmt: skip


@pytest.mark.parametrize("state", [s for s in SHOPIFY.states if "of a parcel" in s.when])
def test_each_row_of_parcels(state):
    status = None if state.theirs == "null" else state.theirs
    assert shopify(**ALL, fulfillments=[parcel(status)]).status is state.ours


@pytest.mark.parametrize("state", [s for s in WOOCOMMERCE.states if s.ours and not s.when])
def test_each_row_of_woocommerce(state):
    assert woo(status=state.theirs).status is state.ours


@pytest.mark.parametrize(
    ("given", "mailed"),
    [
        ("zoe@shop.example", "zoe@shop.example"),
        (" zoe@münchen.example\n", "zoe@xn--mnchen-3ya.example"),
        ("", ""),
        (None, ""),
        ("zoé@shop.example", ""),
        ("nobody", ""),
        ("a@" + "b" * 300 + ".example", ""),
        ("zoe@shop.example\r\nBcc: all@shop.example", ""),
    ],
)
def test_addresses(given, mailed):
    billing = orders.woocommerce()["billing"] | {"email": given}
    assert woo(billing=billing).email == mailed
    assert shopify(email=given, contact_email=None).email == mailed


def test_numbers_in_place_of_texts_are_read():
    billing = orders.woocommerce()["billing"] | {"phone": 2348000000, "postcode": 101001}
    said = woo(billing=billing, shipping={}, number=7, total=68.9)
    assert (said.phone, said.number) == ("2348000000", "7")
    assert said.address == "12 Marina Road, 101001 Lagos, LA, NG"
    assert shopify(order_number=7, name=None).number == "7"


@pytest.mark.parametrize("reason", ["customer", "CUSTOMER"])
def test_a_cancelled_parcel_and_a_refund_in_one_delivery_are_a_cancellation(reason):
    """The recorder does not count a mere refund of an order that is under way."""
    refunded = {"financial_status": "refunded", "cancel_reason": reason}
    said = shopify(**refunded, fulfillments=[parcel(status="cancelled")])
    assert (said.status, said.reason) == (CANCELLED, "")
    assert shopify(**refunded).reason == "The order was refunded."


@pytest.mark.parametrize("reason", ["customer", "CUSTOMER"])
def test_why_an_order_of_shopify_was_cancelled(reason):
    said = shopify(cancelled_at="2026-11-03T08:00:00Z", cancel_reason=reason)
    assert said.reason == "The customer cancelled."


def test_an_order_keeps_its_shop_and_the_number_it_has_there():
    event = made("new", woo(number="A-7")).event
    assert (event.order_number, event.metadata) == ("A-7", {"shop": "kettles.example"})


def test_a_number_is_kept_as_it_is_looked_for_and_compared():
    """In NFC: a decomposed letter looks the same, and is another."""
    for number in ("Ku\u0308-7", " A\u030a-7", "\u0958" * 100):
        for said in (woo(number=number), shopify(name=number)):
            assert said.number == normalised_number(said.number)
            check(WOOCOMMERCE, said)
    assert woo(number="Ku\u0308-7").number == normalised_number("K\u00fc-7")


def test_tracking_data_of_shopify():
    other = parcel() | {"tracking_number": "A1", "tracking_url": "http://dhl.example/A1"}
    said = shopify(**ALL, fulfillments=[other, parcel("in_transit"), parcel(status="cancelled")])
    told = (said.carrier, said.tracking_number, said.tracking_url)
    assert told == ("DHL", "JD0001", "https://dhl.example/JD0001")
    said = shopify(**ALL, fulfillments=[parcel(), GIFT_CARD])
    assert said.tracking_number == "JD0001"
    said = shopify(**ALL, fulfillments=[other])
    assert (said.tracking_number, said.tracking_url) == ("A1", "")


@pytest.mark.parametrize(
    ("first", "second", "told"),
    [
        ("out_for_delivery", "in_transit", (OUT, "1")),
        ("in_transit", "out_for_delivery", (OUT, "2")),
        ("out_for_delivery", "attempted_delivery", (OUT, "2")),
        ("in_transit", "in_transit", (ON_ITS_WAY, "2")),
        ("in_transit", "confirmed", (ON_ITS_WAY, "1")),
        ("in_transit", "delivered", (ON_ITS_WAY, "1")),
        ("delivered", "in_transit", (ON_ITS_WAY, "2")),
        ("out_for_delivery", "delivered", (OUT, "1")),
        ("delivered", "delivered", (DELIVERED, "2")),
    ],
)
def test_tracking_data_is_that_of_the_parcel_that_decides_the_status(first, second, told):
    both = [parcel(at) | {"tracking_number": n} for at, n in ((first, "1"), (second, "2"))]
    for parcels in (both, capital(both)):
        said = shopify(**ALL, fulfillments=parcels)
        assert (said.status, said.tracking_number) == told


def test_tracking_data_of_woocommerce():
    item = {"tracking_provider": "dhl", "tracking_number": "JD0001", "date_shipped": "1793000000"}
    meta = [{"key": "_x", "value": None}, {"key": "_wc_shipment_tracking_items", "value": [item]}]
    said = woo(meta_data=meta)
    assert (said.carrier, said.tracking_number, said.tracking_url) == ("dhl", "JD0001", "")
    for strange in (None, "", {"a": 1}, [1], [None], [{"tracking_number": ["x"]}], []):
        meta[1]["value"] = strange
        assert woo(meta_data=meta).tracking_number == ""


@pytest.mark.parametrize(
    "noted",
    [
        lambda first, last: [first, last],
        # As PHP writes an array of which something was taken out.
        lambda first, last: {"0": first, "2": last},
        lambda _, last: {"1": last},
        lambda first, last: [first | {"tracking_number": ["x"]}, last],
        lambda first, last: [first, last | {"tracking_provider": False}],
        lambda first, last: [first, last, None, 5, "x", {}],
        lambda first, last: [first, last, {"tracking_provider": "dhl", "tracking_number": ["x"]}],
    ],
)
def test_an_invalid_parcel_of_woocommerce_hides_no_other(noted):
    first, last = ({"tracking_provider": "ups", "tracking_number": n} for n in ("111", "222"))
    value = noted(first, last)
    said = woo(meta_data=[{"key": "_wc_shipment_tracking_items", "value": value}])
    assert said.tracking_number == "222"
    odd = orders.woocommerce(
        meta_data=[{"key": "_wc_shipment_tracking_items", "value": value}], total=False
    )
    assert WOOCOMMERCE.read(lenient_reading.read(orders.raw(odd), WOOCOMMERCE), "") == woo(
        meta_data=[{"key": "_wc_shipment_tracking_items", "value": value}], total=None
    )


def test_the_last_parcel_of_woocommerce_may_have_no_number():
    """Then the order has none, not that of another parcel."""
    value = [{"tracking_provider": "ups", "tracking_number": "111"}, {"tracking_provider": "dhl"}]
    said = woo(meta_data=[{"key": "_wc_shipment_tracking_items", "value": value}])
    assert (said.carrier, said.tracking_number) == ("dhl", "")


def links(shop):
    return {"self": [{"href": f"{shop}/wc/v3/orders/727", "targetHints": {"allow": ["GET"]}}]}


def test_two_shops_have_separate_orders_and_a_shop_one_by_any_spelling():
    def id_(shop):
        return order_events.order_id(WOOCOMMERCE, ACCOUNT, woo(_links=links(shop)))

    same = {
        "https://kettles.example/wp-json",
        "http://Kettles.example/wp-json",
        "https://kettles.example/index.php/wp-json",
        "https://kettles.example/?rest_route=",
        "https://kettles.example/index.php?rest_route=",
        # By plugins for several languages: that of the request in which the delivery was made.
        "https://kettles.example/fr/wp-json",
        "https://kettles.example/pt-BR/wp-json",
        "https://kettles.example/zh-hans/index.php/wp-json",
        "https://kettles.example/de/?rest_route=",
    }
    assert {id_(shop) for shop in same} == {order_events.order_id(WOOCOMMERCE, ACCOUNT, woo())}
    # What is a shop's own setting is not another spelling: its orders keep the id that they have.
    others = {"https://pots.example/wp-json", "https://kettles.example/api",
              "https://kettles.example/staging/wp-json",
              "https://www.kettles.example/wp-json"}  # fmt: skip
    assert len({id_(shop) for shop in others | same}) == 5


def test_without_a_key_shops_differ_by_their_whole_address():
    keys = {
        woo(order_key=None, _links=links(f"https://kettles.example{path}/wp-json")).key
        for path in ("", "/fr", "/de")
    }
    assert len(keys) == 3


def test_the_id_of_a_former_spelling_is_always_given():
    french = links("https://kettles.example/fr/wp-json")
    said = woo(_links=french)
    former = made("new", said).event.former
    before = f"kettles.example/fr\x1f727\x1f{woo().key.rpartition(chr(31))[2]}"
    assert former.spelled_id == derived_id("order", ACCOUNT, "woocommerce", before)
    assert former.order_id != former.spelled_id != made("new", said).event.order_id
    assert made("new", woo()).event.former is UNSET


STRANGE_LINKS = [None, "", 7, [], {}, {"self": []}, {"self": None}, {"self": [{"href": "x"}]}]


def test_the_shop_of_an_order_is_not_taken_from_a_header():
    """It is not signed: with one recorded delivery anyone could make any number of orders."""
    for changes in [{}, *({"_links": strange} for strange in STRANGE_LINKS)]:
        said = [woo(shop=f"https://{n}.example/", **changes) for n in range(3)]
        assert len({order_events.order_id(WOOCOMMERCE, ACCOUNT, one) for one in said}) == 1
        assert len({encode(made("new", one)[0]) for one in said}) == 1
    without = [woo(_links=strange, id=n) for n in (1, 2) for strange in STRANGE_LINKS]
    assert len({one.key for one in without}) == len({one.former_key for one in without}) == 2
    assert {one.shop for one in without} == {""}


def test_an_order_of_shopify_is_the_same_whatever_its_shop_is_called():
    one, other = (
        order_events.order_id(SHOPIFY, ACCOUNT, shopify(shop=shop)) for shop in ("a.x", "b.x")
    )
    assert one == other
    assert one != order_events.order_id(SHOPIFY, UUID(int=2), shopify())
    assert one != order_events.order_id(SHOPIFY, ACCOUNT, shopify(id=1))


LATER = NOW + timedelta(hours=1)


def made(topic, said, now=NOW):
    id_ = order_events.order_id(WOOCOMMERCE, ACCOUNT, said)
    return order_events.event_of(WOOCOMMERCE, id_, topic, said, ACCOUNT, now)


@pytest.mark.parametrize(
    ("changes", "is_named"),
    [
        ({}, False),
        ({"date_modified_gmt": "2026-11-02T07:00:00"}, True),
        ({"date_created_gmt": "2026-11-01T08:00:00"}, True),
        # Recorded and sent again, hours or days later.
        ({"date_created_gmt": "2026-11-02T06:00:00", "date_modified_gmt": "2026-11-02T06:00:01"},
         True),
        ({"date_created_gmt": None, "date_created": None}, False),
        ({"order_key": ""}, False),
    ],
)  # fmt: skip
def test_the_former_id_is_given_if_an_earlier_version_may_have_recorded_it(changes, is_named):
    created = made("new", woo(**changes)).event
    changed = made("change", woo(**changes), LATER).event
    assert bool(created.former) == is_named
    assert bool(changed.former) == (is_named or not changes)


def test_two_orders_of_one_second_are_two():
    """WooCommerce gives both deliveries one id."""
    assert made("new", woo(id=1))[1] != made("new", woo(id=2))[1]


def test_copies_have_the_same_message_id_and_changes_another():
    shipped = {"status": "completed", "date_modified_gmt": "2026-11-03T08:00:00"}
    first = made("change", woo(**shipped))
    assert first == made("change", woo(**shipped, customer_note="Ring twice."))
    later = made("change", woo(**shipped | {"date_modified_gmt": "2026-11-03T08:00:01"}))
    assert later[1] != first[1]
    assert made("change", woo(**shipped | {"status": "delivered"}))[1] != first[1]
    assert made("new", woo())[1] == made("new", woo(total="1.00"))[1]


def test_a_change_without_a_status_makes_no_event():
    assert made("change", woo(), LATER).note == "no_change"
    assert made("change", woo(refunds=[{"id": 1, "total": "-1.00"}]), LATER).note == "no_change"
    assert made("change", woo(status="failed")) == "no_change"


def test_an_order_without_an_email_address():
    billing = {"email": "", "first_name": "", "last_name": "", "company": "Kettle Co"}
    event = made("new", woo(billing=billing)).event
    assert (event.TYPE, event.order_number) == ("order.unaddressed", "727")
    sent = made("change", woo(billing=billing, status="completed"))
    assert (sent.note, sent.event.is_change) == ("no_email_address", True)
    assert sent.event.tracking_status is ON_ITS_WAY
    assert made("change", woo(billing=billing, status="cancelled")).event.TYPE == "order.cancelled"
    # Touched again and again, it is told once.
    touched = (woo(billing=billing, date_modified_gmt=f"2026-11-0{n}T08:00:00") for n in (3, 4))
    assert len({made("change", one).message_id for one in touched}) == 1


LONG_AGO = "2021-05-04T08:00:00"


@pytest.mark.parametrize("state", [{}, {"status": "pending"}, {"billing": {"email": ""}}])
def test_an_old_order_is_not_recorded(state):
    """An import of another shop's orders must not mail their customers."""
    assert made("new", woo(date_created_gmt=LONG_AGO, **state)) == "old_order"
    assert made("new", woo(date_created_gmt="2026-10-28T08:00:00", **state)) != "old_order"
    assert made("new", woo(date_created_gmt=None, date_created=None, **state)) != "old_order"
    # A change of one that waited for its payment as long creates it.
    assert made("change", woo(date_created_gmt=LONG_AGO)).event.TYPE == "order.placed"


def test_an_old_order_of_shopify_is_not_recorded():
    assert made("new", shopify(processed_at=f"{LONG_AGO}Z")) == "old_order"
    assert made("new", shopify(created_at=f"{LONG_AGO}Z")) == "old_order"
    assert made("new", shopify(processed_at="2026-11-02T08:00:00Z")).note is None


# --- whatever a shop has in an order, what becomes of it can be recorded -----------------------

texts = (
    st.text(max_size=300)
    | st.none()
    | st.sampled_from(["\0", "a\r\nb", "\u2028", "<b>", "é" * 500])
)
named = ("first_name", "last_name", "company", "address_1", "city", "phone", "email")
persons = st.fixed_dictionaries({}, optional=dict.fromkeys(named, texts))
lines = st.lists(
    st.fixed_dictionaries({"name": texts, "quantity": st.integers(-5, 10**9)}), max_size=60
)


@given(persons, persons, lines, texts, texts, st.none() | st.text(max_size=60))
def test_random_orders_of_woocommerce_make_valid_events(
    billing, shipping, items, total, status, at
):
    changes = {"billing": billing, "shipping": shipping, "line_items": items, "total": total}
    order = orders.woocommerce(**changes, status=status or "", date_modified_gmt=at)
    check(WOOCOMMERCE, say(WOOCOMMERCE, order))


@given(texts, lines, texts, texts, st.none() | st.text(max_size=60), texts)
def test_random_orders_of_shopify_make_valid_events(email, items, name, total, at, zip_):
    address = {"name": name, "address1": zip_, "zip": zip_, "phone": zip_}
    changes = {"email": email, "line_items": items, "name": name, "total_price": total}
    check(SHOPIFY, shopify(**changes, updated_at=at, shipping_address=address))


edges = st.sampled_from(["", " ", "a ", " a", "a,", ",", "a ,b", "a  b", "\xa0", "é" * 200])
parts = st.lists(texts | edges | st.integers(-1, 1) | st.floats(-1, 1), min_size=1, max_size=6)


@given(parts)
def test_the_fast_path_of_an_address_gives_the_same_result(given):
    spaced = " ".join(str(part) for part in given if part or part == 0)
    plain = re.sub(r"[\x00-\x1f\x7f]+", " ", spaced).strip()[:200].strip()
    assert platforms.line(*given) == plain
    lined = [platforms.line(part) for part in given if part]
    assert platforms.joined(*given) == ", ".join(filter(None, lined))


MADE = {
    WOOCOMMERCE.name: orders.woocommerce(
        status="shipped",
        meta_data=[{"key": "_wc_shipment_tracking_items", "value": [{"tracking_number": "1"}]}],
    ),
    SHOPIFY.name: orders.shopify(**ALL, fulfillments=[parcel()]),
}
SCALARS = (
    *(
        "\0",
        "",
        " ",
        "a\r\nb",
        "\u2028",
        "\x85a\x85",
        "\xa0",
        "e\u0301" * 100,
        "é" * 500,
        "x" * 5_000,
    ),
    *("0", 0, -1, 10**30, 1.5, True, None),
)


def places(value, path=()):
    """The paths of all leaves of a body."""
    if isinstance(value, dict | list):
        for name, below in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(below, (*path, name))
    else:
        yield path


@pytest.mark.parametrize("platform", PLATFORMS, ids=lambda platform: platform.name)
def test_random_values_make_valid_events(platform):
    for (*above, last), value in product(places(MADE[platform.name]), SCALARS):
        order = json.loads(json.dumps(MADE[platform.name]))
        holder = order
        for step in above:
            holder = holder[step]
        holder[last] = value
        try:
            said = say(platform, order)
        except msgspec.ValidationError:
            continue  # answered 400
        check(platform, said)
        # The strict decoder only is faster.
        assert platform.read(lenient_reading.read(orders.raw(order), platform), SHOP) == said


def test_zero_is_a_quantity_and_null_is_left_out():
    nameless = woo(id=0, number=None, line_items=[{"name": "Kettle", "quantity": None}])
    assert (nameless.number, nameless.items) == ("0", "Kettle\nTotal: 68.90 EUR")


def check(platform, said):
    for topic in ("new", "change"):
        found = made(topic, said)
        if not isinstance(found, str):
            event = found.event
            assert decode(event.TYPE, encode(event)) == event
            assert event.TYPE in EVENT_TYPES
    assert said.at is None or said.at.tzinfo is UTC
