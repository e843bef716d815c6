"""`fellow customer`: all that is held of a person is found, and ends; the business's books stay."""

import json
import re
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
from amqp import Message as AmqpMessage
from kombu import Connection
from msgspec import UNSET
from sqlalchemy import text
from sqlalchemy.event import listen, remove
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from services.audit.__main__ import wire as auditing
from services.notifier.__main__ import wire as notifying
from services.ops.audit import log
from services.ops.audit.actions import Actor
from services.ops.customers import customers, rows
from services.ops.customers.erasure import Person
from services.ops.timelines import search
from services.orders import api as orders_api
from services.orders import rows as orders
from services.orders.__main__ import wire as recording
from shared import erased
from shared.bus import outbox
from shared.bus.broker.addresses import credentials
from shared.bus.contract import topology
from shared.bus.contract.events import (
    CustomerDetails,
    EmailUndeliverable,
    OrderCancelled,
    OrderCreated,
    OrderRecorded,
    TrackingStatus,
    decode,
    in_test,
)
from shared.bus.contract.message import message_for
from shared.db.models import (
    AwaitedOrder,
    Base,
    EmailDelivery,
    Order,
    OrderConflict,
    OrderStatusHistory,
    OutboxMessage,
    Suppression,
    WaitingUpdate,
    WebhookRequest,
)
from shared.http.route import Call
from shared.ids import new_id
from stack.servers.credentials import as_service
from tests.integration.arrange import (
    account,
    accounts_of_shards,
    an_order,
    consuming,
    declare,
    depth,
    in_shards,
    order_created,
    publish,
    status_changed,
    take,
    until,
)
from tests.integration.ops.cli.test_cli import fellow as as_administrator
from tests.integration.ops.dead_letters.test_dead_letters import bury
from tests.integration.ops.timelines.test_trail import relayed, sent

ZOE, OTHER = "Zoe.Ade+x@Shop.example", "azoe.ade+x@shop.example"
ZOE_DETAILS = CustomerDetails(name="Zoë Ade", email=ZOE, phone="+2348000000")
OTHERS = CustomerDetails(name="Bola", email=OTHER, phone="+2349999999")
PAGE = (Path(__file__).resolve().parents[4] / "docs" / "privacy.md").read_text()
LEFT_BY_AN_ERASURE = {"suppressions.address_hash"}
PERSONAL = ("zoe.ade", "Zoë", "2348000000", "Marina Road", "kettle for Zoë", "ZADE-")


@pytest.fixture
def settings(settings, configure, mailbox):
    return configure(smtp_port=str(mailbox.port))


def fellow(settings, *arguments, **environment):
    """As its user: what the administrator may do says nothing."""
    urls = {
        "AMQP_URL": as_service(settings.amqp_url, "ops"),
        "DATABASE_URL": as_service(settings.database_url, "ops"),
    }
    return as_administrator(settings, *arguments, **urls | environment)


def erase(settings, *more):
    code, out, err = fellow(
        settings, "customer", "erase", ZOE.upper(), "--reason", "DPO-17", "--yes", "--json", *more
    )
    assert code == 0, err
    return json.loads(out)["places"]


def zoes(business, **changes):
    values = {
        "customer_details": ZOE_DETAILS,
        "item_summary": "1 kettle for Zoë",
        "address": "12 Marina Road",
        "order_number": "ZADE-1",
        "metadata": {"gift": "from Zoë"},
        "carrier": "Swift",
        "tracking_url": "https://track.carrier.example/ZADE-77",
    }
    return order_created(business.id, **values | changes)


def message(event):
    return message_for(event, source="tests", correlation_id=new_id())


def on_the_ladder(settings, event, queue, rung="retry.1h"):
    """A message that failed and waits, as `requeue.py` leaves it."""
    made = message(event)
    with Connection(settings.amqp_url) as connection:
        connection.default_channel.basic_publish_confirm(
            AmqpMessage(
                made.body,
                message_id=made.message_id,
                type=made.type,
                correlation_id=made.correlation_id,
                delivery_mode=2,
                user_id=credentials(settings.amqp_url)[0],
                application_headers=made.headers() | {"x-attempt": 3, "x-reason": "Retry: later"},
            ),
            exchange=rung,
            routing_key=queue.name,
        )
    until(lambda: depth(settings.amqp_url, rung) >= 1, "on the ladder")
    return made


def recorded_fact(order, **changes):
    values = {
        "order_id": order.order_id,
        "account_id": order.account_id,
        "company_name": "Kettle & Co",
        "customer_name": order.customer_details.name,
        "customer_email": order.customer_details.email,
        "item_summary": order.item_summary,
        "address": order.address,
        "tracking_status": TrackingStatus.PENDING,
    }
    return OrderRecorded(**values | changes)


