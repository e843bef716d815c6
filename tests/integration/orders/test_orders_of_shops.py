"""What shops say of orders, as it comes: from the body of a delivery to the rows and facts."""

import threading
from datetime import UTC, datetime, timedelta
from itertools import permutations
from uuid import UUID

import pytest
from msgspec import UNSET, structs
from msgspec.structs import replace
from sqlalchemy import func, select, text

from services.ingress.platforms.platform import moment
from services.ingress.platforms.shopify import PLATFORM as SHOPIFY
from services.ingress.platforms.woocommerce import PLATFORM as WOOCOMMERCE
from services.ingress.request_log import api as request_log_api
from services.ingress.shops import deliveries
from services.ops.timelines import search
from services.orders import api as orders_api
from services.orders.handlers import record
from services.orders.lanes import Lanes
from services.orders.removal import sweeping
from services.orders.unknown import MOST_EARLY, Unknown
from shared.bus.consume import inbox
from shared.bus.consume.retry import MAX_ATTEMPTS
from shared.bus.contract.events import TrackingStatus, decode, encode
from shared.bus.contract.message import Received
from shared.db.models import (
    Order,
    OrderConflict,
    OrderStatusHistory,
    OutboxMessage,
    WaitingUpdate,
    WebhookRequest,
)
from shared.db.session import transaction
from shared.http.route import Call
from shared.ids import derived_id
from tests.integration.arrange import (
    PATIENCE,
    account,
    facts,
    order_created,
    received,
    status_changed,
    until,
)
from tests.unit.ingress.platforms import orders

NOW = datetime(2026, 12, 1, tzinfo=UTC)
TOPICS = {
    "woocommerce": {"new": "order.created", "change": "order.updated"},
    "shopify": {"new": "orders/create", "change": "orders/updated"},
}


@pytest.fixture
def business(db):
    return account(db)


def said(business, platform, topic, order, **how):
    """The message that a delivery becomes, as the recorder gets it, and its note."""
    headers = {platform.topic: TOPICS[platform.name][topic], platform.shop: "kettles.example"}
    at = moment(order.get("updated_at") or order["date_modified_gmt"])
    now = at + how.pop("after", timedelta(hours=1)) if topic == "new" or "after" in how else NOW
    found = deliveries.read(platform, headers.get, orders.raw(order), business.id, now, **how)
    if found.message is None:
        return found.note, None
    message = found.message
    received = Received(
        id=UUID(message.message_id),
        type=message.type,
        time=message.time,
        correlation_id=message.correlation_id,
        data=decode(message.type, message.body),
    )
    return found.note, received


def take_in(*messages):
    """Handle messages as a batch, behind the inbox; returns those that come back."""
    with transaction() as session:
        new = inbox.claim(session, "services.orders", [m.id for m in messages if m])
        batch = list({m.id: m for m in messages if m and m.id in new}.values())
        if not batch:
            return {}
        failures = record(session, batch, lanes=Lanes(1_000, 100), unknown=Unknown(1_000))
        inbox.release(session, "services.orders", list(failures))
        return failures


def deliver(business, topic, order, platform=WOOCOMMERCE, **how):
    note, message = said(business, platform, topic, order, **how)
    take_in(message)
    return note


def recorded(db):
    db.rollback()
    rows = db.scalars(select(Order).order_by(Order.accepted_at, Order.customer_email))
    return [(row.customer_email, row.tracking_status) for row in rows]


def told(db):
    return [type(fact).TYPE for fact in facts(db)]


def woo(email="zoe@shop.example", **changes):
    """An order and when it was changed: by the day of November 2026, or the minute of its first."""
    day, minute = changes.pop("day", 2), changes.pop("minute", 0)
    billing = orders.woocommerce()["billing"] | {"email": email}
    at = {"date_modified_gmt": f"2026-11-{day:02}T08:{minute:02}:05"}
    return orders.woocommerce(billing=billing, **at, **changes)


NEW_SHOP = {"order_key": "wc_order_another", "date_created_gmt": "2026-11-20T08:00:00"}


@pytest.mark.parametrize("others", [NEW_SHOP, {"date_created_gmt": "2026-11-20T08:00:00"}])
def test_a_shop_that_counts_anew_has_new_orders(db, business, others):
    """Its order 727 of today is another one than that of the shop that was lost."""
    deliver(business, "new", woo())
    changes = NEW_SHOP | others
    deliver(business, "new", woo("ada@shop.example", day=20, **changes))
    deliver(business, "change", woo("ada@shop.example", day=21, status="completed", **changes))
    assert recorded(db) == [("zoe@shop.example", "PENDING"), ("ada@shop.example", "IN_TRANSIT")]


def test_where_a_plugin_takes_the_key_away_the_business_is_told_of_a_number_used_again(
    db, business
):
    made = {"order_key": None}
    deliver(business, "new", woo(**made))
    deliver(business, "new", woo(**made))
    assert told(db) == ["order.recorded"]
    made["date_created_gmt"] = "2026-11-20T08:00:00"
    deliver(business, "new", woo("ada@shop.example", day=20, **made))
    assert recorded(db) == [("zoe@shop.example", "PENDING")]
    assert told(db) == ["order.recorded", "order.not_taken"]
    assert len(db.scalars(select(OrderConflict)).all()) == 1


YOUNG = timedelta(minutes=1)


@pytest.mark.parametrize("platform", [WOOCOMMERCE, SHOPIFY], ids=lambda platform: platform.name)
@pytest.mark.parametrize("topics", [["change"], ["change", "new"], ["new", "change", "change"]])
def test_a_change_of_a_young_order_makes_it_where_its_creation_is_lost(
    db, business, platform, topics
):
    """WooCommerce sends what failed never again; that it is paid it tells the next second."""
    order = {WOOCOMMERCE: orders.woocommerce, SHOPIFY: orders.shopify}[platform]()
    for topic in topics:
        assert deliver(business, topic, order, platform, after=YOUNG) is None
    assert recorded(db) == [("zoe@shop.example", "PENDING")]
    assert told(db) == ["order.recorded"]


