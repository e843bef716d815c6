"""A rehearsal of any message leaves everything as it was, and says what a replay then does."""

import threading
from datetime import UTC, datetime

import pytest
from kombu import Connection
from sqlalchemy import text
from sqlalchemy.orm import Session

from services.audit.__main__ import wire as audit
from services.kyc.__main__ import wire as kyc
from services.notifier.__main__ import wire as notifier
from services.ops.dead_letters.editing import types_for
from services.orders.__main__ import wire as orders
from services.secrets.__main__ import wire as secrets
from shared.bus.broker import queue_counts
from shared.bus.broker.standing import Standing
from shared.bus.consume.batch import Batches, Delivery
from shared.bus.consume.rehearsals import requests
from shared.bus.consume.subscription import decoding
from shared.bus.contract import topology
from shared.db.models import Base, KycApplication, Order, OutboxMessage
from shared.db.session import make_engine
from shared.ids import new_id
from stack.servers.credentials import as_service
from tests.integration.arrange import account
from tests.integration.rehearsal.messages import arriving, body_of

WIRES = {"audit": audit, "kyc": kyc, "notifier": notifier, "orders": orders, "secrets": secrets}
QUEUES = {queue.name: queue for queue in topology.WORK_QUEUES}


def owner(queue):
    return queue.partition(".")[0]


def everything(db):
    """Every row of every table."""
    db.rollback()
    queries = [f"SELECT '{name}', t::text FROM \"{name}\" t" for name in Base.metadata.tables]
    found = {name: [] for name in Base.metadata.tables}
    for name, row in db.execute(text(f"{' UNION ALL '.join(queries)} ORDER BY 1, 2")):
        found[name].append(row)
    return found


@pytest.fixture
def messages_everywhere(amqp_url):
    """How many messages are in each queue there is."""
    with Connection(amqp_url) as connection:
        channel = connection.default_channel

        def look():
            return {queue.name: queue_counts.of(channel, queue.name) for queue in topology.QUEUES}

        yield look


@pytest.fixture
def service(queue):
    return owner(queue)


@pytest.fixture
def wired(settings, configure, mailbox, queue):
    """The subscription of a queue, as its service has it; mail would be taken."""
    config = configure(smtp_host="127.0.0.1", smtp_port=str(mailbox.port), smtp_connections="1")
    (found,) = [s for s in WIRES[owner(queue)](config).subscriptions if s.queue.name == queue]
    return found


@pytest.fixture
def business(db):
    made = account(db, status="approved", email="owner@kettle.example")
    db.execute(
        text(
            "INSERT INTO webhook_secrets (id, account_id, key_hash, sealed, state, expires_at) "
            "VALUES (gen_random_uuid(), :id, sha256('x'), '', 'active', now() + interval '9 d')"
        ),
        {"id": made.id},
    )
    db.commit()
    return made


@pytest.fixture
def order(db, business):
    id_, now = new_id(), datetime.now(UTC)
    made = Order(
        id=id_,
        account_id=business.id,
        customer_name="Zoë Ade",
        customer_email="zoe@shop.example",
        customer_phone="",
        item_summary="a red kettle",
        address="12 Marina Road",
        tracking_status="PENDING",
        status_at=datetime(2026, 1, 1, tzinfo=UTC),
        status_event_id=id_,
        accepted_at=now,
    )
    db.add(made)
    db.commit()
    return made


@pytest.fixture
def ask(wired, settings, database_url):
    """Ask as the console does, and have it answered as the service does: each by its own rights."""
    alone = make_engine(settings, is_pooled=False)
    console = make_engine(
        type(settings)(database_url=as_service(database_url, "ops")), is_pooled=False
    )
    answer = requests.answering([wired], alone, "fellow_somebody")

    def asked(incoming):
        with Session(console) as connection, connection.begin():
            id_ = requests.ask(connection, wired.queue.name, incoming)
        answer(None)
        with Session(console) as connection, connection.begin():
            return requests.fetch(connection, id_)

    return asked


def handled(subscription, incoming):
    """Why a message failed that is handled for real; None when it did not."""
    batches = Batches(
        subscription.consumer,
        decoding(subscription),
        subscription.handle,
        threading.Event(),
        Standing(subscription.queue.name),
    )
    return batches.run([Delivery(1, incoming)]).get(1)


@pytest.mark.parametrize("queue", sorted(QUEUES))
def test_every_message(queue, wired, ask, db, messages_everywhere, business, order, mailbox):
    for type_ in types_for(QUEUES[queue]):
        if type_ == "kyc.approved" and queue == "secrets.issue":
            db.execute(text("UPDATE webhook_secrets SET state = 'revoked', revoked_at = now()"))
            db.commit()
        incoming = arriving(type_, body_of(type_, business, order), key=queue)
        before = everything(db), messages_everywhere(), len(mailbox.maildir.emails())
        report = ask(incoming)
        after = everything(db), messages_everywhere(), len(mailbox.maildir.emails())
        assert before == after, type_

        failure = handled(wired, incoming)
        real = everything(db)
        assert (failure is None) == (report.outcome == "done"), (type_, failure, report)
        written = {name for name in real if real[name] != before[0][name]} - {"inbox", "outbox"}
        assert {change.table for change in report.changes} == written, type_
        for change in report.changes:
            seen = [row.before is None for row in change.rows]
            if change.table not in ("webhook_secrets",) or owner(queue) != "kyc":
                assert (seen.count(True), seen.count(False)) == (change.inserted, change.updated)
        new = set(real["outbox"]) - set(before[0]["outbox"])
        assert len(report.facts) == len(new), type_
        told = db.query(OutboxMessage.type).order_by(OutboxMessage.sequence.desc())
        assert {fact.type for fact in report.facts} == {row.type for row in told.limit(len(new))}
        mailed = len(mailbox.maildir.emails()) - after[2]
        assert len([e for e in report.emails if not e.refusal]) == mailed, type_
        # As it was before what it has done, so that the next type finds it as this one did.
        assert ask(incoming).outcome == ("known" if failure is None else report.outcome)
        restore(db, business)


def restore(db, business):
    """Take back what would stop the messages after it."""
    db.rollback()
    db.query(KycApplication).update({"status": "approved"})
    db.execute(text("UPDATE orders SET tracking_status = 'PENDING', status_at = '2026-01-01'"))
    db.commit()