def everything(db):
    """All that the database holds, as one text."""
    db.rollback()
    found = []
    for table in Base.metadata.tables:
        body = "encode(t.body, 'escape')" if table == "outbox" else "''"
        whole = f"SELECT encode(convert_to(t::text, 'UTF8'), 'escape') || {body} FROM {table} t"
        found += db.scalars(text(whole))
    return "\n".join(found)


def plain(part):
    """As `encode(..., 'escape')` writes it."""
    return "".join(chr(b) if b < 128 else f"\\{b:o}" for b in part.encode())


def lived(settings, db, business):
    """Orders that were recorded, moved on and mailed: two of Zoë's, one of somebody else's."""
    mine, second = zoes(business), zoes(business)
    another = order_created(business.id, customer_details=OTHERS, address="1 Broad Street")
    note = status_changed(mine, TrackingStatus.IN_TRANSIT, "left with Zoë's neighbour")
    mention = status_changed(another, TrackingStatus.IN_TRANSIT, f"ask {ZOE}, or <{OTHER}>.")
    with consuming(settings, *recording(settings).subscriptions):
        sent(settings, mine, second, another, note, mention)
    relayed(settings, db)
    with consuming(settings, *notifying(settings).subscriptions):
        pass
    now = datetime.now(UTC)
    told = msgspec.to_builtins(zoes(business))
    db.add(
        OrderConflict(
            event_id=new_id(), order_id=mine.order_id, account_id=business.id, event=told, at=now
        )
    )
    db.add(
        AwaitedOrder(
            order_id=new_id(), account_id=business.id, since=now, cancelled_at=now,
            cancelled_by=new_id(), cancel_reason=f"told {ZOE}, not {OTHER}",
        )
    )  # fmt: skip
    # As JSON writes it, the letter n is before her address.
    db.add(
        AwaitedOrder(
            order_id=new_id(), account_id=business.id, since=now, cancelled_at=now,
            cancelled_by=new_id(), cancel_reason="twice",
            cancelled_before=[[now.isoformat(), str(new_id()), f"Sorry,\n{ZOE} told {OTHER}"]],
        )
    )  # fmt: skip
    quoted = f"550 5.1.1 <{ZOE}>: user unknown, behind <{OTHER}>"  # by who forwards to her
    db.add(
        EmailDelivery(
            fact_id=new_id(), subject_id=str(another.order_id), recipient=OTHER,
            template="order_received", message_id="<another@x.example>", state="undeliverable",
            response=quoted,
        )
    )  # fmt: skip
    db.add(
        Suppression(
            account_id=business.id, cause="refused", address_hash=b"another", key_id=b"key",
            address=OTHER, by_order_id=another.order_id, response=quoted,
        )
    )  # fmt: skip
    waited = {"account_id": business.id, "order_id": mine.order_id, "order_number": "ZADE-1"}
    db.add(WaitingUpdate(event_id=new_id(), since=now, **waited))
    db.add(
        WebhookRequest(
            at=now,
            account_id=business.id,
            accepted=True,
            code="accepted",
            order_id=mine.order_id,
            scheme="api_key",
            latency_us=1,
            client_address="10.0.0.1",
            idempotency_key=f"order-{ZOE}",
        )
    )
    for order_id, number in (
        (mine.order_id, "ZADE-1"),
        (new_id(), "ZADE-1"),  # the same by another id
        (new_id(), f"{ZOE} 9"),
        (new_id(), "9"),
    ):
        db.add(
            WebhookRequest(
                at=now,
                account_id=business.id,
                accepted=True,
                code="accepted",
                order_id=order_id,
                scheme="woocommerce",
                latency_us=1,
                client_address="10.0.0.1",
                idempotency_key="delivery",
                note="no_change",
                order_number=number,
            )
        )
    db.commit()
    return mine, second, another


