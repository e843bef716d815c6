"""`fellow trail` and `fellow account`: what happened, from what the services wrote down."""

import json
import re
from contextlib import closing, nullcontext
from datetime import UTC, datetime, timedelta
from email.utils import parseaddr
from types import SimpleNamespace

import pytest
from kombu import Connection
from msgspec.structs import replace
from prometheus_client import REGISTRY
from sqlalchemy import and_, text
from sqlalchemy.orm import Session

from services.audit.__main__ import wire as auditing
from services.notifier.__main__ import wire as notifying
from services.ops.audit.actions import Actor
from services.ops.broker import hold
from services.ops.broker.hold import BusyError
from services.ops.console.pages.timelines import find
from services.ops.customers import messages_on_bus
from services.ops.customers.erasure import Person
from services.ops.dead_letters import retention, retry_queue
from services.ops.dead_letters import search as dead_letters
from services.ops.dead_letters.actions import discard
from services.ops.dead_letters.letter import Criteria
from services.ops.monitoring import order_flow
from services.ops.monitoring.alerts import troubles
from services.ops.monitoring.sampler import Sampler
from services.ops.timelines import account as account_trail
from services.ops.timelines import order as trail
from services.ops.timelines import pending, requests, search, unrecorded
from services.orders.__main__ import wire as recording
from shared.bus import outbox
from shared.bus.broker.standing import PartStatus
from shared.bus.contract import topology
from shared.bus.contract.events import (
    CustomerDetails,
    OrderCancelled,
    OrderCreated,
    OrderPlaced,
    TrackingStatus,
)
from shared.bus.contract.message import message_for
from shared.db.models import OutboxMessage, WebhookPolicy, WebhookRequest, WebhookSecret
from shared.db.session import transaction
from shared.ids import derived_id, new_id, order_of_key, order_of_number
from shared.service import heartbeat_of
from shared.telemetry import heartbeat
from tests.integration.arrange import (
    account,
    accounts_of_shards,
    ago,
    consuming,
    declare,
    in_shards,
    order_created,
    publish,
    publish_raw,
    status_changed,
    take,
    until,
)
from tests.integration.ops.cli.test_cli import fellow


@pytest.fixture
def settings(settings, configure, mailbox):
    return configure(smtp_port=str(mailbox.port))


def sent(settings, *events):
    messages = [message_for(e, source="tests", correlation_id=e.order_id) for e in events]
    publish(settings.amqp_url, *messages)
    return messages


def relayed(settings, db):
    """What the relay would publish."""
    db.rollback()
    rows = db.query(OutboxMessage).order_by(OutboxMessage.sequence).all()
    for row in rows:
        publish_raw(
            settings.amqp_url, row.exchange, row.routing_key, bytes(row.body),
            type=row.type, message_id=str(row.message_id), correlation_id=row.correlation_id,
        )  # fmt: skip
        db.delete(row)
    db.commit()


def lived(settings, db, business):
    """An order with an update, both recorded and mailed; and an update that came too late."""
    order = order_created(business.id)
    update = status_changed(order, TrackingStatus.IN_TRANSIT, "on its way")
    with consuming(settings, *recording(settings).subscriptions):
        first, second = sent(settings, order, update)
    relayed(settings, db)
    with consuming(settings, *notifying(settings).subscriptions):
        pass
    return order, first, second


def test_an_order_from_the_sender_to_the_last_email(settings, db, engine):
    business = account(db, status="approved")
    order, _, second = lived(settings, db, business)
    with Session(engine) as session, Connection(settings.amqp_url) as bus:
        found = trail.order_trail(session, order.order_id, connection=bus)
    assert found.company_name == "Kettle & Co"
    assert found.tracking_status == "IN_TRANSIT"
    assert found.waiting == ()
    assert sorted(step.what for step in found.steps) == [
        "accepted", "email", "email", "recorded", "status", "status",
    ]  # fmt: skip
    (moved,) = [step for step in found.steps if step.text == "IN_TRANSIT: on its way"]
    assert str(moved.event_id) == second.message_id
    assert [step.at for step in found.steps] == sorted(step.at for step in found.steps)
    emails = [step.text for step in found.steps if step.what == "email"]
    assert emails == [
        "order_received to zoe@shop.example: sent",
        "order_status to zoe@shop.example: sent",
    ]