@pytest.mark.parametrize("topics", [["change"], ["change", "new"], ["new", "change", "change"]])
@pytest.mark.parametrize("key", ["wc_order_58d2d042d1d", ""], ids=["with its key", "without"])
def test_and_so_does_one_that_has_moved_at_once(db, business, topics, key):
    """What is downloaded is completed by its payment."""
    moved = {"status": "completed", "shipping_lines": [], "order_key": key}
    order = {"new": woo(order_key=key), "change": woo(minute=1, **moved)}
    is_lost = not key and topics == ["change"]
    for topic in topics:
        _, message = said(business, WOOCOMMERCE, topic, order[topic], after=YOUNG)
        if take_in(message):
            assert not key  # another order may have its id: it waits for its own beginning
            late = message
    if not key and topics == ["change", "new"]:
        take_in(replace(late, attempt=1))
    assert recorded(db) == ([] if is_lost else [("zoe@shop.example", "DELIVERED")])
    assert told(db).count("order.recorded") == (0 if is_lost else 1)


@pytest.mark.parametrize("after", [timedelta(minutes=11), -timedelta(hours=2)])
def test_a_change_of_an_older_order_makes_none(db, business, after):
    """Of a shop that joins, each customer of an open order would be mailed."""
    assert deliver(business, "change", woo(), after=after) == "no_change"
    assert (recorded(db), told(db)) == ([], [])


def test_a_young_order_that_waits_is_made_by_its_change_and_goes_on(db, business):
    assert deliver(business, "new", woo(status="pending"), after=YOUNG) == "not_placed"
    deliver(business, "change", woo(status="cancelled"), after=YOUNG)
    assert deliver(business, "change", woo(minute=1), after=YOUNG) is None
    # Back from what it was, and on its way: each a state of its own.
    deliver(business, "change", woo(minute=2, status="completed"), after=YOUNG)
    back = {"date_completed_gmt": "2026-11-02T08:01:00", "date_modified_gmt": "2026-11-02T08:03:00"}
    deliver(business, "change", orders.woocommerce(**back), after=YOUNG)
    assert recorded(db) == [("zoe@shop.example", "PENDING")]
    assert told(db) == ["order.recorded", *["order.status_recorded"] * 2]


def earlier(business, order):
    """Record an order as earlier versions did: under an id of its shop and number alone."""
    _, message = said(business, WOOCOMMERCE, "new", order)
    id_ = derived_id("order", business.id, "woocommerce", "kettles.example\x1f727")
    data = decode("order.created", encode(message.data).replace(
        str(message.data.order_id).encode(), str(id_).encode()))  # fmt: skip
    take_in(Received(message.id, message.type, message.time, message.correlation_id, data))
    return id_


def test_an_order_that_an_earlier_version_recorded_is_still_the_same(db, business):
    id_ = earlier(business, woo())
    deliver(business, "new", woo())
    deliver(business, "new", woo(day=3, total="1.00"))
    deliver(business, "change", woo(day=4))
    deliver(business, "change", woo(day=5, status="completed"))
    assert recorded(db) == [("zoe@shop.example", "IN_TRANSIT")]
    deliver(business, "change", woo(day=6, status="cancelled"))
    assert told(db) == ["order.recorded", "order.status_recorded", "order.cancellation_recorded"]
    assert {fact.order_id for fact in facts(db)} == {id_}


FRENCH = {"_links": {"self": [{"href": "https://kettles.example/fr/wp-json/wc/v3/orders/727"}]}}


def spelled(message, order):
    """A message as versions before 0049 made it: by the address as the link has it."""
    key = f"kettles.example/fr\x1f727\x1f{order['order_key']}"
    id_ = derived_id("order", message.data.account_id, "woocommerce", key)
    data = structs.replace(message.data, order_id=id_, former=UNSET)
    return replace(message, id=id_, correlation_id=str(id_), data=data), id_


def test_an_order_has_one_identity_in_whatever_language_its_shop_tells_of_it(db, business):
    deliver(business, "new", woo())
    deliver(business, "new", woo(**FRENCH))
    deliver(business, "change", woo(day=4, status="completed", **FRENCH))
    assert recorded(db) == [("zoe@shop.example", "IN_TRANSIT")]
    assert told(db) == ["order.recorded", "order.status_recorded"]


def test_what_was_recorded_by_its_language_is_still_the_same(db, business):
    _, message = said(business, WOOCOMMERCE, "new", woo(**FRENCH))
    before, id_ = spelled(message, woo())
    take_in(before)
    deliver(business, "new", woo(total="1.00", **FRENCH))
    deliver(business, "change", woo(day=4, status="completed", **FRENCH))
    assert recorded(db) == [("zoe@shop.example", "IN_TRANSIT")]
    assert told(db) == ["order.recorded", "order.status_recorded"]
    assert {fact.order_id for fact in facts(db)} == {id_}


@pytest.mark.parametrize("unit", [1, 2])
@pytest.mark.parametrize("first", ["before", "now"])
@pytest.mark.parametrize("topic", ["new", "change"])
def test_two_versions_at_once_make_one_order_of_it(db, business, topic, first, unit):
    how = {"after": timedelta(minutes=1)}
    _, now = said(business, WOOCOMMERCE, topic, woo(minute=5, **FRENCH), **how)
    _, created = said(business, WOOCOMMERCE, "new", woo(**FRENCH), **how)
    before, _ = spelled(created, woo())
    both = [before, now] if first == "before" else [now, before]
    for n in range(0, 2, unit):
        take_in(*both[n : n + unit])
    assert recorded(db) == [("zoe@shop.example", "PENDING")]
    assert told(db) == ["order.recorded"]


@pytest.mark.parametrize("unit", [1, 2])
@pytest.mark.parametrize("first", ["before", "now"])
def test_and_of_one_that_has_moved_at_once(db, business, first, unit):
    """Its state is lost to no version."""
    how = {"after": timedelta(minutes=1)}
    moved = woo(minute=5, status="completed", **FRENCH)
    _, now = said(business, WOOCOMMERCE, "change", moved, **how)
    _, created = said(business, WOOCOMMERCE, "new", woo(**FRENCH), **how)
    before, _ = spelled(created, woo())
    both = [before, now] if first == "before" else [now, before]
    for n in range(0, 2, unit):
        take_in(*both[n : n + unit])
    assert recorded(db) == [("zoe@shop.example", "IN_TRANSIT")]
    assert told(db).count("order.recorded") == 1