def test_everything_is_exported(settings, db, mailbox):
    business = account(db, status="approved")
    mine, second, another = lived(settings, db, business)
    (letter,) = bury(settings.amqp_url, zoes(business))
    waits = on_the_ladder(settings, recorded_fact(mine), topology.NOTIFIER_ORDERS)
    outbox.add(db, [message(zoes(business))])
    db.commit()
    code, out, err = fellow(settings, "customer", "export", ZOE.lower(), BACKUP_DAYS="35")
    assert code == 0, err
    held = json.loads(out)
    tables = held["tables"]
    assert {row["id"] for row in tables["orders"]} == {str(mine.order_id), str(second.order_id)}
    notes = {row["note"] for row in tables["order_status_history"]}
    assert notes == {"", "left with Zoë's neighbour", f"ask {ZOE}, or <{OTHER}>."}
    for table in ("order_conflicts", "waiting_updates"):
        assert [row["order_id"] for row in tables[table]] == [str(mine.order_id)]
    reasons = sorted(row["cancel_reason"] for row in tables["awaited_orders"])
    assert reasons == [f"told {ZOE}, not {OTHER}", "twice"]
    assert len(tables["email_deliveries"]) == 4
    assert [row["address"] for row in tables["suppressions"]] == [OTHER]
    requests = [(row["idempotency_key"], row["order_number"]) for row in tables["webhook_requests"]]
    assert set(requests) == {
        ("delivery", "ZADE-1"),
        ("delivery", f"{ZOE} 9"),
        (f"order-{ZOE}", None),
    }
    assert [json.loads(row["body"])["customer_details"]["name"] for row in tables["outbox"]] == [
        "Zoë Ade"
    ]
    assert {(m["place"], m["message_id"]) for m in held["messages"]} == {
        ("orders.intake.dead", letter.message_id),
        ("retry.1h", waits.message_id),
    }
    places = {p["place"]: p["forgotten_by"] for p in held["not_searched"]}
    assert places["journal"] < places["backups"]
    assert places["suppressions"] is None  # the hash of who has left a business
    assert str(another.order_id) not in {row["id"] for row in tables["orders"]}


def test_an_erased_person_is_nowhere_and_the_books_stay(settings, db, mailbox):
    business = account(db, status="approved")
    mine, _, another = lived(settings, db, business)
    before = db.get(Order, mine.order_id)
    kept = (before.account_id, before.tracking_status, before.status_at, before.accepted_at)
    mails = db.query(EmailDelivery).count()
    places = erase(settings)
    assert places == {
        "orders": 2, "order_status_history": 4, "order_conflicts": 1, "email_deliveries": 4,
        "suppressions": 1, "webhook_requests": 4, "waiting_updates": 1, "awaited_orders": 2,
    }  # fmt: skip
    said = db.execute(text("SELECT cancel_reason, cancelled_before -> 0 ->> 2 FROM awaited_orders"))
    assert sorted(map(tuple, said)) == [
        (f"told {erased.TEXT}, not {OTHER}", None),
        ("twice", f"Sorry,\n{erased.TEXT} told {OTHER}"),
    ]
    db.expire_all()
    names = db.execute(text("SELECT idempotency_key, order_number FROM webhook_requests"))
    assert sorted(map(tuple, names), key=str) == [
        ("delivery", "9"), *[("delivery", None)] * 3, (None, None),
    ]  # fmt: skip
    held = everything(db)
    assert not [part for part in PERSONAL if plain(part) in held.replace(OTHER, "")]
    db.expire_all()
    after = db.get(Order, mine.order_id)
    assert (after.account_id, after.tracking_status, after.status_at, after.accepted_at) == kept
    assert db.query(EmailDelivery).count() == mails
    # Nobody else's is touched, but for the mention.
    assert db.get(Order, another.order_id).customer_email == OTHER
    said = set(db.scalars(text("SELECT response FROM suppressions")))
    said |= set(db.scalars(text("SELECT response FROM email_deliveries WHERE response <> ''")))
    assert said - {erased.TEXT} == {f"550 5.1.1 <{erased.TEXT}>: user unknown, behind <{OTHER}>"}
    notes = set(db.scalars(text("SELECT note FROM order_status_history")))
    assert notes == {"", erased.TEXT, f"ask {erased.TEXT}, or <{OTHER}>."}
    assert erase(settings) == {}


def test_every_column_of_a_customers_is_reached_by_an_erasure_and_by_an_export(db):
    """Those that docs/privacy.md has as a customer's, and as erased."""
    told = text(
        "SELECT string_agg(pg_get_functiondef(oid), '') FROM pg_proc "
        "WHERE proname IN ('erase_customer', 'erase_suppressed_address')"
    )
    statements = re.split(r"(?<=;)", db.scalar(told))
    columns = [
        name
        for row in re.findall(
            r"^\| (`\w+\.\w+`[^|]*\| customer[^|]*\|[^|]*erased[^|]*)", PAGE, re.MULTILINE
        )
        for name in re.findall(r"`(\w+\.\w+)`", row.partition("|")[0])
    ]
    assert len(columns) > 15
    read = rows.read(db, Person.of(ZOE.lower(), {ZOE.lower(): re.escape(ZOE.lower())}))
    for column in columns:
        table, name = column.split(".")
        if column not in LEFT_BY_AN_ERASURE:
            assert any(
                f"DELETE FROM public.{table}" in one
                or re.search(rf"UPDATE public\.{table}\b.*\b{name} = ", one, re.DOTALL)
                for one in statements
            ), column
        assert table in read, column