def test_of_a_long_history_the_latest_is_in_the_trail_and_nothing_is_due_that_was_mailed(
    settings, db, engine
):
    business = account(db, status="approved")
    order, *_ = lived(settings, db, business)
    history = """
        INSERT INTO order_status_history (event_id, order_id, tracking_status, note, at, applied)
        SELECT gen_random_uuid(), :order_id, 'IN_TRANSIT', 'number ' || number,
               now() + make_interval(secs => number), true
        FROM generate_series(1, 700) AS number
    """
    emails = """
        INSERT INTO email_deliveries
            (id, fact_id, subject_id, recipient, template, message_id, state, at)
        SELECT gen_random_uuid(), gen_random_uuid(), :subject_id, 'zoe@shop.example',
               'of ' || number, '<' || number || '@order-fellow.example>', 'sent',
               now() + make_interval(secs => number)
        FROM generate_series(1, 700) AS number
    """
    with Session(engine) as session:
        session.execute(text(history), {"order_id": order.order_id})
        session.execute(text(emails), {"subject_id": str(order.order_id)})
        session.commit()
        found = trail.order_trail(session, order.order_id)
    said = [step.said for step in found.steps if step.what == "status"]
    assert said == [f"number {number}" for number in range(201, 701)]
    mailed = [step.text.partition(" to ")[0] for step in found.steps if step.what == "email"]
    assert mailed == [f"of {number}" for number in range(201, 701)]
    assert not [step for step in found.steps if "the order itself" in step.text]
    assert found.is_cut


def test_an_order_is_found_by_its_number_with_its_parcel(settings, db, engine):
    business, other = account(db, status="approved"), account(db, status="approved")
    url = "https://track.carrier.example/JD0146"
    mine = order_created(
        business.id,
        order_id=order_of_number(business.id, "Zo\u00eb-1"),
        order_number="Zo\u00eb-1",
        metadata={"branch": "Lekki"},
    )
    theirs = order_created(
        other.id, order_id=order_of_number(other.id, "Zo\u00eb-2"), order_number="Zo\u00eb-2"
    )
    update = replace(
        status_changed(mine, TrackingStatus.IN_TRANSIT, "left"), tracking_url=url, carrier="Swift"
    )
    again = replace(update, note="", tracking_url=f"{url}?again")
    with consuming(settings, *recording(settings).subscriptions):
        sent(settings, mine, theirs, update, again)
    with Session(engine) as session, Connection(settings.amqp_url) as bus:
        (found,) = search.search(session, " Zoe\u0308-1 ")
        assert (found.order_id, found.order_number) == (mine.order_id, "Zo\u00eb-1")
        assert search.search(session, "zo\u00eb-1") == []
        shown = trail.order_trail(session, found.order_id, connection=bus)
    assert (shown.order_number, shown.metadata) == ("Zo\u00eb-1", {"branch": "Lekki"})
    assert trail.in_words(shown.parcel) == f"Swift, {url}?again"
    texts = {step.text for step in shown.steps if step.what == "status"}
    assert texts == {
        "PENDING",
        f"IN_TRANSIT: left; Swift, {url}",
        f"IN_TRANSIT: Swift, {url}?again",
    }
    due = [step for step in shown.steps if step.what == "due"]
    assert len(due) == 3  # each of them is told
    code, out, err = fellow(settings, "trail", "Zo\u00eb-1")
    assert code == 0, err
    assert "Order Zo\u00eb-1, " in out
    assert url in out.replace("\n", "")
    assert "branch: Lekki" in out


def test_what_still_waits(settings, db, engine):
    order = order_created()
    sent(settings, order)
    late = status_changed(order, TrackingStatus.DELIVERED)
    for exchange, event, reason in (
        ("retry.1h", late, "Retry: this account has no order"),
        ("dead", order, "Malformed: x"),
    ):
        m = message_for(event, source="tests", correlation_id=order.order_id)
        publish_raw(
            settings.amqp_url, exchange, "orders.intake", m.body, type=m.type,
            message_id=m.message_id, correlation_id=m.correlation_id,
            application_headers={"x-attempt": 5, "x-reason": reason,
                                 "x-failed-at": "2026-11-24T10:00:00+00:00"},
        )  # fmt: skip
    with Session(engine) as session, Connection(settings.amqp_url) as bus:
        found = trail.order_trail(session, order.order_id, connection=bus)
        assert not found.is_recorded
        assert [(w.place, w.queue, w.attempts, w.reason) for w in found.waiting] == [
            ("retry.1h", "orders.intake", 5, "Retry: this account has no order"),
            ("orders.intake.dead", "orders.intake", 5, "Malformed: x"),
        ]
        assert trail.order_trail(session, new_id(), connection=bus) is None
    with consuming(settings, *recording(settings).subscriptions):
        pass
    with Session(engine) as session:
        found = trail.order_trail(session, order.order_id)
    assert [(w.place, w.type) for w in found.waiting] == [("outbox", "order.recorded")]