@pytest.mark.parametrize("first", ["before", "now"])
def test_and_so_do_two_recorders_at_once(db, business, engine, first):
    _, now = said(business, WOOCOMMERCE, "new", woo(**FRENCH))
    before, _ = spelled(now, woo())
    here, there = (before, now) if first == "before" else (now, before)
    other = threading.Thread(target=take_in, args=(there,), daemon=True)
    with transaction() as session:
        assert inbox.claim(session, "services.orders", [here.id])
        record(session, [here], lanes=Lanes(1_000, 100), unknown=Unknown(1_000))
        other.start()
        until(lambda: waits(engine), "the other waits for the row")
    other.join(PATIENCE)
    assert recorded(db) == [("zoe@shop.example", "PENDING")]
    assert told(db) == ["order.recorded"]


def test_and_so_is_what_waits_by_its_language_to_be_placed(db, business):
    _, message = said(business, WOOCOMMERCE, "new", woo(status="pending", **FRENCH))
    key = f"kettles.example/fr\x1f727\x1f{woo()['order_key']}"
    id_ = derived_id("order", business.id, "woocommerce", key)
    take_in(replace(message, data=structs.replace(message.data, order_id=id_)))
    deliver(business, "change", woo(day=4, **FRENCH))
    deliver(business, "change", woo(day=5, status="completed", **FRENCH))
    assert recorded(db) == [("zoe@shop.example", "IN_TRANSIT")]
    assert told(db) == ["order.recorded", "order.status_recorded"]


def test_and_a_new_order_under_its_number_is_another(db, business):
    earlier(business, woo())
    deliver(business, "new", woo("ada@shop.example", day=20, **NEW_SHOP))
    deliver(business, "change", woo("ada@shop.example", day=21, status="cancelled", **NEW_SHOP))
    assert recorded(db) == [("zoe@shop.example", "PENDING"), ("ada@shop.example", "CANCELLED")]


@pytest.mark.parametrize(
    "state", ["pending", "failed", "checkout-draft", "trash", "cancelled", "wc-refunded"]
)
def test_an_order_that_nobody_placed_is_noted_and_told_once_it_is(db, business, state):
    assert deliver(business, "new", woo(status=state)) == "not_placed"
    deliver(business, "change", woo(status="failed", day=3))
    assert (recorded(db), told(db)) == ([], [])
    deliver(business, "change", woo(day=4))
    deliver(business, "change", woo(day=5))
    deliver(business, "new", woo(day=6, total="1.00"))
    assert recorded(db) == [("zoe@shop.example", "PENDING")]
    assert told(db) == ["order.recorded"]
    deliver(business, "change", woo(day=7, status="completed"))
    assert told(db) == ["order.recorded", "order.status_recorded"]


def test_what_is_paid_and_handed_over_at_once_is_recorded_as_it_is(db, business):
    deliver(business, "new", woo(status="pending"))
    downloads = {"shipping_lines": [], "status": "completed"}
    deliver(business, "change", woo(day=3, **downloads))
    assert recorded(db) == [("zoe@shop.example", "DELIVERED")]
    assert told(db) == ["order.recorded"]


def test_an_unpaid_order_that_is_cancelled_is_told_to_nobody(db, business):
    """WooCommerce does it by itself after an hour."""
    deliver(business, "new", woo(status="pending"))
    _, cancelled = said(business, WOOCOMMERCE, "change", woo(day=3, status="cancelled"))
    assert not take_in(cancelled)
    assert (recorded(db), told(db)) == ([], [])


def test_what_is_placed_may_overtake_what_it_is_waited_for_by(db, business):
    """By the outbox, by another recorder, or since the shop sends both at once."""
    _, made = said(business, WOOCOMMERCE, "new", woo(status="pending"))
    _, placed = said(business, WOOCOMMERCE, "change", woo(day=3))
    assert take_in(placed)
    assert not take_in(made)
    assert not take_in(replace(placed, attempt=1))
    assert recorded(db) == [("zoe@shop.example", "PENDING")]
    assert told(db) == ["order.recorded"]


def test_a_cancellation_may_overtake_that_it_was_placed(db, business):
    deliver(business, "new", woo(status="pending"))
    _, placed = said(business, WOOCOMMERCE, "change", woo(day=3))
    _, cancelled = said(business, WOOCOMMERCE, "change", woo(day=4, status="cancelled"))
    assert not take_in(cancelled)
    assert not take_in(placed)
    assert recorded(db) == [("zoe@shop.example", "CANCELLED")]
    assert told(db) == ["order.recorded", "order.cancellation_recorded"]


@pytest.mark.parametrize("first", [{"status": "pending"}, {"email": ""}], ids=["unpaid", "unknown"])
@pytest.mark.parametrize("is_one_batch", [True, False], ids=["one batch", "one by one"])
def test_and_that_of_a_young_order(db, business, first, is_one_batch):
    """What says that it was placed creates it, where it was made within minutes."""
    deliver(business, "new", woo(**first), after=YOUNG)
    _, made = said(business, WOOCOMMERCE, "change", woo(minute=1), after=YOUNG)
    cancellation = woo(minute=2, status="cancelled")
    _, cancelled = said(business, WOOCOMMERCE, "change", cancellation, after=YOUNG)
    assert (made.type, made.data.is_new) == ("order.placed", True)
    for batch in [(cancelled, made)] if is_one_batch else [(cancelled,), (made,)]:
        assert not take_in(*batch)
    assert recorded(db) == [("zoe@shop.example", "CANCELLED")]
    assert told(db)[-2:] == ["order.recorded", "order.cancellation_recorded"]
    assert db.scalars(text("SELECT order_id FROM awaited_orders")).all() == []


