"""What is over is removed, a batch at a time, by the service that owns it; nothing else is."""

import json
from dataclasses import replace
from datetime import datetime, timedelta
from types import SimpleNamespace

import pytest
from amqp.exceptions import NotFound
from kombu import Connection
from prometheus_client import REGISTRY
from sqlalchemy import text
from sqlalchemy.orm import Session

from services.notifier.__main__ import wire as notifying
from services.ops.dead_letters import actions, search
from services.ops.dead_letters import retention as dead_retention
from services.ops.dead_letters.letter import Criteria
from services.ops.users import sessions as ops_sessions
from services.ops.users import users
from services.orders import waiting_updates
from services.orders.__main__ import wire as recording
from services.orders.shops import awaited
from services.portal.web import sessions as portal_sessions
from shared.bus.contract import topology
from shared.bus.contract.events import OrderCancelled, OrderNotPlaced, decode
from shared.bus.contract.message import Received
from shared.db import retention
from shared.db import session as database
from shared.db.models import (
    AccountSession,
    AwaitedOrder,
    EmailDelivery,
    KnownNetwork,
    OneTimeCode,
    OpsSession,
    Order,
    OrderConflict,
    OrderStatusHistory,
    OutboxMessage,
    PendingProof,
    PortalSession,
    RevokedToken,
    Suppression,
    WaitingUpdate,
)
from shared.db.session import make_engine, transaction
from shared.ids import new_id
from shared.periodic import Periodic
from stack.servers.credentials import as_service
from tests.integration.arrange import account, ago, depth, order_created, until
from tests.integration.ops.cli.test_cli import fellow
from tests.integration.ops.dead_letters.test_dead_letters import bury


def order(
    db, business, *, accepted, said=None, note="", tracking=None, is_test=False, recorded=None
):
    """An order with a status, a conflict and an email, as if it were so many days ago.

    `recorded`: when we had it, where its sender stamps it with another time.
    """
    made = new_id()
    at, said_at = ago(days=accepted), ago(days=accepted if said is None else said)
    had = at if recorded is None else ago(days=recorded)
    db.add(
        Order(
            id=made, account_id=business, customer_name="Zoë", customer_email="z@shop.example",
            customer_phone="", item_summary="x", address="y", tracking_status="PENDING",
            status_at=said_at, status_event_id=made, accepted_at=at, recorded_at=had,
            is_test=is_test,
        )
    )  # fmt: skip
    db.add(
        OrderStatusHistory(
            event_id=new_id(), order_id=made, tracking_status="PENDING", note=note, at=said_at,
            recorded_at=said_at if recorded is None else ago(days=recorded), applied=True,
            tracking=tracking,
        )
    )  # fmt: skip
    db.add(
        OrderConflict(
            event_id=new_id(), order_id=made, account_id=business, event={}, at=at, recorded_at=had
        )
    )
    db.add(
        EmailDelivery(
            fact_id=new_id(), subject_id=str(made), recipient="z@shop.example", template="order_x",
            message_id="x", state="sent", at=at,
        )
    )  # fmt: skip
    db.commit()
    return made


def run(*jobs):
    for job in jobs:
        with transaction() as session:
            job.run(session)


def left(db, table):
    db.rollback()
    return db.query(table).count()


@pytest.fixture
def service(request):
    return getattr(request, "param", None)


@pytest.mark.parametrize("service", ["orders"], indirect=True)
def test_the_recorder_ends_orders_with_what_is_about_them(settings, db):
    one, another = account(db).id, new_id()  # an account that is gone has orders too
    old = order(db, one, accepted=731, note="by the door")
    order(db, another, accepted=800)
    moved = order(db, one, accepted=731, said=10)
    young = order(db, another, accepted=729)
    run(*recording(settings).jobs)
    assert {row.id for row in db.query(Order)} == {moved, young}
    assert {row.order_id for row in db.query(OrderStatusHistory)} == {moved, young}
    # A conflict ends before its order does.
    assert left(db, OrderConflict) == 0
    assert db.get(Order, old) is None
    run(*recording(settings).jobs)
    assert left(db, Order) == 2