def test_by_the_customers_address_and_by_the_requests_key(settings, db, engine):
    business = account(db, status="approved")
    first = order_created(business.id, order_id=derived_id("order", business.id, "key-1"))
    second = order_created(business.id)
    with consuming(settings, *recording(settings).subscriptions):
        (message, _) = sent(settings, first, second)
    with Session(engine) as session:
        found = search.search(session, " ZOE@shop.example ")
        assert {order.order_id for order in found} == {first.order_id, second.order_id}
        assert search.search(session, "nobody@shop.example") == []
        assert search.search(session, "key-2") == []
        assert [order.order_id for order in search.search(session, "key-1")] == [first.order_id]
    for accepted, code, event_id in (
        (True, "accepted", message.message_id),
        (False, "rate_limited", None),
    ):
        db.add(
            WebhookRequest(
                at=datetime.now(UTC), account_id=business.id, accepted=accepted, code=code,
                event_type="order.created", event_id=event_id, idempotency_key="key-1",
                scheme="x", latency_us=1, client_address="192.0.2.7",
            )
        )  # fmt: skip
    db.commit()
    with Session(engine) as session:
        found = trail.order_trail(session, first.order_id)
        assert "order.created: accepted, from 192.0.2.7, key key-1" in {s.text for s in found.steps}
        account_ = account_trail.account_trail(session, business.id)
        assert account_.refusals == {"rate_limited": 1}


def requested(db, business, message, order, key=None):
    """What the ingress writes of a request that it answered with 201."""
    db.add(
        WebhookRequest(
            at=datetime.now(UTC), account_id=business.id, accepted=True, code="accepted",
            event_type=message.type, event_id=message.message_id, order_id=order.order_id,
            idempotency_key=key, scheme="x", latency_us=1, client_address="192.0.2.7",
        )
    )  # fmt: skip
    db.commit()


def test_an_accepted_order_is_known_while_nobody_records(settings, db, engine):
    business = account(db, status="approved", company_name="Late & Sons")
    zoe = CustomerDetails(name="Zoë", email="Late@Shop.example")
    with_key = order_created(
        business.id, order_id=derived_id("order", business.id, "key-9"), customer_details=zoe
    )
    without = order_created(business.id, customer_details=zoe)
    numbered = order_created(
        business.id, order_id=order_of_number(business.id, "A-9"), order_number="A-9"
    )
    first, second, third = sent(settings, with_key, without, numbered)
    requested(db, business, third, numbered)
    requested(db, business, replace(first, message_id=new_id()), with_key, "key-9")
    requested(db, business, second, without)
    with Session(engine) as session, Connection(settings.amqp_url) as bus:
        for order in (with_key, without):
            found = trail.order_trail(session, order.order_id, connection=bus)
            assert (found.is_recorded, found.company_name) == (False, "Late & Sons")
            assert [step.what for step in found.steps] == ["request", "due"]
            assert "not recorded yet" in found.steps[-1].text
        (found,) = search.search(session, "A-9")
        assert (found.order_id, found.tracking_status) == (numbered.order_id, "")
        (found,) = search.search(session, "key-9")
        assert (found.order_id, found.tracking_status) == (with_key.order_id, "")
        by_email = search.search(session, "late@shop.example", connection=bus)
        assert {found.order_id for found in by_email} == {with_key.order_id, without.order_id}
        assert search.search(session, "other@shop.example", connection=bus) == []
    code, out, err = fellow(settings, "trail", "key-9")
    assert (code, "not recorded" in out) == (0, True), err
    with consuming(settings, *recording(settings).subscriptions):
        pass
    with Session(engine) as session, Connection(settings.amqp_url) as bus:
        by_email = search.search(session, "late@shop.example", connection=bus)
        assert {found.tracking_status for found in by_email} == {"PENDING"}
        assert len(by_email) == 2


def test_what_waits_in_a_shard_is_looked_for_since_that_one_got_on(settings, db, monkeypatch):
    """The others may be hours ahead of it."""
    declare(settings.amqp_url, 2)
    zoe = CustomerDetails(name="Zoë", email="late@shop.example")
    order = order_created(accounts_of_shards(2)[1], customer_details=zoe)
    (message,) = sent(settings, order)  # which the journal has as well
    take(settings.amqp_url, "orders.intake")
    publish(settings.amqp_url, *in_shards(2, [message]))
    asked, read, now = [], unrecorded.reading.read, datetime.now(UTC)

    def note(connection, since):
        asked.append(since + unrecorded.MARGIN)
        return read(connection, since)

    monkeypatch.setattr(unrecorded.reading, "read", note)
    heartbeat_writer, behind = (
        heartbeat.HeartbeatWriter("services.orders"),
        now - timedelta(hours=3),
    )
    for reached_in, is_whole in (({"orders.intake.1": behind}, True), ({}, False)):
        said = heartbeat.QueueFigures(PartStatus("working"), reached=now, reached_in=reached_in)
        heartbeat_writer.beat(db, {"orders.intake": said})
        db.commit()
        with Connection(settings.amqp_url) as bus:
            found, whole, _ = unrecorded.by_email(db, bus, "late@shop.example")
        assert [one.order_id for one, _ in found] == [order.order_id]
        assert whole == is_whole
    first, second = asked
    assert first == behind
    assert second < now - timedelta(minutes=30)