def test_a_cancellation_that_has_waited_for_its_order_waits_for_it_to_be_placed(db, business):
    """What said that the order is made was late: by then all that is left may come in any order."""
    _, made = said(business, WOOCOMMERCE, "new", woo(status="pending"))
    _, placed = said(business, WOOCOMMERCE, "change", woo(day=3))
    _, cancelled = said(business, WOOCOMMERCE, "change", woo(day=4, status="cancelled"))
    assert take_in(cancelled)
    assert not take_in(made)
    assert not take_in(replace(cancelled, attempt=5))
    assert db.scalars(select(WaitingUpdate)).all() == []
    assert not take_in(placed)
    assert recorded(db) == [("zoe@shop.example", "CANCELLED")]
    assert told(db) == ["order.recorded", "order.cancellation_recorded"]


MADE = ("new", 2, {"status": "pending"})
SETS = {
    "cancelled, and taken up again": [
        MADE,
        ("change", 3, {}),
        ("change", 4, {"status": "cancelled"}),
        ("change", 5, {}),
    ],
    "cancelled before it was paid": [
        MADE,
        ("change", 3, {"status": "cancelled"}),
        ("change", 4, {}),
        ("change", 5, {"status": "completed"}),
    ],
    "nothing new behind it": [
        MADE,
        ("change", 3, {"status": "completed"}),
        ("change", 4, {}),
    ],
    "placed at once, cancelled, and taken up again": [
        ("new", 2, {}),
        ("change", 3, {"status": "cancelled"}),
        ("change", 4, {}),
    ],
    "on its way at once, and taken up again": [
        ("new", 2, {"status": "partial-shipped"}),
        ("change", 3, {}),
        ("change", 4, {"status": "on-hold"}),
    ],
    "downloaded at once, cancelled, and taken up again": [
        ("new", 2, {}),
        ("change", 3, {"status": "completed"}),
        ("change", 4, {"status": "cancelled"}),
        ("change", 5, {}),
    ],
    "downloaded at once, and its creation lost": [
        ("change", 3, {"status": "completed"}),
        ("change", 4, {"status": "cancelled"}),
        ("change", 5, {"status": "completed"}),
    ],
    "cancelled twice": [
        MADE,
        ("change", 3, {}),
        ("change", 4, {"status": "cancelled"}),
        ("change", 5, {"status": "cancelled"}),
    ],
    "cancelled twice, and its creation lost": [
        ("change", 3, {}),
        ("change", 4, {"status": "cancelled"}),
        ("change", 5, {}),
        ("change", 6, {"status": "cancelled"}),
    ],
}
# An older one no change makes.
LOST = [("day", name) for name in SETS if name.endswith(", and its creation lost")]


@pytest.mark.parametrize(
    ("unit", "name"),
    [(unit, name) for unit in ("day", "minute") for name in SETS if (unit, name) not in LOST],
)
@pytest.mark.parametrize("size", [1, 2, 4], ids=lambda size: f"batches of {size}")
def test_it_does_not_matter_in_which_order_they_come(db, business, name, unit, size):
    """One batch after the other, each by another recorder; what comes back comes last."""
    ends = set()
    lag = {"after": YOUNG} if unit == "minute" else {}
    for number, arrival in enumerate(permutations(SETS[name])):
        here = [
            said(business, WOOCOMMERCE, topic, woo(id=number, **{unit: at}, **how), **lag)[1]
            for topic, at, how in arrival
        ]
        for attempt in range(3):
            batches = [here[start : start + size] for start in range(0, len(here), size)]
            back = set()
            for batch in batches:
                back |= take_in(*(replace(m, attempt=attempt) for m in batch)).keys()
            here = [m for m in here if m.id in back]
        assert here == []
        db.rollback()
        (order,) = db.scalars(select(Order).where(Order.id == m_order(business, number)))
        applied = db.scalars(
            select(OrderStatusHistory.tracking_status)
            .where(OrderStatusHistory.order_id == order.id, OrderStatusHistory.applied)
            .order_by(OrderStatusHistory.at.desc(), OrderStatusHistory.tracking_status)
        ).all()
        assert order.tracking_status in applied
        cancellations = db.execute(
            select(OrderStatusHistory.at, OrderStatusHistory.applied).where(
                OrderStatusHistory.order_id == order.id,
                OrderStatusHistory.tracking_status == "CANCELLED",
            )
        ).all()
        over_at = order.status_at if order.tracking_status == "CANCELLED" else None
        ends.add((order.tracking_status, over_at, len(cancellations)))
    assert len(ends) == 1
    assert told(db).count("order.recorded") == number + 1


def m_order(business, number):
    return said(business, WOOCOMMERCE, "change", woo(id=number))[1].data.order_id


def test_a_parcel_goes_back_in_no_email_though_what_is_older_comes_later(db, business):
    """What creates an order is one of the shop's words as the others are, by the shop's clock."""
    address = {"email": None, "contact_email": None, "customer": None}
    deliver(business, "new", orders.shopify(**address), SHOPIFY)
    deliver(business, "change", shopify(5, orders.parcel("out_for_delivery")), SHOPIFY)
    deliver(business, "change", shopify(4, orders.parcel("in_transit")), SHOPIFY)
    assert recorded(db) == [("zoe@shop.example", "OUT_FOR_DELIVERY")]
    assert told(db) == ["order.not_taken", "order.recorded"]


def test_what_placed_an_order_changes_nothing_when_it_is_said_again(db, business):
    deliver(business, "new", woo(status="pending"))
    _, placed = said(business, WOOCOMMERCE, "change", woo(day=3, status="completed"))
    take_in(placed)
    with transaction() as session:
        record(
            session,
            [replace(placed, replay="again")],
            lanes=Lanes(1_000, 100),
            unknown=Unknown(1_000),
        )
    (said_of_it,) = db.scalars(select(OrderStatusHistory))
    assert (said_of_it.event_id, said_of_it.applied) == (placed.id, True)
    assert told(db) == ["order.recorded"]


@pytest.mark.parametrize("is_one_batch", [True, False], ids=["one batch", "one by one"])
def test_a_cancellation_from_before_it_was_placed_changes_nothing(db, business, is_one_batch):
    """An unpaid order is cancelled after an hour; paid all the same, it is placed."""
    deliver(business, "new", woo(status="pending"))
    _, cancelled = said(business, WOOCOMMERCE, "change", woo(day=3, status="cancelled"))
    _, placed = said(business, WOOCOMMERCE, "change", woo(day=4))
    if is_one_batch:
        assert not take_in(cancelled, placed)
    else:
        assert not take_in(cancelled)
        assert not take_in(placed)
    assert recorded(db) == [("zoe@shop.example", "PENDING")]
    assert told(db) == ["order.recorded"]
    history = db.scalars(select(OrderStatusHistory).order_by(OrderStatusHistory.at))
    assert [(row.tracking_status, row.applied) for row in history] == [
        ("CANCELLED", False),
        ("PENDING", True),
    ]
    deliver(business, "change", woo(day=5, status="cancelled"))
    assert recorded(db) == [("zoe@shop.example", "CANCELLED")]