@pytest.mark.parametrize("service", ["orders"], indirect=True)
def test_a_note_ends_before_its_order_and_a_conflict_too(settings, db):
    business = account(db).id
    order(db, business, accepted=366, note="old")
    order(db, business, accepted=91, note="young")
    order(db, business, accepted=89)
    parcel = {"carrier": "Swift"}
    for days in (366, 91):
        order(db, business, accepted=days, tracking=parcel)
    run(*recording(settings).jobs)
    rows = list(db.query(OrderStatusHistory))
    assert sorted(row.note for row in rows) == ["", "", "", "", "young"]
    assert [row.tracking for row in rows if row.tracking] == [parcel]
    assert left(db, Order) == 5
    assert left(db, OrderConflict) == 1


@pytest.mark.parametrize("service", ["orders"], indirect=True)
def test_what_a_sender_dates_back_is_kept_as_long_as_anything(settings, db):
    """A device without a clock, an import of older orders, a sample that was pasted."""
    business = account(db).id
    for is_test in (False, True):
        order(db, business, accepted=2_000, recorded=0, note="by the door", is_test=is_test)
    young = order(db, business, accepted=2_000, recorded=800, said=10)
    order(db, business, accepted=2_000, recorded=731)
    run(*recording(settings).jobs)
    assert left(db, Order) == 3
    assert db.get(Order, young)
    assert sorted(row.note for row in db.query(OrderStatusHistory)) == ["", *["by the door"] * 2]
    assert left(db, OrderConflict) == 2
    ages = [
        REGISTRY.get_sample_value("fellow_retention_oldest_seconds", {"place": place})
        for place in ("test_orders", "history", "conflicts")
    ]
    assert max(ages) < 86_400


@pytest.mark.parametrize("service", ["notifier"], indirect=True)
def test_the_notifier_ends_deliveries(settings, db):
    business = account(db).id
    order(db, business, accepted=366)
    order(db, business, accepted=364)
    run(*notifying(settings).jobs)
    assert left(db, EmailDelivery) == 1


def proof(db, days, purpose="registration", code=None):
    code_ended = ago(days=days if code is None else code)
    db.add(
        PendingProof(
            purpose=purpose, email=f"{new_id()}@shop.example", company_name="x",
            network="", code_id=new_id(), code_hash=b"", code_made_at=ago(days=days),
            code_expires_at=code_ended, created_at=ago(days=days),
        )
    )  # fmt: skip
    db.commit()


@pytest.mark.parametrize("service", ["ingress"], indirect=True)
def test_the_ingress_ends_registrations_that_nobody_proved(settings, db):
    proof(db, 2)
    proof(db, 0)
    run(*retention.jobs("ingress", settings))
    assert left(db, PendingProof) == 1


@pytest.mark.parametrize("service", ["ingress"], indirect=True)
@pytest.mark.parametrize("purpose", ["registration", "password_reset", "new_address", "reply_to"])
def test_a_code_is_good_for_as_long_as_its_email_says(settings, db, purpose):
    """A later one waits where the first did, and what began then began long ago."""
    proof(db, 2, purpose, code=-1)
    proof(db, 2, purpose, code=1)
    run(*retention.jobs("ingress", settings))
    assert left(db, PendingProof) == 1


def network(db, unused):
    """A network that an account was used from so many days ago."""
    made = KnownNetwork(
        account_id=account(db).id, network="192.0.2.1", first_used_at=ago(days=9_000),
        last_used_at=ago(days=unused),
    )  # fmt: skip
    db.add(made)
    db.commit()


def session(db, *, ended=None, expires):
    """A session that ended so many days ago, or ends by itself then."""
    db.add(
        AccountSession(
            account_id=account(db).id, refresh_id=new_id(), network="192.0.2.1", client="x",
            created_at=ago(days=expires + 30), expires_at=ago(days=expires),
            ended_at=None if ended is None else ago(days=ended),
        )
    )  # fmt: skip
    db.commit()