def test_what_is_recorded_needs_no_look_at_the_request_log(settings, db, engine):
    """Which is read row by row, since no index of it is by order or key."""
    business = account(db, status="approved")
    key = "k" * 255
    keyed = order_created(business.id, order_id=order_of_key(business.id, key))
    with consuming(settings, *recording(settings).subscriptions):
        sent(settings, keyed)
    db.rollback()
    with engine.begin() as other:
        other.execute(text("LOCK TABLE webhook_requests IN ACCESS EXCLUSIVE MODE"))
        db.execute(text("SET LOCAL lock_timeout = '2s'"))
        found = search.search(db, str(keyed.order_id))
        assert [one.order_id for one in found] == [keyed.order_id]
        assert search.search(db, "zoe@shop.example").is_whole
    visit = looking_by(None, q=key)
    assert find(db, visit).to == f"/orders/{keyed.order_id}"
    with Connection(settings.amqp_url) as bus:
        visit = looking_by(bus, q=key, account=str(new_id()))
        assert find(db, visit).about["orders"] == []


def looking_by(bus, **query):
    """A visit of the console's search."""
    system = SimpleNamespace(
        broker=lambda _: nullcontext(bus), digests=SimpleNamespace(browse=dead_letters.browse)
    )
    return SimpleNamespace(query=query, user=SimpleNamespace(may=lambda _: True), system=system)


def test_an_order_that_died_days_ago_is_found_by_its_number_and_its_key(
    settings, db, engine, monkeypatch
):
    """Dead letters stay for months; the log is looked through of the last days, or not at all."""
    monkeypatch.setattr(requests, "LATELY", timedelta(0))
    business = account(db, status="approved")
    numbered, gone = (
        order_created(business.id, order_id=order_of_number(business.id, name), order_number=name)
        for name in ("A-1001", "A-1002")
    )
    keyed = order_created(business.id, order_id=order_of_key(business.id, "key-7"))
    for order in (numbered, keyed):
        message = message_for(order, source="tests", correlation_id=order.order_id)
        publish_raw(
            settings.amqp_url, "dead", "orders.intake", message.body, type=message.type,
            message_id=message.message_id, correlation_id=message.correlation_id,
        )  # fmt: skip
    requested(db, business, message_for(gone, source="tests", correlation_id="x"), gone)
    theirs = {"account": str(business.id)}
    with Session(engine) as session, Connection(settings.amqp_url) as bus:
        for name, order in (("A-1001", numbered), ("key-7", keyed), (keyed.order_id, keyed)):
            for of in ({}, theirs):
                to = find(session, looking_by(bus, q=str(name), **of)).to
                assert to == f"/orders/{order.order_id}", (name, of)
        nothing = search.Results()
        search.waiting(session, nothing, bus)
        assert nothing == []
        found = find(session, looking_by(bus, q="A-1002")).about["found"]
        assert (found, found.is_of_all_days) == ([], False)
        to = find(session, looking_by(bus, q="A-1002", **theirs)).to
        assert to == f"/orders/{gone.order_id}"
        found = find(session, looking_by(bus, q="A-1003", **theirs)).about
        assert (found["found"], found["found"].is_of_all_days) == ([], True)
        assert found["of"] == business.company_name
    for of in ((), ("--business", business.email)):
        code, out, err = fellow(settings, "trail", "A-1001", *of)
        assert (code, "orders.intake.dead" in out) == (0, True), err
    code, _, err = fellow(settings, "trail", "A-1003")
    assert (code, "only the requests of the last two days" in err) == (1, True), err


def test_a_log_that_cannot_be_looked_through_in_time_is_not_said_to_be_empty(
    settings, db, monkeypatch
):
    business = account(db, status="approved")
    order = order_created(business.id)
    (message,) = sent(settings, order)
    # An order without a key or a number has the id of its message.
    requested(db, business, replace(message, message_id=str(order.order_id)), order)
    monkeypatch.setattr(requests, "LOG_SECONDS", 0.05)
    slow = text("pg_sleep(0.2) IS NOT NULL")
    is_it = requests.one_of
    is_slow = lambda column, ids: and_(is_it(column, ids), slow)  # noqa: E731
    monkeypatch.setattr(
        requests, "one_of", lambda c, ids: (is_slow if c.key == "order_id" else is_it)(c, ids)
    )
    found = search.search(db, str(order.order_id))
    assert [one.order_id for one in found] == [order.order_id]
    assert (found.are_all_requests, found.is_whole) == (False, True)
    monkeypatch.setattr(requests, "_lately", lambda: slow)
    with pytest.raises(BusyError, match="The request log"):
        trail.order_trail(db, new_id())