def test_two_recorders_that_have_it_at_once_lose_no_state(db, business, engine):
    deliver(business, "new", woo(status="pending"))
    _, placed = said(business, WOOCOMMERCE, "change", woo(day=3))
    _, sent = said(business, WOOCOMMERCE, "change", woo(day=4, status="completed"))
    other = threading.Thread(target=take_in, args=(sent,), daemon=True)
    with transaction() as session:
        record(session, [placed], lanes=Lanes(1_000, 100), unknown=Unknown(1_000))
        other.start()
        until(lambda: waits(engine), "the other waits for the row")
    other.join(PATIENCE)
    assert recorded(db) == [("zoe@shop.example", "IN_TRANSIT")]
    assert told(db) == ["order.recorded", "order.status_recorded"]


def test_a_state_without_an_address_waits_for_who_creates_the_order(db, business, engine):
    deliver(business, "new", woo(status="pending"))
    _, placed = said(business, WOOCOMMERCE, "change", woo(day=3))
    _, sent = said(business, WOOCOMMERCE, "change", woo("", day=4, status="completed"))
    other = threading.Thread(target=take_in, args=(sent,), daemon=True)
    with transaction() as session:
        record(session, [placed], lanes=Lanes(1_000, 100), unknown=Unknown(1_000))
        other.start()
        until(lambda: waits(engine), "the other waits for the row")
    other.join(PATIENCE)
    assert recorded(db) == [("zoe@shop.example", "IN_TRANSIT")]
    assert told(db) == ["order.recorded", "order.status_recorded"]


def test_a_recorder_that_creates_it_first_takes_no_state_away(db, business, engine):
    """What says that it was placed and has moved waits for the other, and is no creation then."""
    deliver(business, "new", woo(status="pending"))
    _, made = said(business, WOOCOMMERCE, "new", woo(day=3))
    _, sent = said(business, WOOCOMMERCE, "change", woo(day=4, status="completed"))
    other = threading.Thread(target=take_in, args=(sent,), daemon=True)
    with transaction() as session:
        record(session, [made], lanes=Lanes(1_000, 100), unknown=Unknown(1_000))
        other.start()
        until(lambda: waits(engine), "the other waits for the row")
    other.join(PATIENCE)
    assert recorded(db) == [("zoe@shop.example", "IN_TRANSIT")]
    assert told(db) == ["order.recorded", "order.status_recorded"]


def test_what_it_is_waited_for_by_may_be_hours_late(db, business):
    _, made = said(business, WOOCOMMERCE, "new", woo(status="pending"))
    _, placed = said(business, WOOCOMMERCE, "change", woo(day=3))
    assert all(take_in(replace(placed, attempt=n)) for n in range(MAX_ATTEMPTS))
    take_in(made)
    assert not take_in(replace(placed, attempt=MAX_ATTEMPTS))
    assert recorded(db) == [("zoe@shop.example", "PENDING")]
    assert told(db) == ["order.recorded"]


@pytest.mark.parametrize("status", ["processing", "completed", "cancelled"])
def test_old_orders_that_are_touched_and_updates_take_no_places_from_each_other(
    db, business, status
):
    """Whatever became of them."""
    old = LONG_AGO | {"status": status}
    touched = [said(business, WOOCOMMERCE, "change", woo(id=n, **old))[1] for n in range(300)]
    shipped = [
        said(business, WOOCOMMERCE, "change", woo(id=n, status="completed", day=3))[1]
        for n in range(300)
    ]
    for first, second in ((touched, shipped), (shipped, touched)):
        unknown = Unknown(200)
        come_back = []
        for batch in (first, second):
            with transaction() as session:
                found = record(session, batch, lanes=Lanes(1_000, 100), unknown=unknown)
                come_back.append(len(found))
        assert sorted(come_back) == [MOST_EARLY, 200]
    _, last = said(business, WOOCOMMERCE, "change", woo(id=301, **old))
    assert unknown.failure(last) is None
    unknown.settled(replace(touched[0], attempt=1))
    assert unknown.failure(last) is not None


LONG_AGO = {"date_created_gmt": "2026-06-01T08:00:00"}


@pytest.mark.parametrize("email", ["zoe@shop.example", ""], ids=["addressed", "not"])
def test_a_new_order_waits_for_its_beginning_however_many_old_ones_are_touched(db, business, email):
    touched = [
        said(business, WOOCOMMERCE, "change", woo(id=n, **LONG_AGO))[1]
        for n in range(MOST_EARLY + 1)
    ]
    _, early = said(business, WOOCOMMERCE, "change", woo(email, day=3))
    with transaction() as session:
        back = record(session, [*touched, early], lanes=Lanes(1_000, 100), unknown=Unknown(1_000))
    assert len(back) == MOST_EARLY + 1
    assert early.id in back


def waits(engine):
    with engine.connect() as connection:
        return connection.scalar(
            text(
                "SELECT count(*) FROM pg_stat_activity "
                "WHERE datname = current_database() AND wait_event_type = 'Lock'"
            )
        )


def test_an_old_order_of_the_shop_that_somebody_touches_is_not_told(db, business):
    deliver(business, "change", woo())
    assert (recorded(db), told(db)) == ([], [])
    _, shipped = said(business, WOOCOMMERCE, "change", woo(day=3, status="completed"))
    assert take_in(shipped)  # it may have overtaken its order