def test_a_dry_run_counts_and_changes_nothing(settings, db, mailbox):
    business = account(db, status="approved")
    lived(settings, db, business)
    bury(settings.amqp_url, zoes(business))
    before = everything(db)
    code, out, err = fellow(settings, "customer", "erase", ZOE, "--dry-run", "--json")
    assert code == 0, err
    assert everything(db) == before
    until(lambda: depth(settings.amqp_url, "orders.intake.dead") == 1, "the letter is back")
    counted = json.loads(out)["places"]
    assert counted["orders.intake.dead"] == 1
    assert erase(settings) == counted


def test_a_later_update_is_recorded_and_mails_nobody(settings, db, mailbox):
    business = account(db, status="approved")
    mine, *_ = lived(settings, db, business)
    mails = len(mailbox.maildir.emails())
    erase(settings)
    with consuming(settings, *recording(settings).subscriptions):
        sent(settings, status_changed(mine, TrackingStatus.DELIVERED, "Zoë took it"))
    deliveries = db.query(EmailDelivery).count()
    facts = db.query(OutboxMessage).filter(OutboxMessage.type.startswith("order.")).all()
    assert [decode(f.type, f.body).customer_email for f in facts] == [erased.ADDRESS]
    db.query(OutboxMessage).filter(OutboxMessage.type.startswith("ops.")).delete()
    db.commit()
    relayed(settings, db)
    with consuming(settings, *notifying(settings).subscriptions):
        pass
    db.expire_all()
    assert db.get(Order, mine.order_id).tracking_status == "DELIVERED"
    assert db.query(EmailDelivery).count() == deliveries
    assert "took" not in everything(db)
    assert len(mailbox.maildir.emails()) == mails
    assert depth(settings.amqp_url, topology.NOTIFIER_ORDERS.dead) == 0


def test_what_waited_with_the_address_is_not_mailed_either(settings, db, mailbox):
    """Such as an email that the mail server thought about, or one that the journal says again."""
    business = account(db, status="approved")
    mine, *_ = lived(settings, db, business)
    erase(settings)
    deliveries = db.query(EmailDelivery).count()
    publish(settings.amqp_url, message(recorded_fact(mine)))
    with consuming(settings, *notifying(settings).subscriptions):
        pass
    db.rollback()
    assert db.query(EmailDelivery).count() == deliveries
    assert "zoe.ade" not in everything(db).lower().replace(OTHER, "")


def test_nothing_comes_back_by_a_copy_of_the_order_or_another_under_its_key(settings, db, mailbox):
    business = account(db, status="approved")
    with consuming(settings, *recording(settings).subscriptions):
        (first,) = sent(settings, mine := zoes(business))
    erase(settings)
    with consuming(settings, *recording(settings).subscriptions):
        publish(settings.amqp_url, first, message(msgspec.structs.replace(mine, address="Else")))
    db.rollback()
    assert db.get(Order, mine.order_id).customer_email == erased.ADDRESS
    assert db.query(OrderConflict).count() == 0


def test_the_outbox_loses_the_persons_emails_and_no_order(settings, db):
    business = account(db, status="approved")
    waiting, told = zoes(business), recorded_fact(zoes(business))
    others = recorded_fact(zoes(business, customer_details=OTHERS), item_summary=f"for {ZOE}")
    undeliverable = EmailUndeliverable(
        fact_id=new_id(), fact_type="order.recorded", template="order_received",
        smtp_code=550, reason=f"550 <{ZOE}>: no such user",
    )  # fmt: skip
    outbox.add(db, [message(event) for event in (waiting, told, others, undeliverable)])
    db.commit()
    assert erase(settings) == {"outbox": 3, "outbox discarded": 1}
    db.expire_all()
    found = {row.type: decode(row.type, row.body) for row in db.query(OutboxMessage)}
    assert set(found) == {
        "order.created", "order.recorded", "email.undeliverable", "ops.customer_erased",
    }  # fmt: skip
    order = found["order.created"]
    assert isinstance(order, OrderCreated)
    assert (order.order_id, order.account_id) == (waiting.order_id, business.id)
    assert (order.customer_details.email, order.address) == (erased.ADDRESS, erased.TEXT)
    assert [order.order_number, order.metadata, order.carrier, order.tracking_url] == [UNSET] * 4
    left = msgspec.structs.replace(others, item_summary=f"for {erased.TEXT}")
    assert found["order.recorded"] == left
    assert found["email.undeliverable"].reason == f"550 <{erased.TEXT}>: no such user"