def test_what_is_not_recorded_is_found_at_each_of_many_businesses(db, monkeypatch):
    first, second = sorted(
        (account(db, status="approved", email=f"{n}@kettle.example") for n in range(2)),
        key=lambda business: business.id,
    )
    numbered = order_created(second.id, order_id=order_of_number(second.id, "7"), order_number="7")
    requested(db, second, message_for(numbered, source="tests", correlation_id="x"), numbered)
    monkeypatch.setattr(search, "SLICE", 1)
    found = search.search(db, "7")
    assert [one.order_id for one in found] == [numbered.order_id]
    assert (found.are_all_requests, found.is_whole) == (True, True)
    # There is an end to what the log is asked for at once.
    monkeypatch.setattr(search, "MOST_ASKED", 4)
    found = search.search(db, "7")
    assert (list(found), found.are_all_requests) == ([], False)
    found = search.search(db, "7", account_id=second.id)
    assert ([one.order_id for one in found], found.are_all_requests) == ([numbered.order_id], True)
    shown = trail.order_trail(db, numbered.order_id, account_id=second.id)
    assert (shown.account_id, shown.are_all_requests) == (second.id, True)
    assert trail.order_trail(db, numbered.order_id, account_id=first.id) is None


def test_of_more_businesses_than_there_is_time_for_one_is_named(settings, db, engine, monkeypatch):
    numbered = []
    for number in range(3):
        business = account(db, status="approved", email=f"{number}@kettle.example")
        id_ = order_of_number(business.id, "1001")
        numbered.append(order_created(business.id, order_id=id_, order_number="1001"))
    with consuming(settings, *recording(settings).subscriptions):
        sent(settings, *numbered)
    monkeypatch.setattr(search, "SLICE", 1)
    with Session(engine) as session:
        found = search.search(session, "1001")
        assert {one.order_id for one in found} == {one.order_id for one in numbered}
        assert found.are_all_businesses
        monkeypatch.setattr(search, "SECONDS", -1.0)
        found = search.search(session, "1001")
        assert (len(found), found.are_all_businesses) == (1, False)
        for one in numbered:
            found = search.search(session, "1001", account_id=one.account_id)
            assert [each.order_id for each in found] == [one.order_id]
            assert found.are_all_businesses
    code, out, err = fellow(settings, "trail", "1001", "--business", "2@kettle.example")
    assert (code, str(numbered[2].order_id) in out) == (0, True), err


def test_an_order_with_a_number_and_a_key_is_found_by_its_key_as_recorded(settings, db, engine):
    business = account(db, status="approved")
    id_ = order_of_number(business.id, "A-7")
    order = order_created(business.id, order_id=id_, order_number="A-7")
    with consuming(settings, *recording(settings).subscriptions):
        (message,) = sent(settings, order)
    requested(db, business, message, order, "key-7")
    with Session(engine) as session:
        (found,) = search.search(session, "key-7")
    assert (found.order_number, found.tracking_status) == ("A-7", "PENDING")


def test_refusals_that_the_log_has_left_out_are_told(settings, db):
    business = account(db, status="approved")
    refused = {"accepted": False, "code": "too_many_requests", "scheme": "x", "latency_us": 1}
    more = {"account_id": business.id, "client_address": "192.0.2.7"}
    db.add_all(WebhookRequest(at=ago(), **refused, **more) for _ in range(99))
    db.commit()
    assert account_trail.account_trail(db, business.id).refusals_are_all
    # What came before, or was of tests, made it leave out others as well.
    test = WebhookSecret(account_id=business.id, key_hash=b"x", sealed=b"x", state="active",
                         is_test=True, expires_at=business.created_at)  # fmt: skip
    db.add(test)
    db.commit()
    for other in (
        {"at": ago(hours=24, seconds=30)},
        {"at": ago(), "secret_id": test.id},
    ):
        one = WebhookRequest(**refused, **more, **other)
        db.add(one)
        db.commit()
        found = account_trail.account_trail(db, business.id)
        assert (found.refusals, found.refusals_are_all) == ({"too_many_requests": 99}, False)
        db.delete(one)
    db.add(WebhookRequest(at=ago(), **refused, **more))
    db.add(WebhookPolicy(account_id=business.id, blocked_at=ago(), rate_per_second=7))
    db.commit()
    code, out, err = fellow(settings, "account", "show", business.email, "--no-bus")
    assert code == 0, err
    assert "refused in the last 24 hours: at least 100 too_many_requests" in out
    assert "blocked since" in out
    assert "may send 7 requests a second to each worker, from anywhere" in out


def as_placed(order):
    """The same order, as a shop says later that it is placed."""
    said = {name: getattr(order, name) for name in OrderCreated.__struct_fields__}
    return OrderPlaced(**said, has_moved=True)


