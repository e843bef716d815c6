"""Test orders are in no figure and no list but their own: every reader is tried, and is known."""

import re
from datetime import UTC, datetime
from pathlib import Path

import pytest
from prometheus_client import REGISTRY
from sqlalchemy import event, text
from sqlalchemy.orm import Session

from services.ingress.request_log import health_api
from services.notifier.__main__ import wire as notifying
from services.ops.monitoring import customer_flow, order_flow
from services.ops.monitoring.customer_flow import CustomerCounters
from services.ops.timelines import account as account_trail
from services.ops.timelines import order as trail
from services.ops.timelines import search
from services.orders import api as orders_api
from services.orders.__main__ import wire as recording
from services.secrets import usage
from shared.bus.contract import topology
from shared.bus.contract.events import OrderCancelled, TrackingStatus, in_test
from shared.bus.contract.message import message_for
from shared.db.models import OutboxMessage, WebhookRequest, WebhookSecret, WebhookSecretUse
from shared.http.route import Call
from shared.ids import new_id
from stack.folders import ROOT
from tests.integration.arrange import (
    account,
    consuming,
    depth,
    order_created,
    publish,
    publish_raw,
    status_changed,
    until,
)

# Whoever reads orders, and how it keeps tests out. A new reader fails here until it is tried below.
READERS = {
    "services/ingress/request_log/health_api.py": "by the event's type",
    "services/ingress/request_log/api.py": "asks of ids how their sender calls them",
    "services/notifier/api.py": "asks of ids how their sender calls them",
    "services/notifier/suppression/leaving.py": "asks of one order whom it is for",
    "services/notifier/suppression/upkeep.py": "asks of ids whether they are there still",
    "services/notifier/deliveries.py": "asks of ids whether a customer was erased",
    "services/ops/customers/customers.py": "erases and exports: all of a person's",
    "services/ops/customers/rows.py": "erases and exports: all of a person's",
    "services/ops/monitoring/customer_flow.py": "takes them out of counters",
    "services/ops/monitoring/order_flow.py": "by the email's template",
    "services/ops/timelines/account.py": "Order.is_live",
    "services/ops/timelines/emails.py": "of one order, which says that it is a test",
    "services/ops/timelines/lists.py": "Order.is_live",
    "services/ops/timelines/order.py": "of one order, which says that it is a test",
    "services/ops/timelines/search.py": "Order.is_live, but for an id or key of one",
    "services/ops/timelines/unrecorded.py": "asks of ids which are recorded",
    "services/orders/api.py": "Order.is_live",
    "services/orders/conflicts.py": "of the same id, which is of one mode",
    "services/orders/rows.py": "an update touches orders of its own mode",
    "services/orders/test_mode_api.py": "asks whether a business has tests",
    "services/orders/shops/awaited.py": "asks of ids, which are of one mode, which are recorded",
    "services/orders/shops/former_ids.py": "asks of ids, which are of one mode, when they came",
    "shared/db/retention.py": "ends them sooner",
}
READS = re.compile(r"\bOrder\.|\bselect\(Order\b|\bOrder\)|\b(?:FROM|JOIN|INTO|UPDATE) orders\b")


@pytest.fixture
def settings(settings, configure, mailbox):
    return configure(smtp_port=str(mailbox.port))


def test_every_reader_of_orders_is_known():
    found = set()
    for folder in ("services", "shared", "stack"):
        for file in (ROOT / folder).rglob("*.py"):
            name = str(file.relative_to(ROOT))
            if "migrations" not in name and READS.search(file.read_text()):
                found.add(name)
    known = {name for name in READERS if (Path(ROOT) / name).exists()}
    assert known == set(READERS)
    assert found - {"shared/synthetic.py", "shared/db/models.py"} <= known
    assert not {"stack/demo.py"} & found


