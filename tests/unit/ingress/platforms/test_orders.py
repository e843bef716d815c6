"""What the orders of platforms say, in our terms."""

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

from services.ingress.platforms import becoming
from services.ingress.platforms import platform as platforms
from services.ingress.platforms.known import PLATFORMS
from services.ingress.platforms.shopify import PLATFORM as SHOPIFY
from services.ingress.platforms.woocommerce import PLATFORM as WOOCOMMERCE
from services.ingress.shops import deliveries
from services.ingress.webhook import missing_headers
from shared.bus.contract.events import EVENT_TYPES, TrackingStatus, decode, encode
from shared.ids import derived_id
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
def test_the_table_in_the_documentation_is_the_codes(platform):
    text = (ROOT / "docs" / "platforms.md").read_text()
    shown = re.search(rf"<!-- states: {platform.name} -->(.*?)<!-- end -->", text, re.DOTALL)
    assert shown[1].strip() == table(platform)


@pytest.mark.parametrize("platform", PLATFORMS, ids=lambda platform: platform.name)
def test_whoever_meets_a_platform_elsewhere_is_sent_to_its_url(platform):
    assert platform.gives_secret == (platform.name in GIVEN_BY)
    assert GIVEN_BY.get(platform.name, platform.title) == platform.title
    shape = next(shape for shape in SHAPES if platform.title in shape.name)
    assert f"`POST /api/v1{platform.path}`" in shape.cure
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
def test_the_name_of_a_product_is_text_where_its_shop_has_made_html_of_it(name, said):
    """WooCommerce gives names as its pages print them."""
    listed = woo(line_items=[{"name": name, "quantity": 1}]).items
    assert listed == f"1 x {said}\nTotal: 68.90 EUR"


def price(amount, paid):
    """As Shopify has it: in the currency of the shop, and in that of the customer."""
    return {
        "shop_money": {"amount": amount, "currency_code": "EUR"},
        "presentment_money": {"amount": paid, "currency_code": "NGN"},
    }


def test_what_a_customer_of_shopify_has_paid_in_which_currency():
    paid = {"total_price_set": price("68.90", "118000.00"), "presentment_currency": "NGN"}
    assert shopify(**paid).items.endswith("\nTotal: 118000.00 NGN")
    nothing = {"presentment_money": None}
    for odd in (None, {}, nothing, {"presentment_money": {"amount": None}}):
        assert shopify(total_price_set=odd).items.endswith("\nTotal: 68.90 EUR")


def test_what_was_taken_out_of_an_order_of_shopify_is_in_no_email():
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
def test_an_odd_value_that_nobody_needs_refuses_no_order(odd):
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
def test_nor_one_of_shopify(odd):
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
def test_what_decides_where_an_order_is_refuses_it_in_words(platform, body, fault):
    with pytest.raises(InvalidValueError) as refused:
        deliveries.order_of(orders.raw(body), platform)
    (found,) = refused.value.faults
    assert found.startswith(fault)


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
def test_a_misfit_beside_thousands_of_items_holds_up_nobody(platform, body, monkeypatch):
    """Each is read on the event loop of a worker that has other senders."""
    order = {WOOCOMMERCE: orders.woocommerce, SHOPIFY: orders.shopify}[platform](**body)
    converted = counted(msgspec, "convert", monkeypatch)
    if body.keys() & set(platform.needed):
        with pytest.raises(InvalidValueError, match="must have at most 2,000 items"):
            deliveries.order_of(orders.raw(order), platform)
    else:
        read = deliveries.order_of(orders.raw(order), platform)
        assert platform.read(read, "").email == "zoe@shop.example"
    assert len(converted) < 15_000


def test_of_thousands_of_lines_those_are_looked_at_that_are_kept(monkeypatch):
    lined = counted(platforms, "line", monkeypatch)
    lines = [{"name": "Kettle", "quantity": 2}] * 5_000
    for said in (woo(line_items=lines), shopify(line_items=lines)):
        assert said.items.startswith("2 x Kettle, 2 x Kettle, ")
        assert "2 x Kettle, and more\nTotal: " in said.items
    assert len(lined) < 2_000


def counted(module, name, monkeypatch):
    """The calls of a function, as they come."""
    calls, function = [], getattr(module, name)

    def call(*args, **named):
        calls.append(args)
        return function(*args, **named)

    monkeypatch.setattr(module, name, call)
    return calls


def test_why_an_order_was_cancelled_is_said_by_either_name_of_the_state():
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


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        *(({"status": name}, None) for name in ("pending", "processing", "on-hold", "failed")),
        *(({"status": name}, None) for name in ("checkout-draft", "trash", "of-a-plugin", "")),
        ({"status": "completed"}, ON_ITS_WAY),
        ({"status": "completed", **PICKUP}, DELIVERED),
        ({"status": "completed", "shipping_lines": []}, DELIVERED),
        ({"status": "shipped"}, ON_ITS_WAY),
        ({"status": "wc-delivered"}, DELIVERED),
        ({"status": "out-for-delivery"}, OUT),
        ({"status": "cancelled"}, CANCELLED),
        ({"status": "cancelled", **COMPLETED}, CANCELLED),
        ({"status": "refunded"}, CANCELLED),
        ({"status": "refunded", **COMPLETED}, None),
        ({"status": "processing", **COMPLETED}, PENDING),
        ({"refunds": [{"id": 1, "reason": "", "total": "-4.50"}]}, None),
    ],
)
def test_states_of_woocommerce(changes, status):
    assert woo(**changes).status is status