@pytest.mark.parametrize("place", ["journal", "outbox"])
def test_an_order_that_a_shop_has_placed_is_found_by_its_address(settings, db, place):
    business = account(db, status="approved")
    zoe = CustomerDetails(name="Zoë", email="placed@xn--mller-kva.example")
    order = as_placed(order_created(business.id, customer_details=zoe))
    if place == "outbox":
        with transaction() as session:
            outbox.add(session, [message_for(order, source="tests", correlation_id=business.id)])
    else:
        sent(settings, order)
    with Connection(settings.amqp_url) as bus:
        for written in (
            "Placed@müller.example ",
            "placed@xn--mller-kva.example",
            "placed@müller.example",
        ):
            found = search.search(db, written, connection=bus)
            assert [one.order_id for one in found] == [order.order_id]
            assert [one.tracking_status for one in found] == [""]


def test_an_outbox_that_cannot_be_looked_through_in_time_is_not_said_to_be_empty(
    settings, db, engine, monkeypatch
):
    business = account(db, status="approved")
    with Connection(settings.amqp_url) as bus, engine.begin() as other:
        assert search.search(db, "zoe@shop.example", connection=bus).is_whole
        db.commit()
        other.execute(text("LOCK TABLE outbox IN ACCESS EXCLUSIVE MODE"))
        monkeypatch.setattr(pending, "OUTBOX_SECONDS", 0.1)
        monkeypatch.setattr(unrecorded, "SECONDS", 0.1)
        assert not search.search(db, "zoe@shop.example", connection=bus).is_whole
        assert not account_trail.account_trail(db, business.id).is_whole
        with pytest.raises(BusyError, match="Not all could be looked at"):
            trail.order_trail(db, new_id())


def test_of_any_number_of_messages_in_the_outbox_so_many_are_read(settings, db, monkeypatch):
    order = order_created()
    outbox.add(db, [message_for(order, source="tests", correlation_id="x") for _ in range(4)])
    for most, is_whole in ((3, False), (4, True)):
        monkeypatch.setattr(pending, "OUTBOX_MESSAGES", most)
        found = pending.find(db, ["x"], None)
        assert (len(found.messages), found.is_whole) == (most, is_whole)


def test_a_business_of_too_many_orders_to_be_counted_is_shown_and_can_be_blocked(
    settings, db, engine, monkeypatch
):
    business = account(db, status="approved")
    db.commit()
    with engine.begin() as other, monkeypatch.context() as shorter:
        shorter.setattr(account_trail, "COUNT_SECONDS", 0.1)
        other.execute(text("LOCK TABLE orders IN ACCESS EXCLUSIVE MODE"))
        found = account_trail.account_trail(db, business.id)
        assert (found.orders, found.orders_today, found.email) == (None, None, business.email)
        code, _, err = fellow(settings, "account", "block", str(business.id), "--reason", "x",
                              "--wait", "0", "-y")  # fmt: skip
        assert (code, "Published: " in err) == (0, True)
    assert account_trail.account_trail(db, business.id).orders == {}


def test_of_the_outbox_only_what_names_the_address_is_fetched(settings, db):
    zoe = CustomerDetails(name="Zoë", email="Zoe@Shop.example")
    bola = CustomerDetails(name="Bola", email="bola@shop.example")
    orders = [order_created(customer_details=one) for one in (bola, zoe, bola)]
    outbox.add(db, [message_for(one, source="tests", correlation_id="x") for one in orders])
    assert len(list(unrecorded._in_outbox(db, "zoe@shop.example", lambda _: None))) == 1
    (found,) = list(unrecorded._in_outbox(db, "ZOE@shop.example", lambda _: None))
    assert b"Zoe@Shop.example" in found[0]


def test_a_journal_that_is_not_read_to_its_end_is_said(settings, db, monkeypatch):
    monkeypatch.setattr(unrecorded, "AT_MOST", 2)
    sent(settings, *(order_created() for _ in range(4)))
    with Connection(settings.amqp_url) as bus:
        assert not search.search(db, "nobody@shop.example", connection=bus).is_whole


def test_what_lies_behind_what_can_be_looked_through_is_said(settings, db, monkeypatch):
    """A rung and a dead queue of more messages than one look takes."""
    order = order_created()
    for number in range(5):
        about = order.order_id if number == 4 else new_id()
        for exchange in (topology.RETRY_DELAYS[-1].name, "dead"):
            publish_raw(settings.amqp_url, exchange, "orders.intake", b"{}", type="order.created",
                        message_id=f"m{number}", correlation_id=str(about))  # fmt: skip
    monkeypatch.setattr(hold, "MOST", 3)
    monkeypatch.setattr(dead_letters, "MOST", 3)
    with Connection(settings.amqp_url) as bus:
        assert not pending.find(db, [str(order.order_id)], bus).is_whole
        assert retry_queue.waiting(bus).unseen == 2
        page = dead_letters.browse(bus, topology.ORDERS_INTAKE, Criteria(reason="nothing"))
        assert (page.next, page.unseen, page.is_whole) == (None, 2, False)
        with pytest.raises(BusyError, match=r"orders\.intake\.dead has more than 3 messages"):
            dead_letters.find(bus, topology.ORDERS_INTAKE, "m4")
        assert dead_letters.find(bus, topology.ORDERS_INTAKE, "m1") is not None
        assert retention.over(bus, topology.ORDERS_INTAKE, 90, ago()) == (0, False)
        person = Person.of("zoe@shop.example", {"zoe@shop.example": "zoe@shop.example"})
        _, found = messages_on_bus.find(bus, person)
        assert found.unseen == {topology.RETRY_DELAYS[-1].name: 2, "orders.intake.dead": 2}