def through(settings, db, *events):
    """Record events and send the emails about them, by real consumers."""
    with consuming(settings, *recording(settings).subscriptions):
        publish(
            settings.amqp_url,
            *(message_for(e, source="tests", correlation_id=e.order_id) for e in events),
        )
    db.rollback()
    for row in db.query(OutboxMessage).order_by(OutboxMessage.sequence).all():
        publish_raw(
            settings.amqp_url, row.exchange, row.routing_key, bytes(row.body),
            type=row.type, message_id=str(row.message_id), correlation_id=row.correlation_id,
        )  # fmt: skip
        db.delete(row)
    db.commit()
    with consuming(settings, *notifying(settings).subscriptions):
        pass


def request_of(business, event, secret_id, **changes):
    values = {
        "at": datetime.now(UTC),
        "account_id": business.id,
        "accepted": True,
        "code": "accepted",
        "event_type": event.TYPE,
        "event_id": new_id(),
        "order_id": event.order_id,
        "secret_id": secret_id,
        "scheme": "x-api-key",
        "latency_us": 100,
        "client_address": "192.0.2.1",
    }
    return WebhookRequest(**(values | changes))


def secret_of(db, business, *, is_test):
    secret = WebhookSecret(
        id=new_id(),
        account_id=business.id,
        key_hash=new_id().bytes,
        sealed=b"",
        is_test=is_test,
        state="active",
        expires_at=datetime(2099, 1, 1, tzinfo=UTC),
    )
    db.add(secret)
    db.flush()
    now = datetime.now(UTC)
    db.add(
        WebhookSecretUse(
            secret_id=secret.id,
            hour_of_day=now.hour,
            hour=now.replace(minute=0, second=0, microsecond=0),
            accepted=9 if is_test else 1,
            last_used_at=now,
        )
    )
    db.commit()
    return secret


def emails_counted():
    return sum(
        sample.value
        for metric in REGISTRY.collect()
        if metric.name == "fellow_emails"
        for sample in metric.samples
        if sample.name == "fellow_emails_total"
    )


def read(engine, business, live):
    """What everybody reads, of all that is shown of a business and of the system."""
    call = Call(business.id, None, orders_api.Filter(), {}, "192.0.2.1")
    with Session(engine) as session:
        found = account_trail.account_trail(session, business.id)
        listed = orders_api.index(session, call).body
        health = health_api.show(session, call).body
        used = usage.of_account(session, business.id, datetime.now(UTC))
        return {
            "list": [order.id for order in listed.results],
            "account": (found.orders, found.orders_today, found.newest_order_at, found.refusals),
            "latency": order_flow.latency(session).orders,
            "health": health.orders,
            "search": [f.order_id for f in search.search(session, live.customer_details.email)],
            "shares": sorted(one.share_of_last_day for one in used.values()),
            "emails": emails_counted(),
        }


def test_no_reader_counts_or_lists_one(settings, db, engine):
    business = account(db, status="approved")
    signing, testing = (secret_of(db, business, is_test=t) for t in (False, True))
    live = order_created(business.id)
    through(settings, db, live, status_changed(live, TrackingStatus.IN_TRANSIT))
    db.add(request_of(business, live, signing.id))
    db.commit()
    before = read(engine, business, live)
    assert before["list"] == [live.order_id]
    assert before["shares"] == [1.0]
    assert (before["latency"], before["health"]) == (1, 1)
    others = CustomerCounters()

    def counted():
        with Session(engine) as session:
            return others.of(session, order_flow.counters(session))

    until(lambda: counted().recorded == 2 and counted().emailed == 2, "PostgreSQL tells of both")

    tests = [in_test(order_created(business.id)) for _ in range(5)]
    moved = [in_test(status_changed(t, TrackingStatus.OUT_FOR_DELIVERY, "Soon.")) for t in tests]
    gone = in_test(OrderCancelled(order_id=tests[0].order_id, account_id=business.id))
    nowhere = in_test(status_changed(order_created(business.id), TrackingStatus.DELIVERED))
    through(settings, db, *tests, *moved, gone, nowhere)
    db.add_all(request_of(business, t, testing.id) for t in tests)
    db.add(
        request_of(
            business, tests[0], testing.id, accepted=False, code="invalid_body", event_type=None
        )
    )
    db.commit()
    assert read(engine, business, live) == before

    def told():
        with Session(engine) as session:
            return order_flow.counters(session)

    # Eleven statuses and eleven emails more.
    until(lambda: (told().recorded, told().emailed) == (13, 13), "PostgreSQL tells of the tests")
    assert (counted().recorded, counted().emailed) == (2, 2)
    for queue in (*topology.DEAD_QUEUES, *topology.RETRY_QUEUES):
        assert depth(settings.amqp_url, queue.name) == 0