def test_it_is_found_in_what_is_said_however_it_is_written(settings, db, mailbox):
    """As JSON, a line feed before an address ends in an n; a domain has two spellings."""
    business = account(db, status="approved")
    for address, note in (
        ("zoe@shop.example", "by the door\nzoe@shop.example"),
        ("zoe@xn--mller-kva.example", "zoe@m\u00fcller.example\tasks"),
    ):
        other = zoes(business, customer_details=OTHERS, address="Lagos", order_number=new_id().hex)
        db.add(
            OrderConflict(
                event_id=new_id(),
                order_id=other.order_id,
                account_id=business.id,
                at=datetime.now(UTC),
                event={"item_summary": note, "n": [None, 1], "address": "nzoe@shop.example"},
            )
        )
        outbox.add(db, [message(recorded_fact(other, item_summary=note))])
        db.commit()
        code, out, err = fellow(settings, "customer", "export", address)
        assert code == 0, err
        tables = json.loads(out)["tables"]
        assert (code, len(tables["order_conflicts"]), len(tables["outbox"])) == (0, 1, 1)
        code, out, err = fellow(
            settings, "customer", "erase", address, "--reason", "DPO-17", "--yes", "--json"
        )
        assert (code, json.loads(out)["places"]) == (0, {"order_conflicts": 1, "outbox": 1}), err
        db.expire_all()
        bodies = [bytes(row.body).decode() for row in db.query(OutboxMessage)]
        assert not [body for body in bodies if note in json.loads(body).get("item_summary", "")]
        db.query(OutboxMessage).delete()
        db.query(OrderConflict).delete()
        db.commit()


def test_what_is_told_of_a_test_order_goes_with_whom_its_sender_named(settings, db):
    business = account(db, status="approved")
    fact = recorded_fact(zoes(business))
    told = in_test(fact, customer_email=business.email, order_email=ZOE)
    outbox.add(db, [message(told)])
    db.commit()
    bury(settings.amqp_url, told, queue=topology.NOTIFIER_ORDERS)
    assert erase(settings) == {"outbox discarded": 1, "notifier.orders.dead": 1}
    assert depth(settings.amqp_url, topology.NOTIFIER_ORDERS.dead) == 0


def test_dead_letters_and_the_ladder(settings, db):
    business = account(db, status="approved")
    amqp_url = settings.amqp_url
    mine, theirs = zoes(business), zoes(business, customer_details=OTHERS)
    bury(amqp_url, mine, theirs, reason=f"Retry: {ZOE} and {mine.order_id}")
    bury(amqp_url, recorded_fact(mine), recorded_fact(theirs), queue=topology.NOTIFIER_ORDERS)
    bury(amqp_url, mine, body=f'{{"broken": "{ZOE}'.encode())
    on_the_ladder(settings, laddered := zoes(business), topology.ORDERS_INTAKE)
    on_the_ladder(settings, recorded_fact(mine), topology.NOTIFIER_ORDERS)
    assert erase(settings) == {
        "orders.intake.dead": 3, "notifier.orders.dead": 1, "retry.1h": 2,
    }  # fmt: skip
    letters = [take(amqp_url, "orders.intake.dead") for _ in range(3)]
    assert take(amqp_url, "orders.intake.dead") is None
    for letter in letters:
        assert ZOE not in f"{letter.body} {letter.properties}"
    orders = [
        decode("order.created", bytes(x.body, "utf8") if isinstance(x.body, str) else x.body)
        for x in letters
        if "broken" not in str(x.body)
    ]
    assert {o.order_id: o.customer_details.email for o in orders} == {
        mine.order_id: erased.ADDRESS,
        theirs.order_id: OTHER,
    }
    assert depth(amqp_url, "notifier.orders.dead") == 1
    assert depth(amqp_url, "retry.1h") == 0
    with consuming(settings, *recording(settings).subscriptions):
        pass
    assert db.get(Order, laddered.order_id).customer_email == erased.ADDRESS
    facts = [decode(r.type, r.body) for r in db.query(OutboxMessage)]
    (gone,) = [f for f in facts if f.TYPE == "ops.dead_letter_discarded"]
    assert (gone.queue, gone.reason) == ("notifier.orders", "DPO-17")