def test_an_order_that_cannot_be_recorded_is_found_among_the_dead(settings, db, engine):
    business = account(db, status="approved")
    zoe = CustomerDetails(name="Zoë", email="dead@shop.example")
    order = order_created(business.id, customer_details=zoe)
    message = message_for(order, source="tests", correlation_id=order.order_id)
    publish_raw(settings.amqp_url, "dead", "orders.intake", message.body, type=message.type,
                message_id=message.message_id, correlation_id=message.correlation_id)  # fmt: skip
    requested(db, business, message, order)
    with Session(engine) as session, Connection(settings.amqp_url) as bus:
        (found,) = search.search(session, "dead@shop.example", connection=bus)
        assert found.order_id == order.order_id
        steps = trail.order_trail(session, order.order_id, connection=bus).steps
    assert steps[-1].text == "accepted, not recorded yet: it waits in orders.intake.dead"


def test_another_order_under_the_same_key_is_in_the_trail(settings, db, engine):
    business = account(db, status="approved")
    first = order_created(business.id, order_id=derived_id("order", business.id, "key-1"))
    other = CustomerDetails(name="Ada", email="ada@shop.example")
    second = order_created(
        business.id, order_id=first.order_id, customer_details=other, item_summary="a red kettle"
    )
    with consuming(settings, *recording(settings).subscriptions):
        sent(settings, first, second)
    with Session(engine) as session:
        (step,) = [
            step
            for step in trail.order_trail(session, first.order_id).steps
            if step.what == "conflict"
        ]
        assert (step.text, step.counts) == (
            "another order under the same key, which is not recorded: a red kettle for "
            "ada@shop.example",
            False,
        )
        # Whoever asks for the one that is not recorded is led there.
        (found,) = search.search(session, "ada@shop.example")
    assert found.order_id == first.order_id


def test_order_to_email_counts_orders_with_a_key(settings, db, engine):
    business = account(db)
    orders = [
        order_created(business.id, order_id=derived_id("order", business.id, f"key-{n}"))
        for n in range(3)
    ]
    with consuming(settings, *recording(settings).subscriptions):
        sent(settings, *orders, order_created(business.id))
    relayed(settings, db)
    with consuming(settings, *notifying(settings).subscriptions):
        pass
    with Session(engine) as session:
        assert order_flow.latency(session).orders == 4


def test_an_email_that_is_due_says_so_and_why(settings, db, engine, mailbox):
    business = account(db)
    order = order_created(business.id)
    with consuming(settings, *recording(settings).subscriptions):
        sent(settings, order)

    def due():
        with Session(engine) as session:
            steps = trail.order_trail(session, order.order_id).steps
        return [step.text for step in steps if step.what == "due"]

    assert due() == ["the order itself: email due, not sent yet: it waits in outbox"]
    mailbox.stop()
    relayed(settings, db)
    heartbeat_writer = heartbeat.HeartbeatWriter("services.notifier")
    with consuming(settings, *notifying(settings).subscriptions) as consumers:
        beat = heartbeat_of(heartbeat_writer, consumers)

        def is_held():
            return all(consumer.standing.status.lacks == "mail" for consumer in consumers)

        until(is_held, "it is held")
        assert REGISTRY.get_sample_value(
            "fellow_lacking", {"part": "notifier.orders", "what": "mail"}
        ) == 1  # fmt: skip
        with transaction() as session:
            beat(session)
        assert re.fullmatch(
            r"the order itself: email due, not sent yet: no mail server takes our mail since "
            r"\d{4}-\d\d-\d\d \d\d:\d\d UTC",
            *due(),
        )
        with closing(Sampler(settings.amqp_url, engine)) as sampler:
            (trouble,) = [t for t in troubles([sampler.take()]) if t.about == "mail"]
        assert trouble.level == "down"
        assert re.match(
            r"No mail server takes our mail: 1 email waits since \d{4}-\d\d-\d\d \d\d:\d\d UTC\. "
            r".*no mail server at",
            trouble.text,
        )
        mailbox.start()
        until(lambda: due() == [], "it is sent")
        until(lambda: not is_held(), "nothing is held")
        assert REGISTRY.get_sample_value(
            "fellow_lacking", {"part": "notifier.orders", "what": "mail"}
        ) == 0  # fmt: skip