def test_a_look_holds_no_more_than_ten_minutes_of_tests(settings, db, engine):
    """Each look, every two seconds, has all that is within them in memory."""
    business = account(db)
    tests = [in_test(order_created(business.id)) for _ in range(20)]
    through(settings, db, *tests)
    db.execute(text("UPDATE order_status_history SET at = at - interval '1 hour'"))
    db.commit()
    through(settings, db, *(in_test(order_created(business.id)) for _ in range(3)))
    others = CustomerCounters()
    with Session(engine) as session:
        others.of(session, order_flow.counters(session))
    assert others._tests.count == 3


def test_a_flood_of_tests_is_not_read_and_makes_the_flow_unknown(settings, db, engine, monkeypatch):
    """Whatever a business sends, a look has so many rows in memory, and invents no flow."""
    business = account(db)
    live = order_created(business.id)
    tests = [in_test(order_created(business.id)) for _ in range(4)]
    through(settings, db, live, *tests)
    monkeypatch.setattr(customer_flow, "MOST_EXAMINED", 6)
    others, counters = CustomerCounters(), order_flow.Counters(100, 100)
    written = []

    def look():
        with Session(engine) as session:
            event.listen(session.get_bind(), "after_cursor_execute", read_of)
            found = others.of(session, counters)
            event.remove(session.get_bind(), "after_cursor_execute", read_of)
        return found

    def read_of(connection, cursor, *_):
        written.append(cursor.rowcount)

    assert look() == order_flow.Counters(96, 96)
    flood = [
        in_test(status_changed(tests[0], TrackingStatus.IN_TRANSIT, str(n))) for n in range(30)
    ]
    through(settings, db, *flood)
    written.clear()
    assert look() == order_flow.Counters(None, None)
    assert max(written) < 6
    # Until no growth of a minute can span what was not counted.
    db.execute(text("UPDATE order_status_history SET at = at - interval '1 hour'"))
    db.execute(text("UPDATE email_deliveries SET at = at - interval '1 hour'"))
    db.commit()
    assert look() == order_flow.Counters(None, None)
    others._unknown_until -= customer_flow.UNKNOWN_FOR
    assert look().recorded is not None


def test_one_that_is_asked_for_by_its_id_says_that_it_is_a_test(settings, db, engine):
    business = account(db, status="approved")
    test = in_test(order_created(business.id))
    through(settings, db, test)
    with Session(engine) as session:
        (found,) = search.search(session, str(test.order_id))
        assert found.order_id == test.order_id
        shown = trail.order_trail(session, test.order_id)
    assert shown.is_test
    steps = [(step.what, step.text) for step in shown.steps]
    assert ("email", f"test_order_received to {business.email}: sent") in steps
    assert not [what for what, _ in steps if what == "due"]


def test_each_mode_is_listed_by_itself(settings, db, engine):
    business = account(db)
    live, test = order_created(business.id), in_test(order_created(business.id))
    through(settings, db, live, test)
    with Session(engine) as session:
        for mode, order in (("live", live), ("test", test)):
            call = Call(business.id, None, orders_api.Filter(mode=mode), {}, "192.0.2.1")
            (shown,) = orders_api.index(session, call).body.results
            assert (shown.id, shown.mode) == (order.order_id, mode)