NOT_SHIPPED = [{"name": "E-book", "quantity": 1, "requires_shipping": False}]
ALL, PARTLY = {"fulfillment_status": "fulfilled"}, {"fulfillment_status": "partial"}
UNDER_WAY_TO_THE_CARRIER = ("label_purchased", "label_printed", "confirmed")
FETCHED = {"shipping_address": None}
GIFT_CARD = parcel() | {"tracking_number": None, "line_items": NOT_SHIPPED}
"""Shopify fulfils it by itself, when it is paid."""


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


def test_what_a_plugin_makes_a_number_of_is_read_as_text():
    billing = orders.woocommerce()["billing"] | {"phone": 2348000000, "postcode": 101001}
    said = woo(billing=billing, shipping={}, number=7, total=68.9)
    assert (said.phone, said.number) == ("2348000000", "7")
    assert said.address == "12 Marina Road, 101001 Lagos, LA, NG"
    assert shopify(order_number=7, name=None).number == "7"


def test_an_order_keeps_its_shop_and_the_number_it_has_there():
    event = made("new", woo(number="A-7")).event
    assert (event.order_number, event.metadata) == ("A-7", {"shop": "kettles.example"})


def test_where_the_parcel_of_shopify_can_be_followed():
    other = parcel() | {"tracking_number": "A1", "tracking_url": "http://dhl.example/A1"}
    said = shopify(**ALL, fulfillments=[other, parcel("in_transit"), parcel(status="cancelled")])
    told = (said.carrier, said.tracking_number, said.tracking_url)
    assert told == ("DHL", "JD0001", "https://dhl.example/JD0001")
    said = shopify(**ALL, fulfillments=[parcel(), GIFT_CARD])
    assert said.tracking_number == "JD0001"
    said = shopify(**ALL, fulfillments=[other])
    assert (said.tracking_number, said.tracking_url) == ("A1", "")


def test_where_the_parcel_of_woocommerce_can_be_followed():
    item = {"tracking_provider": "dhl", "tracking_number": "JD0001", "date_shipped": "1793000000"}
    meta = [{"key": "_x", "value": None}, {"key": "_wc_shipment_tracking_items", "value": [item]}]
    said = woo(meta_data=meta)
    assert (said.carrier, said.tracking_number, said.tracking_url) == ("dhl", "JD0001", "")
    for strange in (None, "", {"a": 1}, [1], [{"tracking_number": ["x"]}], []):
        meta[1]["value"] = strange
        assert woo(meta_data=meta).tracking_number == ""


def links(shop):
    return {"self": [{"href": f"{shop}/wc/v3/orders/727", "targetHints": {"allow": ["GET"]}}]}


def test_two_shops_of_woocommerce_have_orders_of_their_own_and_one_has_one_by_any_spelling():
    def id_(shop):
        return becoming.order_id(WOOCOMMERCE, ACCOUNT, woo(_links=links(shop)))

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
    assert {id_(shop) for shop in same} == {becoming.order_id(WOOCOMMERCE, ACCOUNT, woo())}
    # What is a shop's own setting is not another spelling: its orders keep the id that they have.
    others = {"https://pots.example/wp-json", "https://kettles.example/api",
              "https://kettles.example/staging/wp-json",
              "https://www.kettles.example/wp-json"}  # fmt: skip
    assert len({id_(shop) for shop in others | same}) == 5


def test_without_a_key_shops_are_told_apart_by_all_of_their_address():
    keys = {
        woo(order_key=None, _links=links(f"https://kettles.example{path}/wp-json")).key
        for path in ("", "/fr", "/de")
    }
    assert len(keys) == 3


def test_what_was_known_by_another_spelling_is_named_by_it_however_new_it_is():
    french = links("https://kettles.example/fr/wp-json")
    said = woo(_links=french)
    former = made("new", said).event.former
    before = f"kettles.example/fr\x1f727\x1f{woo().key.rpartition(chr(31))[2]}"
    assert former.spelled_id == derived_id("order", ACCOUNT, "woocommerce", before)
    assert former.order_id != former.spelled_id != made("new", said).event.order_id
    assert made("new", woo()).event.former is UNSET


STRANGE_LINKS = [None, "", 7, [], {}, {"self": []}, {"self": None}, {"self": [{"href": "x"}]}]