@pytest.mark.parametrize("service", ["ingress"], indirect=True)
def test_the_ingress_ends_networks_that_are_not_used(settings, db):
    network(db, 366)
    network(db, 364)
    run(*retention.jobs("ingress", settings))
    assert left(db, KnownNetwork) == 1


@pytest.mark.parametrize("service", ["ingress"], indirect=True)
def test_the_ingress_ends_sessions_that_have_ended(settings, db):
    """A day after somebody ended it, however long it would have gone on, or after its last day."""
    session(db, ended=2, expires=-28)
    session(db, expires=2)
    session(db, ended=0.5, expires=-28)
    session(db, expires=-1)
    db.add_all(RevokedToken(token_id=new_id(), expires_at=ago(days=days)) for days in (2, -1))
    for days in (2, -1):
        business = account(db).id
        db.add(
            OneTimeCode(
                account_id=business, code_id=new_id(), code_hash=b"", expires_at=ago(days=days)
            )
        )
    db.commit()
    run(*retention.jobs("ingress", settings))
    assert (left(db, AccountSession), left(db, RevokedToken), left(db, OneTimeCode)) == (2, 1, 1)


@pytest.mark.parametrize("service", ["portal"], indirect=True)
def test_the_portal_forgets_browsers_whose_session_is_over(settings, db):
    db.add_all(
        PortalSession(token_hash=bytes([n]), sealed=b"", expires_at=ago(days=days))
        for n, days in enumerate((0.01, -1))
    )
    db.commit()
    portal_sessions.delete_expired()
    assert left(db, PortalSession) == 1


@pytest.mark.parametrize("service", ["portal"], indirect=True)
def test_the_portal_forgets_so_many_at_a_time_and_none_that_a_page_holds(
    settings, db, engine, monkeypatch
):
    monkeypatch.setattr(portal_sessions, "MOST_DELETED", 2)
    db.add_all(
        PortalSession(token_hash=bytes([n]), sealed=b"", expires_at=ago(days=1)) for n in range(4)
    )
    db.commit()
    with Session(engine) as other:
        assert other.get(PortalSession, b"\0", with_for_update=True)
        for count in (2, 1, 1):
            portal_sessions.delete_expired()
            assert left(db, PortalSession) == count


@pytest.mark.parametrize("service", ["ops"], indirect=True)
def test_the_console_ends_sessions_that_are_over(settings, db):
    users.put(db, "ada", "watch", "correct horse battery")
    ada = users.find(db, "ada")
    db.add_all(
        OpsSession(
            token_hash=bytes([n]), user_id=ada.id, created_at=ago(days=days), seen_at=ago(days=days)
        )
        for n, days in enumerate((30, 0))
    )
    db.commit()
    ops_sessions.delete_ended(settings)
    assert left(db, OpsSession) == 1


@pytest.mark.parametrize("place", retention.PLACES, ids=lambda place: place.name)
def test_nothing_ends_that_is_kept_for_ever(settings, db, configure, place):
    business = account(db).id
    order(db, business, accepted=9_000, note="kept", is_test=place.name == "test_orders")
    proof(db, 9_000)
    network(db, 9_000)
    session(db, expires=9_000)
    with transaction() as books:
        assert retention.remove(books, place, 0) == (0, retention.START)
        assert retention.count(books, place, 0) == 0
        assert retention.count(books, place, 8) == 1


def host_clock(monkeypatch, *modules, **off):
    """Set this host's clock by as much, for what these modules read."""
    wrong = SimpleNamespace(now=lambda zone: datetime.now(zone) + timedelta(**off))
    for module in modules:
        monkeypatch.setattr(module, "datetime", wrong, raising=False)