@pytest.mark.parametrize(
    ("email", "status"),
    [
        ("zoe@shop.example", "processing"),
        ("", "processing"),
        ("zoe@shop.example", "completed"),
        ("zoe@shop.example", "cancelled"),
    ],
)
def test_no_change_ends_without_a_trace(db, business, email, status):
    """Beyond the bound at once, else at the end; of what may be new its business is told."""
    made = {"old": LONG_AGO | {"status": status}, "young": {"status": status}}
    ends = {}
    for age, when in made.items():
        sent = [
            said(business, WOOCOMMERCE, "change", woo(email, id=n, **when))[1] for n in range(3)
        ]
        unknown, back = Unknown(1), {}
        for batch in sent[:2], [replace(sent[2], attempt=MAX_ATTEMPTS)]:
            with transaction() as session:
                back |= record(session, batch, lanes=Lanes(1_000, 100), unknown=unknown)
        # The last one of a state comes back as a dead letter, and is given up all the same.
        (waits,) = {m.id for m in sent[:2]} & back.keys()
        ends[age] = {m.id for m in sent} - {waits}
        db.rollback()
        rows = db.scalars(select(WaitingUpdate).where(WaitingUpdate.event_id.in_(ends[age])))
        assert [row.given_up_at is not None for row in rows] == [True, True]
        whats = {(fact.what, fact.event_id in ends["young"]) for fact in facts(db)}
        assert whats == (set() if age == "old" else {("update_given_up", True)})


def test_a_change_that_came_before_its_order_waits_no_more(db, business):
    """Also where it tells nothing new of it by then."""
    _, early = said(business, WOOCOMMERCE, "change", woo(day=3))
    assert take_in(early)
    (row,) = db.scalars(select(WaitingUpdate))
    assert (row.event_id, row.given_up_at) == (early.id, None)
    deliver(business, "new", woo(day=2))
    assert not take_in(replace(early, attempt=1))
    db.rollback()
    assert db.scalars(select(WaitingUpdate)).all() == []


def test_a_state_that_comes_before_the_word_with_the_address_is_neither_lost_nor_told(db, business):
    """All that is known then is that the order is waited for."""
    deliver(business, "new", woo(status="pending"))
    _, placed = said(business, WOOCOMMERCE, "change", woo(day=3))
    _, sent = said(business, WOOCOMMERCE, "change", woo("", day=4, status="completed"))
    assert take_in(sent)
    assert told(db) == []
    assert not take_in(placed)
    assert not take_in(replace(sent, attempt=1))
    assert recorded(db) == [("zoe@shop.example", "IN_TRANSIT")]
    assert told(db) == ["order.recorded", "order.status_recorded"]


@pytest.mark.parametrize("status", ["completed", "cancelled"])
def test_a_change_that_is_given_up_is_told_by_the_shops_own_number(db, business, status):
    _, message = said(business, WOOCOMMERCE, "change", woo(number="K-727", status=status))
    take_in(replace(message, attempt=MAX_ATTEMPTS))
    (fact,) = facts(db, "order.not_taken")
    assert (fact.what, fact.order_number, fact.of_shop) == ("update_given_up", "K-727", True)


def test_nor_is_what_the_journal_says_again(db, business):
    """Into new tables it brings updates that are days old, of all businesses."""
    _, of_shop = said(business, WOOCOMMERCE, "change", woo(status="completed"))
    own = received(status_changed(order_created(business.id), TrackingStatus.DELIVERED), time=NOW)
    for message in (of_shop, own):
        take_in(replace(message, attempt=MAX_ATTEMPTS, replay="again"))
    assert told(db) == []


def test_in_one_batch_it_does_not_matter_in_which_order_they_come(db, business):
    steps = [("new", "pending", 2), ("change", "processing", 3), ("change", "completed", 4)]
    for number, arrival in enumerate(permutations(steps)):
        sent = [woo(id=number, status=status, day=day) for _, status, day in arrival]
        batch = [
            said(business, WOOCOMMERCE, topic, order)[1]
            for (topic, *_), order in zip(arrival, sent, strict=True)
        ]
        assert not take_in(*batch)
    assert recorded(db) == [("zoe@shop.example", "IN_TRANSIT")] * 6
    assert told(db).count("order.recorded") == 6


NO_ADDRESS = {"email": None, "contact_email": None, "customer": None}


@pytest.mark.parametrize("is_test", [False, True])
@pytest.mark.parametrize("platform", [WOOCOMMERCE, SHOPIFY], ids=lambda p: p.name)
def test_what_happens_to_a_recorded_order_counts_though_its_address_is_gone(
    db, business, platform, is_test
):
    """Somebody removes it in the shop, or an app sees no customers any more."""
    ends = {
        WOOCOMMERCE: (
            woo(),
            woo(email="", day=3),
            woo(email="", day=4, status="completed"),
            woo(email="", day=5, status="cancelled"),
        ),
        SHOPIFY: (
            orders.shopify(),
            orders.shopify(updated_at="2026-11-03T08:00:05Z", **NO_ADDRESS),
            shopify(4, orders.parcel()) | NO_ADDRESS,
            shopify(5) | NO_ADDRESS | {"cancelled_at": "2026-11-05T08:00:05Z"},
        ),
    }
    created, touched, sent, cancelled = ends[platform]
    deliver(business, "new", created, platform, is_test=is_test)
    for order in (touched, sent):
        note = deliver(business, "change", order, platform, is_test=is_test)
        assert note == "no_email_address"
    assert recorded(db) == [("zoe@shop.example", "IN_TRANSIT")]
    assert deliver(business, "change", cancelled, platform, is_test=is_test) is None
    assert recorded(db) == [("zoe@shop.example", "CANCELLED")]
    kinds = ("recorded", "status_recorded", "cancellation_recorded")
    assert told(db) == [f"order.{'test_' * is_test}{kind}" for kind in kinds]


def test_nor_does_one_of_an_earlier_version_need_it(db, business):
    earlier(business, woo())
    deliver(business, "change", woo(email="", day=3, status="completed"))
    assert recorded(db) == [("zoe@shop.example", "IN_TRANSIT")]