def test_which_shop_an_order_is_of_no_header_says():
    """It is not signed: a recorded delivery would make orders and emails without end."""
    for changes in [{}, *({"_links": strange} for strange in STRANGE_LINKS)]:
        said = [woo(shop=f"https://{n}.example/", **changes) for n in range(3)]
        assert len({becoming.order_id(WOOCOMMERCE, ACCOUNT, one) for one in said}) == 1
        assert len({encode(made("new", one)[0]) for one in said}) == 1
    without = [woo(_links=strange, id=n) for n in (1, 2) for strange in STRANGE_LINKS]
    assert len({one.key for one in without}) == len({one.former_key for one in without}) == 2
    assert {one.shop for one in without} == {""}


def test_an_order_of_shopify_is_the_same_whatever_its_shop_is_called():
    one, other = (
        becoming.order_id(SHOPIFY, ACCOUNT, shopify(shop=shop)) for shop in ("a.x", "b.x")
    )
    assert one == other
    assert one != becoming.order_id(SHOPIFY, UUID(int=2), shopify())
    assert one != becoming.order_id(SHOPIFY, ACCOUNT, shopify(id=1))


LATER = NOW + timedelta(hours=1)


def made(topic, said, now=NOW):
    id_ = becoming.order_id(WOOCOMMERCE, ACCOUNT, said)
    return becoming.event_of(WOOCOMMERCE, id_, topic, said, ACCOUNT, now)


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
def test_a_former_id_is_named_where_an_earlier_version_may_have_recorded_it(changes, is_named):
    created = made("new", woo(**changes)).event
    changed = made("change", woo(**changes), LATER).event
    assert bool(created.former) == is_named
    assert bool(changed.former) == (is_named or not changes)


def test_two_orders_of_one_second_are_two():
    """WooCommerce gives both deliveries one id."""
    assert made("new", woo(id=1))[1] != made("new", woo(id=2))[1]


def test_what_comes_twice_is_the_same_message_and_what_differs_is_another():
    shipped = {"status": "completed", "date_modified_gmt": "2026-11-03T08:00:00"}
    first = made("change", woo(**shipped))
    assert first == made("change", woo(**shipped, customer_note="Ring twice."))
    later = made("change", woo(**shipped | {"date_modified_gmt": "2026-11-03T08:00:01"}))
    assert later[1] != first[1]
    assert made("change", woo(**shipped | {"status": "delivered"}))[1] != first[1]
    assert made("new", woo())[1] == made("new", woo(total="1.00"))[1]


def test_a_change_that_no_customer_would_be_told_of_is_none():
    assert made("change", woo(), LATER).note == "no_change"
    assert made("change", woo(refunds=[{"id": 1, "total": "-1.00"}]), LATER).note == "no_change"
    assert made("change", woo(status="failed")) == "no_change"


def test_an_order_that_nobody_can_be_told_of():
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
def test_an_order_of_long_ago_is_no_new_one(state):
    """Whoever imports the orders of another shop makes them, and nobody is told of them again."""
    assert made("new", woo(date_created_gmt=LONG_AGO, **state)) == "old_order"
    assert made("new", woo(date_created_gmt="2026-10-28T08:00:00", **state)) != "old_order"
    assert made("new", woo(date_created_gmt=None, date_created=None, **state)) != "old_order"
    # A change of one that waited for its payment as long creates it.
    assert made("change", woo(date_created_gmt=LONG_AGO)).event.TYPE == "order.placed"


def test_nor_is_one_of_shopify_whose_date_an_import_has_set():
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
def test_any_order_of_woocommerce_becomes_what_can_be_recorded(
    billing, shipping, items, total, status, at
):
    changes = {"billing": billing, "shipping": shipping, "line_items": items, "total": total}
    order = orders.woocommerce(**changes, status=status or "", date_modified_gmt=at)
    check(WOOCOMMERCE, say(WOOCOMMERCE, order))


@given(texts, lines, texts, texts, st.none() | st.text(max_size=60), texts)
def test_any_order_of_shopify_becomes_what_can_be_recorded(email, items, name, total, at, zip_):
    address = {"name": name, "address1": zip_, "zip": zip_, "phone": zip_}
    changes = {"email": email, "line_items": items, "name": name, "total_price": total}
    check(SHOPIFY, shopify(**changes, updated_at=at, shipping_address=address))


MADE = {
    WOOCOMMERCE.name: orders.woocommerce(
        status="shipped",
        meta_data=[{"key": "_wc_shipment_tracking_items", "value": [{"tracking_number": "1"}]}],
    ),
    SHOPIFY.name: orders.shopify(**ALL, fulfillments=[parcel()]),
}
SCALARS = ("\0", "", " ", "a\r\nb", "\u2028", "é" * 500, "0", 0, -1, 10**30, 1.5, True, None)


def places(value, path=()):
    """The path to every value in a body that has no others in it."""
    if isinstance(value, dict | list):
        for name, below in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(below, (*path, name))
    else:
        yield path


@pytest.mark.parametrize("platform", PLATFORMS, ids=lambda platform: platform.name)
def test_whatever_stands_anywhere_becomes_what_can_be_recorded(platform):
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


def test_a_nought_is_a_number_and_a_count_that_is_none_is_left_out():
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