def test_a_cancellation_and_what_does_not_count_after_it(settings, db, engine):
    business = account(db)
    order = order_created(business.id)
    cancelled = OrderCancelled(order_id=order.order_id, account_id=business.id, reason="gone")
    with consuming(settings, *recording(settings).subscriptions):
        sent(settings, order, cancelled)
    with consuming(settings, *recording(settings).subscriptions):
        sent(settings, status_changed(order, TrackingStatus.OUT_FOR_DELIVERY))
    with Session(engine) as session:
        steps = trail.order_trail(session, order.order_id).steps
    found = {step.text: step.counts for step in steps if step.what == "status"}
    assert found == {
        "PENDING": True,
        "CANCELLED: gone": True,
        "OUT_FOR_DELIVERY, does not count": False,
    }


def test_an_account(settings, db, engine):
    business = account(db, status="approved", number="RC 17/2")
    db.add(
        WebhookSecret(account_id=business.id, key_hash=b"x", sealed=b"x", state="active",
                      expires_at=business.created_at)
    )  # fmt: skip
    db.commit()
    lived(settings, db, business)
    with Session(engine) as session, Connection(settings.amqp_url) as bus:
        for words in (str(business.id), business.email.upper(), "RC 17/2", "kettle"):
            assert list(account_trail.find(session, words)) == [business.id], words
        assert account_trail.find(session, "  ") == []
        found = account_trail.account_trail(session, business.id, connection=bus)
        assert account_trail.account_trail(session, new_id()) is None
    assert found.kyc_status == "approved"
    assert [secret.state for secret in found.secrets] == ["active"]
    assert found.orders == {"IN_TRANSIT": 1}
    assert found.orders_today == 1
    assert found.waiting == ()


def test_the_commands(settings, db):
    business = account(db, status="approved")
    order, *_ = lived(settings, db, business)
    code, out, err = fellow(settings, "trail", str(order.order_id), "--json")
    assert code == 0, err
    assert {s["what"] for s in json.loads(out)["steps"]} >= {"accepted", "recorded", "email"}
    code, out, err = fellow(settings, "trail", "zoe@shop.example")
    assert (code, f"Order {order.order_id}: IN_TRANSIT" in out) == (0, True), err
    code, _, err = fellow(settings, "trail", str(new_id()))
    assert (code, "Nothing is known of" in err) == (1, True)
    assert fellow(settings, "trail", "no-such-key")[0] == 1
    code, out, _ = fellow(settings, "account", "show", business.email, "--json")
    assert json.loads(out)["orders"] == {"IN_TRANSIT": 1}
    code, out, _ = fellow(settings, "account", "show", business.email)
    assert parseaddr(out.splitlines()[0].rpartition(" ")[0]) == ("Kettle & Co", business.email)
    assert fellow(settings, "account", "show", "nobody")[0] == 1
    code, out, _ = fellow(settings, "kyc", "list", "--status", "approved", "--json")
    assert [a["email"] for a in json.loads(out)] == [business.email]
    assert json.loads(fellow(settings, "kyc", "list", "--json")[1]) == []


def test_what_was_thrown_away_does_not_go_on_waiting(settings, db, engine):
    """An order that was never recorded, and the email of one that was."""
    business = account(db, status="approved")
    lost, mailed = order_created(business.id), order_created(business.id)
    message = message_for(lost, source="tests", correlation_id=lost.order_id)
    requested(db, business, message, lost)
    with consuming(settings, *recording(settings).subscriptions):
        sent(settings, mailed)
    told = db.query(OutboxMessage).filter_by(type="order.recorded").one()
    for queue, one in (("orders.intake", message), ("notifier.orders", told)):
        publish_raw(settings.amqp_url, "dead", queue, bytes(one.body), type=one.type,
                    message_id=str(one.message_id), correlation_id=one.correlation_id)  # fmt: skip
    db.delete(told)
    db.commit()

    def steps(order):
        with Session(engine) as session:
            return trail.order_trail(session, order.order_id).steps

    assert "due" in {step.what for step in steps(lost)} & {step.what for step in steps(mailed)}
    with Connection(settings.amqp_url) as bus:
        for name in ("orders.intake", "notifier.orders"):
            queue = dead_letters.work_queue(name)
            ada = Actor("ada", "192.0.2.7")
            discard(bus, engine, queue, Criteria(), ada, "a test of the shop")
    relayed(settings, db)
    with consuming(settings, *auditing(settings).subscriptions):
        pass
    for order, type_ in ((lost, "order.created"), (mailed, "order.recorded")):
        found = steps(order)
        said = [step.text for step in found if step.what == "mended"]
        assert said == [f"{type_} discarded by ada: a test of the shop"]
        assert "due" not in {step.what for step in found}