@pytest.mark.parametrize("status", ["processing", "completed"])
def test_an_order_by_telephone_is_told_to_its_business_once(db, business, status):
    """Somebody writes it down in the shop: it is new as a draft, and has no address."""
    assert deliver(business, "new", woo(email="", status="pending")) == "not_placed"
    note, placed = said(business, WOOCOMMERCE, "change", woo(email="", day=3, status=status))
    assert note == "no_email_address"
    # What has moved may have overtaken that it was placed, with an address: it is waited for.
    assert bool(take_in(placed)) is (status == "completed")
    for _ in range(2):
        assert not take_in(replace(placed, attempt=MAX_ATTEMPTS))
    assert db.scalars(select(WaitingUpdate)).all() == []
    (fact,) = facts(db)
    assert (fact.what, fact.order_number, fact.of_shop) == ("no_email_address", "727", True)
    deliver(business, "change", woo(day=4))
    assert recorded(db) == [("zoe@shop.example", "PENDING")]


@pytest.mark.parametrize("status", ["processing", "completed"])
def test_an_old_order_without_an_address_is_neither_told_nor_waited_for(db, business, status):
    _, touched = said(business, WOOCOMMERCE, "change", woo(email="", status=status, **LONG_AGO))
    assert take_in(touched)  # it may have overtaken its order
    assert not take_in(replace(touched, attempt=MAX_ATTEMPTS))
    deliver(business, "change", woo(day=3, **LONG_AGO))
    assert (recorded(db), told(db)) == ([], [])


@pytest.mark.parametrize("platform", [WOOCOMMERCE, SHOPIFY], ids=lambda p: p.name)
def test_an_address_that_is_added_later_makes_it_an_order(db, business, platform):
    made = orders.woocommerce if platform is WOOCOMMERCE else orders.shopify
    none = orders.woocommerce()["billing"] | {"email": ""}
    nobody = {"email": None, "contact_email": None, "billing": none}
    assert deliver(business, "new", made(**nobody), platform) == "no_email_address"
    assert told(db) == ["order.not_taken"]
    later = made(date_modified_gmt="2026-11-03T08:00:00", updated_at="2026-11-03T08:00:00Z")
    for _ in range(2):
        deliver(business, "change", later, platform)
    assert recorded(db) == [("zoe@shop.example", "PENDING")]
    assert told(db) == ["order.not_taken", "order.recorded"]


def shopify(day, *parcels):
    """An order of which all is fulfilled, as it was on a day of November 2026."""
    at = {"fulfillment_status": "fulfilled", "updated_at": f"2026-11-{day:02}T08:00:05Z"}
    return orders.shopify(fulfillments=list(parcels), **at)


def test_a_parcel_goes_back_in_no_email(db, business):
    """Between that it was handed over and its first scan a carrier tells of labels."""
    deliver(business, "new", orders.shopify(), SHOPIFY)
    for day, state in enumerate((None, "confirmed", "label_printed", "in_transit"), start=3):
        deliver(business, "change", shopify(day, orders.parcel(state)), SHOPIFY)
    assert recorded(db) == [("zoe@shop.example", "IN_TRANSIT")]
    assert told(db) == ["order.recorded", "order.status_recorded"]


def test_a_number_that_staff_have_put_right_takes_the_place_of_the_wrong_one(db, business):
    """Plugins take the wrong one out of the array, and PHP makes an object of the gap."""
    wrong, right = ({"tracking_provider": "dhl", "tracking_number": n} for n in ("111", "222"))
    deliver(business, "new", woo())
    for day, noted in ((3, [wrong]), (4, {"1": right})):
        meta = [{"key": "_wc_shipment_tracking_items", "value": noted}]
        deliver(business, "change", woo(day=day, status="shipped", meta_data=meta))
    (order,) = db.scalars(select(Order))
    assert order.tracking["tracking_number"] == "222"


def noted(number):
    """The plugin's note of a tracking number."""
    items = [{"tracking_provider": "dhl", "tracking_number": number}]
    return {"meta_data": [{"key": "_wc_shipment_tracking_items", "value": items}]}


@pytest.mark.parametrize("size", [1, 2, 4], ids=lambda size: f"batches of {size}")
def test_of_two_states_with_one_stamp_the_later_delivered_counts(db, business, size):
    """WooCommerce leaves `date_modified` when only the tracking numbers of an order change."""
    for id_ in range(1, 21):
        deliver(business, "new", woo(id=id_))
        first, one, two = (
            said(business, WOOCOMMERCE, "change", woo(id=id_, day=3, status="completed", **meta))[1]
            for meta in ({}, noted("JD1"), noted("JD2"))
        )
        here = [first, one, two, one]
        for start in range(0, len(here), size):
            take_in(*here[start : start + size])
        # A copy, which the inbox has forgotten.
        with transaction() as session:
            record(session, [one], lanes=Lanes(1_000, 100), unknown=Unknown(1_000))
    mailed = [fact.tracking_number or "" for fact in facts(db, "order.status_recorded")]
    assert mailed == ["", "JD1", "JD2"] * 20
    db.rollback()
    shown = [order.tracking for order in db.scalars(select(Order))]
    assert [one["tracking_number"] for one in shown] == ["JD2"] * 20
    assert {one["carrier"] for one in shown} == {shown[0]["carrier"]}


def test_of_two_states_with_one_stamp_that_another_recorder_overtook_the_later_counts(
    db, business, engine
):
    """The first would have created the order."""
    _, made = said(business, WOOCOMMERCE, "new", woo())
    one, two = (
        said(
            business,
            WOOCOMMERCE,
            "change",
            woo(minute=1, status="completed", **noted(number)),
            after=YOUNG,
        )[1]
        for number in ("JD1", "JD2")
    )
    assert one.data.is_new
    other = threading.Thread(target=take_in, args=(one, two), daemon=True)
    with transaction() as session:
        record(session, [made], lanes=Lanes(1_000, 100), unknown=Unknown(1_000))
        other.start()
        until(lambda: waits(engine), "the other waits for the row")
    other.join(PATIENCE)
    db.rollback()
    (order,) = db.scalars(select(Order))
    assert order.tracking["tracking_number"] == "JD2"