def test_a_work_queue_is_cleared_while_nobody_works_there_and_told_of_otherwise(settings, db):
    business = account(db, status="approved")
    publish(settings.amqp_url, message(mine := zoes(business)), message(recorded_fact(mine)))
    assert erase(settings) == {"orders.intake": 1, "notifier.orders": 1}
    assert depth(settings.amqp_url, topology.NOTIFIER_ORDERS.name) == 0
    with consuming(settings, *recording(settings).subscriptions):
        until(lambda: db.query(Order).count() or db.rollback(), "recorded")
        code, _, err = fellow(settings, "customer", "erase", ZOE, "--reason", "x", "--yes")
    assert code == 0
    assert "Not searched: orders.intake" in err
    db.rollback()
    assert db.get(Order, mine.order_id).customer_email == erased.ADDRESS


def test_who_waits_in_a_shard_is_exported_and_erased_whatever_number_is_set(settings, db):
    declare(settings.amqp_url, 4)
    shard = topology.shards(4)[2]
    business = account(db, status="approved", id=accounts_of_shards(4)[3])
    first, mine, theirs = zoes(business), zoes(business), zoes(business, customer_details=OTHERS)
    publish(settings.amqp_url, message(first))
    publish(settings.amqp_url, *in_shards(4, [message(mine), message(theirs)]))
    assert depth(settings.amqp_url, shard.name) == 2
    code, out, err = fellow(settings, "customer", "export", ZOE)
    assert code == 0, err
    assert {m["place"] for m in json.loads(out)["messages"]} == {"orders.intake", shard.name}
    assert erase(settings) == {"orders.intake": 1, shard.name: 1}
    assert depth(settings.amqp_url, shard.name) == 2
    with consuming(settings, *recording(settings).subscriptions):
        until(lambda: depth(settings.amqp_url, shard.name) == 0, "recorded")
    db.rollback()
    names = {order.id: order.customer_email for order in db.query(Order)}
    assert names == {
        first.order_id: erased.ADDRESS, mine.order_id: erased.ADDRESS, theirs.order_id: OTHER,
    }  # fmt: skip


def test_a_proof_stays_without_the_address_in_a_chain_that_holds(settings, db, mailbox):
    business = account(db, status="approved")
    lived(settings, db, business)
    bury(settings.amqp_url, recorded_fact(zoes(business)), queue=topology.NOTIFIER_ORDERS)
    erase(settings)
    relayed(settings, db)
    with consuming(settings, *auditing(settings).subscriptions):
        pass
    rows = list(db.execute(text("SELECT type, actor, data FROM audit_log ORDER BY sequence")))
    proofs = [json.loads(row.data) for row in rows if row.type == "ops.customer_erased"]
    assert [proof["reason"] for proof in proofs] == ["DPO-17"] * 2
    assert {row.actor for row in rows} == {"fellow_ops"}
    assert proofs[0]["places"]["orders"] == 2
    assert proofs[1]["places"] == {"notifier.orders.dead": 1}
    assert not [part for part in PERSONAL if part.lower() in str(rows).lower()]
    assert log.verify(db).faults == ()


def test_who_is_no_person_or_in_the_reason_is_refused(settings, db):
    for address, reason in (
        ("nobody", "x"), (erased.ADDRESS, "x"), (ZOE, f"asked by {ZOE}"), (ZOE, " "),
    ):  # fmt: skip
        code, out, err = fellow(settings, "customer", "erase", address, "--reason", reason, "--yes")
        assert (code, out) == (2, ""), err
    assert db.query(OutboxMessage).count() == 0


def test_it_asks_first(settings, db, mailbox):
    business = account(db, status="approved")
    lived(settings, db, business)
    code, _, err = fellow(settings, "customer", "erase", ZOE, "--reason", "x")
    assert code == 1
    assert "no way back" in err
    assert db.query(Order).filter(Order.customer_email == ZOE).count() == 2
    assert db.query(OrderStatusHistory).count() == 5


def test_what_is_being_written_meanwhile_is_erased_too(settings, db, engine):
    """An order that is recorded behind the search: in no queue any more, and not committed yet."""
    business = account(db, status="approved")
    mine = zoes(business)
    with consuming(settings, *recording(settings).subscriptions):
        sent(settings, mine)
    another = text(
        "INSERT INTO orders SELECT (jsonb_populate_record(o, CAST(:changes AS jsonb))).* "
        "FROM orders o WHERE id = :id"
    )

    def is_erased():
        db.expire_all()
        db.rollback()
        return db.get(Order, mine.order_id).customer_email == erased.ADDRESS

    with Session(engine) as writer, ThreadPoolExecutor(1) as threads:
        changes = json.dumps({"id": str(new_id())})
        writer.execute(another, {"id": mine.order_id, "changes": changes})
        erasing = threads.submit(erase, settings)
        until(is_erased, "the search is over")
        writer.commit()
        assert erasing.result()["orders"] == 2
    assert not [part for part in PERSONAL if plain(part) in everything(db)]
    assert erase(settings) == {}