@pytest.mark.parametrize("is_host", [True, False], ids=["the host's", "the database's"])
def test_one_clock_that_has_jumped_ahead_removes_nothing(settings, db, monkeypatch, is_host):
    """It jumps back a minute later, and what is gone is gone."""
    order(db, account(db).id, accepted=100 if is_host else 1000, note="by the door")
    host_clock(monkeypatch, database, days=900 if is_host else -950)
    with transaction() as books:
        assert retention.remove(books, retention.ORDERS, 730) == (0, retention.START)
        assert retention.remove(books, retention.HISTORY, 365) == (0, retention.START)
    assert left(db, Order) == 1


@pytest.mark.parametrize("service", ["orders"], indirect=True)
def test_what_waits_is_as_old_as_the_database_says(settings, db, monkeypatch):
    """A recorder whose host came up in 1970: what it wrote down ended with the next run."""
    business = account(db)
    about = {"order_id": new_id(), "account_id": business.id, "order_number": "1"}
    said = [
        Received(new_id(), data.TYPE, ago(), data.order_id, data)
        for data in (OrderNotPlaced(**about), OrderCancelled(**about))
    ]
    host_clock(monkeypatch, awaited, waiting_updates, days=-4_000)
    with transaction() as session:
        awaited.remember(session, said[:1])
        waiting_updates.note(session, said[1:], {})
    run(*recording(settings).jobs)
    assert (left(db, AwaitedOrder), left(db, WaitingUpdate)) == (1, 1)
    assert db.query(WaitingUpdate).one().given_up_at > ago(days=1)


@pytest.mark.parametrize("service", ["orders"], indirect=True)
def test_an_order_that_waits_to_be_placed_ends_as_one_that_is(settings, db):
    """Else nobody would ever be told of one whose invoice is paid late."""
    business = account(db).id

    def waits(days, said=None):
        said = days if said is None else said
        cancelled = {"cancelled_at": ago(days=said), "cancelled_by": new_id()}
        row = AwaitedOrder(
            order_id=new_id(), account_id=business, since=ago(days=days), **cancelled,
            cancel_reason="Zoe did not pay",
            cancelled_before=[[ago(days=days).isoformat(), first, "Zoe called"]],
        )  # fmt: skip
        db.add(row)
        db.commit()
        return row.order_id

    first = str(new_id())

    waits(731)
    late, young = (waits(days) for days in (91, 8))
    # One of today counts, and says why, as it does if it comes behind the word that it was placed.
    today = [waits(days, said=0) for days in (91, 731)]
    run(*recording(settings).jobs)
    db.expire_all()
    kept = {
        row.order_id: (row.cancel_reason, *row.cancelled_before[0][1:])
        for row in db.query(AwaitedOrder)
    }
    # All its cancellations count still, by their times.
    why = ("Zoe did not pay", first, "Zoe called")
    assert kept == {late: ("", first, "")} | dict.fromkeys((young, *today), why)


def test_by_the_batch_and_past_what_somebody_else_holds(settings, db, engine, monkeypatch):
    monkeypatch.setattr(retention, "AT_MOST", 2)
    business = account(db).id
    first, *_ = [order(db, business, accepted=800 - n) for n in range(4)]
    job = Periodic("a test", 1, retention.end(retention.ORDERS, 730))
    with Session(engine) as other:
        other.execute(text("SELECT FROM orders WHERE id = :id FOR UPDATE"), {"id": first})
        for count in (3, 1, 1):
            run(job)
            assert left(db, Order) == count
    assert [row.id for row in db.query(Order)] == [first]
    run(job)
    assert left(db, Order) == 0


PLACES = {
    "orders": (retention.ORDERS, Order, 730),
    "test_orders": (retention.TEST_ORDERS, Order, 30),
    "history": (retention.HISTORY, OrderStatusHistory, 90),
    "conflicts": (retention.CONFLICTS, OrderConflict, 90),
}