@pytest.mark.parametrize("is_one_batch", [True, False])
def test_a_refund_of_what_has_left_is_no_cancellation(db, business, is_one_batch):
    """WooCommerce dates `completed` alone: of a shop's own `shipped` only the recorder knows."""
    deliver(business, "new", woo())
    _, shipped = said(business, WOOCOMMERCE, "change", woo(day=3, status="shipped"))
    _, refunded = said(business, WOOCOMMERCE, "change", woo(day=4, status="refunded"))
    for batch in ([shipped, refunded],) if is_one_batch else ([shipped], [refunded]):
        take_in(*batch)
    assert recorded(db) == [("zoe@shop.example", "IN_TRANSIT")]
    assert told(db) == ["order.recorded", "order.status_recorded"]
    (kept,) = db.scalars(
        select(OrderStatusHistory).where(OrderStatusHistory.tracking_status == "CANCELLED")
    )
    assert not kept.applied
    # A cancellation that the shop says is one, whatever its parcel does.
    deliver(business, "change", woo(day=5, status="cancelled"))
    assert recorded(db) == [("zoe@shop.example", "CANCELLED")]


def test_a_refund_of_what_has_not_left_is_a_cancellation(db, business):
    deliver(business, "new", woo())
    deliver(business, "change", woo(day=4, status="refunded"))
    assert recorded(db) == [("zoe@shop.example", "CANCELLED")]


@pytest.mark.parametrize("is_recorded", [False, True])
def test_what_was_lost_while_a_webhook_was_off_is_delivered_within_a_week(
    db, business, is_recorded
):
    """By `WC_Webhook::deliver`, see docs/platforms.md: with the order as it is by then."""
    if is_recorded:
        deliver(business, "new", woo())
    for _ in range(2):
        deliver(business, "new", woo(day=3, status="completed"), after=timedelta(days=5))
    deliver(business, "change", woo(day=3, status="completed"))
    assert recorded(db) == [("zoe@shop.example", "IN_TRANSIT")]
    assert told(db).count("order.recorded") == 1


def test_a_test_order_is_waited_for_as_a_live_one_is(db, business):
    for _ in range(2):
        assert deliver(business, "new", woo(status="pending"), is_test=True) == "not_placed"
        deliver(business, "change", woo(day=3), is_test=True)
    db.rollback()
    assert [row.is_test for row in db.scalars(select(Order))] == [True]
    assert told(db) == ["order.test_recorded"]


def test_a_test_order_that_was_cleared_is_recorded_and_told_when_it_is_sent_again(db, business):
    for platform in (WOOCOMMERCE, SHOPIFY):
        made = orders.woocommerce() if platform is WOOCOMMERCE else orders.shopify()
        other = made | {"id": 9}
        for _ in range(2):
            for order in (made, other):
                deliver(business, "new", order, platform, is_test=True)
            db.rollback()
            # As the administrator does it for the API.
            assert db.scalar(select(func.clear_test_orders(business.id, 10))) == 2
            while sweeping.sweep(db):
                pass
            db.commit()
    # The notifier knows a fact by its id.
    assert len(set(db.scalars(select(OutboxMessage.message_id)))) == 8


def logged(db, business, message, note=None):
    """What the request log shows of a delivery that became a message, asked as an account asks."""
    db.execute(text("SELECT keep_webhook_request_partitions(30)"))
    db.add(
        WebhookRequest(
            at=datetime.now(UTC),
            account_id=business.id,
            accepted=True,
            code="accepted",
            event_type=message.type,
            event_id=message.id,
            order_id=message.data.order_id,
            scheme="woocommerce",
            latency_us=1,
            client_address="192.0.2.7",
            note=note,
            order_number=message.data.order_number if note else None,
        )
    )
    db.commit()
    (shown,) = asked_log(db, business)
    return shown


def asked_log(db, business, **wanted):
    asked = request_log_api.RequestFilter(**wanted)
    return request_log_api.index(db, Call(business.id, None, asked, {}, "")).body.results


def test_the_log_says_of_no_request_that_places_an_order_that_nothing_is_recorded(db, business):
    deliver(business, "new", woo(status="pending"))
    note, placed = said(business, WOOCOMMERCE, "change", woo(day=4))
    take_in(placed)
    assert recorded(db) == [("zoe@shop.example", "PENDING")]
    shown = logged(db, business, placed, note)
    assert (note, shown.note, shown.order_id) == ("no_change", None, placed.data.order_id)
    assert not asked_log(db, business, note="no_change")


def test_and_of_one_that_changes_nothing_it_does(db, business):
    deliver(business, "new", woo())
    note, changed = said(business, WOOCOMMERCE, "change", woo(day=4))
    take_in(changed)
    assert logged(db, business, changed, note).note == "no_change"
    assert len(asked_log(db, business, note="no_change")) == 1


def test_the_log_leads_to_the_order_that_an_earlier_version_recorded(db, business):
    _, now = said(business, WOOCOMMERCE, "new", woo(total="1.00", **FRENCH))
    before, id_ = spelled(now, woo())
    take_in(before)
    take_in(now)
    assert logged(db, business, now).order_id == id_
    # What was said again tells nobody anything, and counts for nothing.
    assert told(db) == ["order.recorded"]
    rows = db.scalars(select(OrderStatusHistory).order_by(OrderStatusHistory.applied))
    assert [(row.event_id, row.applied) for row in rows] == [(now.id, False), (before.id, True)]


def test_an_order_of_a_shop_is_found_by_the_number_that_its_customer_reads(db, business):
    other = account(db)
    for owner in (business, other):
        deliver(owner, "new", orders.shopify(), SHOPIFY)
        deliver(owner, "new", orders.woocommerce(number="#1001", _links=None))
        deliver(owner, "new", orders.shopify(id=7, name="#1002"), SHOPIFY)
    db.rollback()
    found = search.search(db, " #1001 ")
    assert [one.order_number for one in found] == ["#1001"] * 4
    asked = orders_api.Filter(order_number="#1001")
    page = orders_api.index(db, Call(business.id, None, asked, {}, "")).body
    assert [order.order_number for order in page.results] == ["#1001"] * 2
    # By its index, however many orders there are.
    query = select(Order.id).where(Order.has_number_in_shop("#1001"))
    as_sent = query.compile(db.get_bind(), compile_kwargs={"literal_binds": True})
    db.execute(text("SET LOCAL enable_seqscan = off"))
    plan = db.execute(text(f"EXPLAIN {as_sent}"))
    assert "ix_orders_of_shops" in str(plan.all())