def test_a_note_that_is_written_while_the_order_is_locked_is_erased_too(settings, db, engine):
    """A recorder has the order in hand: after its look erasing waits for it, and looks again."""
    business = account(db, status="approved")
    mine = zoes(business)
    with consuming(settings, *recording(settings).subscriptions):
        sent(settings, mine)
    waits = text(
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' "
        "AND datname = current_database()"
    )

    def is_waiting():
        db.rollback()
        return db.scalar(waits)

    with Session(engine) as writer, ThreadPoolExecutor(1) as threads:
        orders.lock(writer, [mine.order_id])
        now = datetime.now(UTC)
        writer.add(
            OrderStatusHistory(
                event_id=new_id(), order_id=mine.order_id, tracking_status="IN_TRANSIT",
                note="with the neighbour", at=now, applied=True, tracking={"carrier": "Swift"},
            )
        )  # fmt: skip
        told = msgspec.to_builtins(zoes(business, customer_details=OTHERS))
        writer.add(
            OrderConflict(
                event_id=new_id(), order_id=mine.order_id, account_id=business.id, event=told,
                at=now,
            )
        )  # fmt: skip
        writer.flush()
        erasing = threads.submit(erase, settings)
        until(is_waiting, "it waits for the order")
        writer.commit()
        assert erasing.result()["order_status_history"] == 2
    db.rollback()
    assert {(row.note, row.tracking) for row in db.query(OrderStatusHistory)} == {
        ("", None), (erased.TEXT, None),
    }  # fmt: skip
    assert [row.event["address"] for row in db.query(OrderConflict)] == [erased.TEXT]
    assert erase(settings) == {}


def erase_in_tables(engine):
    with Session(engine) as session, session.begin():
        return rows.erase(session, ZOE)


@contextmanager
def erasing_beside(engine, statement):
    """Erase Zoë beside a transaction that has run a statement; her only order must stay free.

    Yields the future of the erasure, which waits for that transaction.
    """
    waits = text(
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' "
        "AND datname = current_database()"
    )

    def is_waiting():
        with Session(engine) as session:
            return session.scalar(waits)

    with ThreadPoolExecutor(1) as threads, Session(engine) as other, Session(engine) as recorder:
        other.execute(text(statement))
        future = threads.submit(erase_in_tables, engine)
        until(lambda: future.done() or is_waiting(), "the erasure waits")
        recorder.execute(text("SELECT FROM orders FOR UPDATE NOWAIT"))
        recorder.rollback()
        yield future


def one_order(db):
    """An order of Zoë's, a fact about it in the outbox, and a cancellation that names her."""
    business, now = account(db), datetime.now(UTC)
    mine = zoes(business)
    db.add(an_order(business.id, id=mine.order_id, customer_email=ZOE))
    db.add(
        AwaitedOrder(
            order_id=new_id(), account_id=business.id, since=now, cancelled_at=now,
            cancelled_by=new_id(), cancel_reason=f"told {ZOE}",
        )
    )  # fmt: skip
    outbox.add(db, [message(recorded_fact(mine))])
    db.commit()
    return mine.order_id