@pytest.mark.parametrize("name", PLACES)
def test_what_is_dated_back_is_not_looked_at_again_by_each_run(
    settings, db, engine, monkeypatch, name
):
    """An import of old orders: none of it is over, and all of it comes before what is."""
    place, _, days = PLACES[name]
    monkeypatch.setattr(retention, "AT_MOST", 10)
    is_test = name == "test_orders"
    businesses = sorted(account(db).id for _ in range(2))
    for business in businesses:
        for _ in range(12):
            order(db, business, accepted=3_000, recorded=0, note="new", is_test=is_test)
    over = order(db, businesses[-1], accepted=900, note="old", is_test=is_test)
    after, removed, turns = retention.START, 0, 0
    while not turns or after != retention.START:
        with transaction() as session:
            count, after = retention.remove(session, place, days, after)
        removed, turns = removed + count, turns + 1
    assert (removed, turns) == (1, 3)
    db.rollback()
    if name in ("orders", "test_orders"):
        assert db.get(Order, over) is None
    with transaction() as session:
        assert retention.count(session, place, days) == 0


def test_what_was_removed_and_how_old_the_oldest_is_are_told(settings, db):
    business = account(db).id
    order(db, business, accepted=800)
    order(db, business, accepted=100)

    def removed():
        return REGISTRY.get_sample_value("fellow_retention_removed_total", {"place": "orders"}) or 0

    before = removed()
    run(*retention.jobs("orders", settings))
    assert removed() == before + 1
    oldest = REGISTRY.get_sample_value("fellow_retention_oldest_seconds", {"place": "orders"})
    assert 100 <= oldest / 86_400 < 101
    db.query(Order).delete()
    db.commit()
    run(*retention.jobs("orders", settings))
    nothing = REGISTRY.get_sample_value("fellow_retention_oldest_seconds", {"place": "orders"})
    assert nothing == 0


@pytest.mark.parametrize("service", ["ops"], indirect=True)
def test_dead_letters_are_discarded_with_a_fact(settings, amqp_url, db):
    old, young = order_created(), order_created()
    bury(amqp_url, old, failed_at=ago(days=91))
    bury(amqp_url, young, failed_at=ago(days=89))
    until(lambda: depth(amqp_url, topology.ORDERS_INTAKE.dead) == 2, "buried")
    books = make_engine(settings)
    with Connection(settings.amqp_url) as connection:
        assert dead_retention.discard(connection, books, 0) == 0
        assert dead_retention.discard(connection, books, 90) == 1
        assert dead_retention.discard(connection, books, 90) == 0
    books.dispose()
    until(lambda: depth(amqp_url, topology.ORDERS_INTAKE.dead) == 1, "one is left")
    (row,) = db.query(OutboxMessage).all()
    fact = decode(row.type, row.body)
    assert (fact.TYPE, fact.by) == ("ops.dead_letter_discarded", "retention")
    assert "RETENTION_DEAD_LETTERS_DAYS" in fact.reason


@pytest.mark.parametrize("off", [4_000, -4_000])
@pytest.mark.parametrize("service", ["ops"], indirect=True)
def test_no_letter_is_over_by_one_clock_alone(settings, amqp_url, db, monkeypatch, off):
    """That of the console's host, or of whoever failed on it: it may have come up in 1970."""
    bury(amqp_url, order_created(), failed_at=ago(), said_at=ago(days=1))
    bury(amqp_url, order_created(), failed_at=ago(days=20_000), said_at=ago(days=1))
    until(lambda: depth(amqp_url, topology.ORDERS_INTAKE.dead) == 2, "buried")
    host_clock(monkeypatch, database, actions, search, days=off)
    books = make_engine(settings)
    over = Criteria(older_than=timedelta(days=90))
    young = Criteria(younger_than=timedelta(minutes=10))
    with Connection(settings.amqp_url) as connection:
        assert dead_retention.discard(connection, books, 90) == 0
        for criteria in (over, young, replace(over, as_of=ago(days=-off))):
            act = (connection, books, topology.ORDERS_INTAKE, criteria)
            done = actions.discard(*act, dead_retention.ACTOR, "over").done
            assert done == (1 if criteria is young and off < 0 else 0), criteria
    books.dispose()


@pytest.mark.parametrize("service", ["ops"], indirect=True)
def test_a_dead_queue_that_cannot_be_read_keeps_no_others_letters(settings, amqp_url, db):
    readable, *others = reversed(topology.WORK_QUEUES)
    bury(amqp_url, order_created(), queue=readable, failed_at=ago(days=91))
    until(lambda: depth(amqp_url, readable.dead) == 1, "buried")
    books = make_engine(settings)
    with Connection(amqp_url) as connection:
        for queue in others:
            connection.default_channel.queue_delete(queue.dead)
    with Connection(settings.amqp_url) as connection, pytest.raises(NotFound):
        dead_retention.discard(connection, books, 90)
    books.dispose()
    assert depth(amqp_url, readable.dead) == 0


def test_a_dry_run_counts_what_would_go(settings, db):
    business = account(db).id
    order(db, business, accepted=800, note="x")
    proof(db, 2)
    network(db, 366)
    session(db, expires=2)
    bury(settings.amqp_url, order_created(), failed_at=ago(days=91))
    urls = {
        "AMQP_URL": as_service(settings.amqp_url, "ops"),
        "DATABASE_URL": as_service(settings.database_url, "ops"),
    }
    more = {"RETENTION_CONFLICTS_DAYS": "0"}
    code, out, err = fellow(settings, "retention", "--dry-run", "--json", **urls, **more)
    assert code == 0, err
    assert {line["place"]: line["over"] for line in json.loads(out)} == {
        "orders": 1, "test_orders": 0, "history": 1, "conflicts": 0, "deliveries": 1,
        "unproved": 1, "known_networks": 1, "sessions": 1, "request_log": 0, "dead_letters": 1,
    }  # fmt: skip
    assert left(db, Order) == 1
    code, _, err = fellow(settings, "retention", **urls)
    assert (code, "--dry-run" in err) == (2, True)


@pytest.mark.parametrize(
    ("place", "make"),
    [
        (retention.CONFLICTS, lambda business, at: WaitingUpdate(
            event_id=new_id(), account_id=business, order_id=new_id(), since=at)),
        (retention.ORDERS, lambda business, at: AwaitedOrder(
            order_id=new_id(), account_id=business, since=at)),
        (retention.DELIVERIES, lambda business, at: Suppression(
            account_id=business, cause="refused", address_hash=new_id().bytes, key_id=b"1",
            by_order_id=new_id(), since=at)),
        (retention.SESSIONS, lambda _, at: RevokedToken(token_id=new_id(), expires_at=at)),
    ],
    ids=["waiting_updates", "awaited_orders", "suppressions", "revoked_tokens"],
)  # fmt: skip
def test_what_ends_beside_a_place_ends_by_the_batch_too(settings, db, monkeypatch, place, make):
    monkeypatch.setattr(retention, "AT_MOST", 2)
    business = account(db).id
    rows = [make(business, ago(days=800)) for _ in range(5)]
    table = type(rows[0])
    db.add_all(rows)
    db.add(make(business, ago(days=0)))
    db.commit()
    job = Periodic("a test", 1, retention.end(place, 90))
    for count in (4, 2, 1, 1):
        run(job)
        assert left(db, table) == count


@pytest.mark.parametrize(
    ("query", "index"),
    [
        (retention.TEST_ORDERS.oldest, "ix_orders_test_recorded_at"),
        ("SELECT id FROM suppressions WHERE cause = 'refused' AND since < now() LIMIT 9",
         "ix_suppressions_refused_since"),
        ("SELECT id FROM orders WHERE is_test AND accepted_at > now()",
         "ix_orders_test_accepted_at"),
        (f"WITH {retention.CONFLICTS.beside[1]} SELECT 1".format(limit="LIMIT 9").replace(
            ":before", "now()"), "ix_awaited_orders_words_since"),
    ],
    ids=["oldest test order", "refused", "new test orders", "words of cancellations"],
)  # fmt: skip
def test_the_few_are_found_by_their_index(db, query, index):
    db.execute(text("SET LOCAL enable_seqscan = off"))
    assert index in "\n".join(db.execute(text(f"EXPLAIN {query}")).scalars())