@pytest.mark.parametrize("table", ["outbox", "awaited_orders", "waiting_updates", "suppressions"])
def test_an_erasure_locks_no_order_while_it_scans(db, engine, table):
    """A recorder that waits for one order holds up a batch of others, of every business."""
    order_id = one_order(db)
    with erasing_beside(engine, f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE") as future:
        pass
    try:
        assert future.result()["orders"] == 1
    except OperationalError:  # the table was locked for two seconds, on a busy machine
        assert erase_in_tables(engine)["orders"] == 1
    db.expire_all()
    assert db.get(Order, order_id).customer_email == erased.ADDRESS


@pytest.mark.parametrize("table", ["outbox", "awaited_orders"])
def test_an_erasure_gives_up_where_another_transaction_holds_a_row(db, engine, table):
    """The relay holds facts for as long as the broker's alarm lasts; a recorder locks as we do."""
    order_id = one_order(db)
    with (
        erasing_beside(engine, f"SELECT FROM {table} FOR UPDATE") as future,
        pytest.raises(OperationalError, match="lock timeout"),
    ):
        future.result()
    db.expire_all()
    assert db.get(Order, order_id).customer_email == ZOE
    assert erase_in_tables(engine)["orders"] == 1


def test_an_erasure_that_gives_up_says_to_run_it_again(settings, db, engine):
    order_id = one_order(db)
    with Session(engine) as other:
        other.execute(text("SELECT FROM outbox FOR UPDATE"))
        code, _, err = fellow(settings, "customer", "erase", ZOE, "--reason", "DPO-17", "--yes")
    assert (code, "lock timeout" in err, "Run it again" in err) == (1, True, True), err
    assert erase(settings)["orders"] == 1
    db.expire_all()
    assert db.get(Order, order_id).customer_email == erased.ADDRESS


def test_what_somebody_writes_for_too_long_is_told(settings, db, engine, monkeypatch):
    account(db, status="approved")

    def not_searched():
        with Connection(settings.amqp_url) as connection:
            outcome = customers.erase(engine, connection, ZOE, Actor("ada", ""), "DPO-17")
        return {one.place for one in customers.unsearched_places(outcome, datetime.now(UTC), 0)}

    with Session(engine) as writer, monkeypatch.context() as shorter:
        shorter.setattr(rows, "WRITERS_SECONDS", 0.1)
        writer.execute(text("UPDATE accounts SET company_name = 'x'"))
        assert "transactions" in not_searched()
    assert "transactions" not in not_searched()


def test_what_is_said_of_the_persons_orders_goes_without_the_address_in_it(settings, db, mailbox):
    """Updates name their order by its id alone: a note is as personal as the order."""
    business = account(db, status="approved")
    mine, _, another = lived(settings, db, business)
    told = {"tracking_number": "ZADE-77", "order_number": "ZADE-1"}
    note = status_changed(mine, TrackingStatus.IN_TRANSIT, "with the neighbour")
    note = msgspec.structs.replace(note, **told)
    why = OrderCancelled(
        account_id=business.id, order_id=mine.order_id, reason="moved", order_number="ZADE-1"
    )
    others = status_changed(another, TrackingStatus.IN_TRANSIT, "by the door")
    corrected = zoes(business, order_id=mine.order_id, customer_details=OTHERS)
    said = (note, why, others, corrected)
    bury(settings.amqp_url, *said)
    for event in (note, others):
        on_the_ladder(settings, event, topology.ORDERS_INTAKE)
    publish(settings.amqp_url, message(note), message(others))
    outbox.add(db, [message(event) for event in said])
    db.commit()
    code, out, err = fellow(settings, "customer", "export", ZOE)
    assert code == 0, err
    held = json.loads(out)
    assert len(held["tables"]["outbox"]) == 3
    assert Counter(one["place"] for one in held["messages"]) == {
        "orders.intake.dead": 3, "retry.1h": 1, "orders.intake": 1,
    }  # fmt: skip
    code, out, err = fellow(settings, "customer", "erase", ZOE, "--dry-run", "--json")
    counted = json.loads(out)["places"]
    places = erase(settings)
    assert places == counted
    assert {name: places[name] for name in ("outbox", "orders.intake.dead", "retry.1h")} == {
        "outbox": 3, "orders.intake.dead": 3, "retry.1h": 1,
    }  # fmt: skip
    db.expire_all()
    left = [(row.type, bytes(row.body)) for row in db.query(OutboxMessage)]
    for queue in ("orders.intake.dead", "orders.intake"):
        while letter := take(settings.amqp_url, queue):
            body = letter.body if isinstance(letter.body, bytes) else letter.body.encode()
            left.append((letter.properties["type"], body))
    events = [decode(type_, body) for type_, body in left if type_.startswith("order.")]
    assert (
        len(events) == 4 + 4 + 3
    )  # the outbox, dead letters, the queue with what was on the ladder
    for event in events:
        words = str(event)
        if event.order_id == another.order_id:
            assert "by the door" in words
        else:
            assert not [w for w in ("neighbour", "moved", "ZADE", "Bola") if w in words]
    assert erase(settings) == {}


def test_a_persons_orders_are_found_by_their_index(settings, db, engine):
    """By the API and the search too, however many orders there are."""
    business = account(db)
    statements = []

    def note(_, __, statement, parameters, *___):
        if "customer_email" in statement.partition("WHERE")[2]:
            statements.append((statement, parameters))

    listen(db.get_bind(), "before_cursor_execute", note)
    rows.orders(db, [ZOE])
    search.search(db, ZOE)
    orders_api.index(db, Call(business.id, None, orders_api.Filter(customer_email=ZOE), {}, ""))
    remove(db.get_bind(), "before_cursor_execute", note)
    assert len(statements) == 3
    with engine.connect() as connection:
        # There are none, so that any way is as good as another.
        for way in ("seqscan", "indexscan"):
            connection.exec_driver_sql(f"SET enable_{way} = off")
        for statement, parameters in statements:
            plan = connection.exec_driver_sql(f"EXPLAIN {statement}", parameters).scalars()
            assert "ix_orders_customer_email" in "\n".join(plan), statement
