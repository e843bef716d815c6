"""`fellow journal replay`: what was said is said again, and is not done twice."""

import json
import threading
import time
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

import msgspec
import pytest
from amqp import Message as AmqpMessage
from kombu import Connection
from msgspec.structs import replace
from sqlalchemy import select, text

from services.ops.broker.connection import open_connection
from services.ops.broker.hold import hold
from services.ops.journal import reading, replaying
from services.ops.journal.reading import NotReadToTheEndError
from services.orders.__main__ import wire
from services.secrets.__main__ import wire as secrets_wire
from shared.bus import outbox
from shared.bus.contract import topology
from shared.bus.contract.delivery import RawDelivery
from shared.bus.contract.events import (
    AccountBlock,
    KycApproved,
    OpsJournalReplayed,
    OrderCreated,
    OrderNotPlaced,
    OrderPlaced,
    OrderRecorded,
    SecretRevoke,
    TrackingStatus,
    WebhookLimit,
)
from shared.bus.contract.journal import batch, event, place
from shared.bus.contract.message import message_for
from shared.db.models import InboxEntry, Order, OutboxMessage, WebhookPolicy, WebhookSecret
from shared.db.session import engine as shared_engine
from shared.ids import new_id
from shared.security import webhook_keys
from stack.servers.credentials import as_service
from tests.integration.arrange import (
    account,
    accounts_of_shards,
    consuming,
    declare,
    depth,
    facts,
    headers,
    in_shards,
    order_created,
    publish,
    publish_raw,
    status_changed,
    take,
    until,
)
from tests.integration.gate import Gate
from tests.integration.ops.cli.test_cli import fellow


@pytest.fixture
def began():
    return (datetime.now(UTC) - timedelta(seconds=1)).isoformat()


def recording(settings):
    return consuming(settings, *wire(settings).subscriptions)


def sent(amqp_url, *events):
    messages = [message_for(e, source="tests", correlation_id=e.order_id) for e in events]
    publish(amqp_url, *messages)
    return messages


def replay(settings, since, *arguments):
    code, out, err = fellow(settings, "journal", "replay", "--yes", "--from", since, *arguments)
    assert code == 0, err
    return {line.split()[1]: int(line.split()[0]) for line in out.splitlines()}


def test_it_rebuilds_what_was_lost_and_tells_nobody_again(settings, amqp_url, db, began):
    orders = [order_created() for _ in range(30)]
    updates = [status_changed(o, TrackingStatus.IN_TRANSIT, "on its way") for o in orders[:10]]
    with recording(settings):
        sent(amqp_url, *orders)
    with recording(settings):
        sent(amqp_url, *updates)
    before = books(db)
    facts = facts_by_id(db)
    assert len(before) == 30
    assert len(facts) == 40
    db.query(Order).delete()
    db.commit()
    found = replay(settings, began, "--to-queue", "orders.intake")
    assert found == {"order.created": 30, "order.status_changed": 10}
    with recording(settings):
        pass
    assert books(db) == before
    # The same facts under the same ids: whoever handled them knows them.
    assert facts_by_id(db) == facts
    replay(settings, began, "--to-queue", "orders.intake")
    with recording(settings):
        pass
    assert books(db) == before
    assert facts_by_id(db) == facts


def books(db):
    db.expire_all()
    columns = [c.name for c in Order.__table__.columns if c.name != "recorded_at"]
    db.rollback()
    return {o.id: [getattr(o, name) for name in columns] for o in db.query(Order)}


def facts_by_id(db):
    """All but what the replay tells of itself."""
    db.rollback()
    others = db.query(OutboxMessage).filter(OutboxMessage.type != OpsJournalReplayed.TYPE)
    return {(row.message_id, row.type) for row in others}


def test_a_dry_run_counts_and_publishes_nothing(settings, amqp_url, began):
    sent(amqp_url, order_created(), order_created())
    take(amqp_url, "orders.intake"), take(amqp_url, "orders.intake")
    found = replay(settings, began, "--to-queue", "orders.intake", "--dry-run")
    assert found == {"order.created": 2}
    assert depth(amqp_url, "orders.intake") == 0


def test_a_host_whose_clock_is_behind_replays_the_last_hour_too(settings, amqp_url, began):
    """Which is the one that the dump does not have, stamped by the database's time."""
    order = order_created()
    said_at = datetime.now(UTC) + timedelta(hours=1)
    publish(
        amqp_url, message_for(order, source="tests", correlation_id=order.order_id, time=said_at)
    )
    found = replay(settings, began, "--to-queue", "orders.intake", "--dry-run")
    assert found == {"order.created": 1}


def test_only_what_is_asked_for(settings, amqp_url, began):
    order = order_created()
    sent(amqp_url, order, status_changed(order, TrackingStatus.DELIVERED))
    middle = datetime.now(UTC)
    later = order_created()
    publish(
        amqp_url,
        message_for(
            later,
            source="tests",
            correlation_id=later.order_id,
            time=middle + timedelta(seconds=1),
        ),
    )
    queue = ("--to-queue", "orders.intake", "--dry-run")
    found = replay(settings, began, *queue, "--types", "order.c*", "--to", "2100-01-01")
    assert found == {"order.created": 2}
    assert replay(settings, began, *queue, "--to", middle.isoformat()) == {
        "order.created": 1,
        "order.status_changed": 1,
    }
    assert replay(settings, began, "--to-queue", "kyc.decisions", "--dry-run") == {}


def test_a_copy_is_the_message_as_it_was(settings, amqp_url, began):
    sent(amqp_url, order_created())
    original = take(amqp_url, "orders.intake")
    replay(settings, began, "--to-queue", "orders.intake")
    copy = take(amqp_url, "orders.intake")
    assert copy.body == original.body
    for name in ("message_id", "type", "correlation_id"):
        assert copy.properties[name] == original.properties[name]
    assert headers(copy) == headers(original) | {"x-replay": "again"}


def test_who_decided_is_still_known(settings, amqp_url, began):
    body = json.dumps({"decision": "approve", "email": "a@shop.example"}).encode()
    publish_raw(amqp_url, "commands", "kyc.decide", body, user_id="fellow")
    take(amqp_url, "kyc.decisions")
    assert replay(settings, began, "--to-queue", "kyc.decisions") == {"kyc.decide": 1}
    assert headers(take(amqp_url, "kyc.decisions"))["x-user-id"] == "fellow"


def test_a_copy_is_known_by_the_id_that_the_first_was_handled_by(settings, amqp_url, began):
    """What is no UUID is derived by who sent it, of which not everybody believes a copy."""
    body = json.dumps({"decision": "approve", "email": "a@shop.example"}).encode()
    operator = as_service(amqp_url, "operator")
    user = urlsplit(operator).username
    publish_raw(operator, "commands", "kyc.decide", body, user_id=user, message_id="7")
    first = RawDelivery.of(take(amqp_url, "kyc.decisions"))
    assert replay(settings, began, "--to-queue", "kyc.decisions") == {"kyc.decide": 1}
    copy = RawDelivery.of(take(amqp_url, "kyc.decisions"), believed=())
    assert copy.message_id == first.message_id


def test_what_is_taken_for_done_has_no_effect_ever_after(settings, amqp_url, db, began):
    (handled, waiting) = sent(amqp_url, order_created(), order_created())
    assert take(amqp_url, "orders.intake").properties["message_id"] == handled.message_id
    found = replay(settings, began, "--to-queue", "orders.intake", "--done")
    assert found == {"order.created": 1}
    publish(amqp_url, handled)
    with recording(settings):
        pass
    # The one that waited had its turn; the other is known, and was not recorded.
    assert [str(order.status_event_id) for order in db.query(Order)] == [
        json.loads(waiting.body)["order_id"]
    ]
    known = {str(entry.message_id) for entry in db.query(InboxEntry)}
    assert known == {handled.message_id, waiting.message_id}


def test_what_waits_in_a_shard_is_not_taken_for_done(settings, amqp_url, db, began):
    declare(amqp_url, 2)
    _, waiting = sent(amqp_url, order_created(), order_created(accounts_of_shards(2)[1]))
    for _ in range(2):
        take(amqp_url, "orders.intake")
    publish(amqp_url, *in_shards(2, [waiting]))
    found = replay(settings, began, "--to-queue", "orders.intake", "--done")
    assert found == {"order.created": 1}
    with recording(settings):
        until(lambda: depth(amqp_url, "orders.intake.1") == 0, "recorded")
    recorded = [str(order.status_event_id) for order in db.query(Order)]
    assert recorded == [json.loads(waiting.body)["order_id"]]


def test_what_waits_on_the_ladder_or_is_dead_is_left_alone(settings, amqp_url, began):
    messages = sent(amqp_url, *(order_created() for _ in range(3)))
    for _ in messages:
        take(amqp_url, "orders.intake")
    for exchange, message in (("retry.1h", messages[0]), ("dead", messages[1])):
        publish_raw(amqp_url, exchange, "orders.intake", b"{}", message_id=message.message_id)
    publish_raw(amqp_url, "retry.1h", "kyc.decisions", b"{}", message_id=messages[2].message_id)
    assert replay(settings, began, "--to-queue", "orders.intake", "--done") == {"order.created": 1}
    assert depth(amqp_url, "retry.1h") == 2
    assert depth(amqp_url, "orders.intake.dead") == 1


def test_what_waits_to_be_written_down_alone_is_done(settings, amqp_url, began):
    """Its email is out; and what the dump does not know of would come again by the recorder."""
    ladder, queue, other = sent(amqp_url, *(order_created() for _ in range(3)))
    for _ in range(3):
        take(amqp_url, "orders.intake")
    for exchange, message in (("retry.1h", ladder), ("", queue)):
        publish_raw(
            amqp_url, exchange, "orders.intake", b"{}", message_id=message.message_id,
            application_headers={"x-happened": True},
        )  # fmt: skip
    publish_raw(amqp_url, "retry.1h", "orders.intake", b"{}", message_id=other.message_id)
    assert replay(settings, began, "--to-queue", "orders.intake", "--done") == {"order.created": 2}


def test_a_header_from_outside_is_not_believed(settings, amqp_url, db):
    """Only through the default exchange, where senders and operators have no rights."""
    order = order_created()
    message = message_for(order, source="tests", correlation_id=order.order_id)
    publish_raw(
        amqp_url,
        "intake",
        "order.created",
        message.body,
        type="order.created",
        message_id=str(new_id()),
        application_headers={"x-replay": "done"},
    )
    with recording(settings):
        pass
    assert db.query(Order).count() == 1


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--from", "yesterday", "--to-queue", "orders.intake"), "--from must be a time"),
        (("--from", "2026-11-23T10:00:00Z", "--to-queue", "retry.5s"), "--to-queue must be one of"),
        (
            ("--from", "2026-11-23", "--to-queue", "orders.intake", "--to", "x"),
            "--to must be a time",
        ),
    ],
)
def test_what_makes_no_sense_is_said_before_anything_happens(settings, arguments, sentence):
    code, out, err = fellow(settings, "journal", "replay", "--yes", *arguments)
    assert (code, out) == (2, "")
    assert sentence in err


def test_more_that_waits_than_can_be_looked_through_is_taken_for_nothing(
    settings, amqp_url, monkeypatch
):
    monkeypatch.setattr(replaying, "SCANNED_AT_MOST", 2)
    sent(amqp_url, *(order_created() for _ in range(3)))
    with Connection(amqp_url) as connection, pytest.raises(replaying.TooManyWaitError):
        replaying.replay(connection, topology.ORDERS_INTAKE, iter(()), how="done")
    assert depth(amqp_url, "orders.intake") == 3


FAR = datetime(2100, 1, 1, tzinfo=UTC)


def a_journal(amqp_url, count):
    """So many orders in it, each in a message of the journal's own."""
    with Connection(amqp_url) as connection:
        batches = [
            batch(
                [event(message_for(order_created(), source="tests", correlation_id="c"))],
                "tests",
                "journal",
            )
            for _ in range(count)
        ]
        for one in batches:
            message = AmqpMessage(one.body, type=one.type, message_id=one.message_id)
            connection.default_channel.basic_publish_confirm(message, exchange=one.exchange)


def test_a_broker_that_is_slow_for_a_moment_ends_no_replay(settings, amqp_url, began):
    a_journal(amqp_url, 500)
    with Gate(amqp_url) as gate, open_connection(gate.url) as source:
        extent, found = reading.Extent(), 0
        for _ in reading.read(source, datetime.fromisoformat(began), FAR, extent):
            found += 1
            if found == 100:
                gate.stall()
                # Longer than a quiet moment was taken for the end.
                threading.Timer(3.0, gate.open).start()
    assert found == 500
    assert str(extent) == "500 of the journal's 500 messages from offset 0 on"


def test_a_broker_that_falls_silent_ends_a_replay_aloud(settings, amqp_url, began, monkeypatch):
    a_journal(amqp_url, 500)
    writing = Connection(amqp_url)
    with Gate(amqp_url) as gate, open_connection(gate.url) as source, writing:

        def entries():
            for number, entry in enumerate(
                reading.read(source, datetime.fromisoformat(began), FAR), 1
            ):
                if number == 100:
                    gate.stall()
                    monkeypatch.setattr(reading, "SILENCE_SECONDS", 1.0)
                yield entry

        seen = []
        with pytest.raises(NotReadToTheEndError, match=r"sent nothing .* of the journal's 500"):
            replaying.replay(writing, topology.ORDERS_INTAKE, entries(), progress=seen.append)
    # What it says it has published is published.
    done = sum(seen[-1].counts.values())
    assert 100 <= done < 500
    assert depth(amqp_url, "orders.intake") == done


def test_what_is_not_there_any_more_is_not_passed_over(settings):
    extent = reading.Extent(end=100)
    for offset in (7, 8):
        reading._follow(extent, at_offset(offset))
    with pytest.raises(NotReadToTheEndError, match="offsets 9 to 41 are not there any more"):
        reading._follow(extent, at_offset(42))


def at_offset(offset):
    return AmqpMessage(b"", application_headers={reading.OFFSET_HEADER: offset})


def test_it_reads_to_where_the_journal_ended_and_no_further(settings, amqp_url, began):
    a_journal(amqp_url, 50)
    with Connection(amqp_url) as source:
        entries = reading.read(source, datetime.fromisoformat(began), FAR)
        next(entries)
        a_journal(amqp_url, 50)
        assert sum(1 for _ in entries) == 49
        # And of a time that is yet to come there is nothing, at once.
        assert list(reading.read(source, FAR, FAR)) == []
        assert list(reading.read(source, FAR, FAR, earlier=replaying.AWAITING)) == []
    with Connection(amqp_url) as source:
        assert sum(1 for _ in reading.read(source, datetime.fromisoformat(began), FAR)) == 100


def test_an_empty_journal(settings, began):
    code, out, err = fellow(
        settings, "journal", "replay", "--yes", "--from", began, "--to-queue", "orders.intake"
    )
    assert (code, out) == (0, "")
    assert "0 messages went to orders.intake" in err


def test_it_says_that_a_part_cannot_be_read(settings, amqp_url, began):
    a_journal(amqp_url, 3)
    publish_raw(amqp_url, "journal", "", b'[{"specversion":', type="journal.batch")
    a_journal(amqp_url, 3)
    queue = ("--to-queue", "orders.intake", "--dry-run")
    code, _, err = fellow(settings, "journal", "replay", "--from", began, *queue)
    assert code == 0
    assert "1 batches of the journal cannot be read" in err
    assert "6 messages would go to orders.intake" in err


def test_it_says_what_was_read(settings, amqp_url, began):
    a_journal(amqp_url, 30)
    queue = ("--to-queue", "orders.intake", "--dry-run")
    code, _, err = fellow(settings, "journal", "replay", "--yes", "--from", began, *queue)
    assert code == 0
    assert "read was 30 of the journal's 30 messages from offset 0 on" in err


def test_looking_is_not_delivering(settings, amqp_url):
    """Of what waits, nothing is nearer to its delivery limit afterwards, nor changed otherwise."""
    orders = sent(amqp_url, *(order_created() for _ in range(5)))
    body = json.dumps({"decision": "approve", "email": "a@shop.example"}).encode()
    publish_raw(amqp_url, "commands", "kyc.decide", body, user_id="fellow", message_id="x")
    for queue, expected in (
        (topology.ORDERS_INTAKE, [(m.message_id, m.body, m.headers()) for m in orders]),
        (
            topology.KYC_DECISIONS,
            [("x", body, {"x-user-id": "fellow", "x-key": "kyc.decide"})],
        ),
    ):
        for _ in range(topology.DELIVERY_LIMIT + 1):
            with Connection(amqp_url) as connection:
                replaying.replay(connection, queue, iter(()), how="done", dry_run=True)
        found = [take(amqp_url, queue.name) for _ in expected]
        assert [(m.properties["message_id"], m.body, headers(m)) for m in found] == expected
        assert not any(message.headers.get("x-delivery-count") for message in found)
        assert depth(amqp_url, queue.name) == depth(amqp_url, queue.dead) == 0


def test_what_comes_while_it_looks_is_not_taken_for_done(settings, amqp_url, began, monkeypatch):
    look = replaying._waiting
    handled, late = order_created(), order_created()

    def then_another_comes(*given):
        seen = look(*given)
        sent(amqp_url, late)
        return seen

    monkeypatch.setattr(replaying, "_waiting", then_another_comes)
    sent(amqp_url, handled)
    take(amqp_url, "orders.intake")
    with Connection(amqp_url) as source, Connection(amqp_url) as writing:
        entries = reading.read(source, datetime.fromisoformat(began), FAR)
        summary = replaying.replay(writing, topology.ORDERS_INTAKE, entries, how="done")
    assert summary.counts == {"order.created": 1}


def test_nothing_is_taken_for_done_while_somebody_may_have_it_in_hand(settings, amqp_url, began):
    queue = ("--to-queue", "orders.intake", "--done")
    (message,) = sent(amqp_url, order_created())
    with recording(settings):
        until(lambda: depth(amqp_url, "orders.intake") == 0, "consumed")
        code, out, err = fellow(settings, "journal", "replay", "--yes", "--from", began, *queue)
    assert (code, out) == (1, "")
    assert "Nothing was done: 1 consumers may have messages of orders.intake in hand" in err
    publish_raw(amqp_url, "dead", "orders.intake", b"{}", message_id=message.message_id)
    with Connection(amqp_url) as connection, hold(connection, "orders.intake.dead") as held:
        assert held.take(1)
        # Another process, which has looked for nobody's lock.
        code, out, err = fellow(settings, "journal", "replay", "--yes", "--from", began, *queue)
    assert (code, out) == (1, "")
    assert "another tool may have messages of orders.intake.dead in hand" in err


def test_what_the_relay_sent_and_nobody_confirmed_is_neither_told_nor_untold(
    settings, amqp_url, db, began
):
    """The journal has it; whether the queue ever had it is not known, and the outbox has it yet."""
    told, doubtful, leased = (order_fact() for _ in range(3))
    order = message_for(order_created(), source="tests", correlation_id="c")
    into_journal(amqp_url, told, doubtful, leased, order)
    outbox.add(db, [told, doubtful, leased, order])
    db.flush()
    held = "UPDATE outbox SET attempts = :n, next_try_at = now() + interval '1 min' WHERE "
    for n, message in ((1, doubtful), (0, leased)):
        values = {"n": n, "id": message.message_id}
        db.execute(text(held + "message_id = CAST(:id AS uuid)"), values)
    db.commit()
    done = ("journal", "replay", "--yes", "--from", began, "--done", "--to-queue")
    code, out, err = fellow(settings, *done, "notifier.orders")
    assert (code, out.split()) == (0, ["1", "order.recorded"])
    assert "2 are in doubt: sent, never confirmed" in err
    assert take(amqp_url, "notifier.orders").properties["message_id"] == told.message_id
    assert depth(amqp_url, "notifier.orders") == 0
    # An order in the outbox was sent by the ingress before it was written there.
    code, out, err = fellow(settings, *done, "orders.intake")
    assert (code, out) == (0, "")
    assert "1 are in doubt" in err


def test_nothing_is_taken_for_done_where_nobody_knows_what_is_in_doubt(settings, amqp_url, began):
    into_journal(amqp_url, order_fact())
    done = (
        "journal",
        "replay",
        "--yes",
        "--from",
        began,
        "--done",
        "--to-queue",
        "notifier.orders",
    )
    with Gate(settings.database_url) as gate:
        gate.cut()
        away = msgspec.structs.replace(settings, database_url=gate.url)
        code, out, err = fellow(away, *done)
    assert (code, out) == (1, "")
    assert "Nothing was done: what is in doubt in the outbox is unknown" in err


def order_fact():
    event = OrderRecorded(
        order_id=new_id(),
        account_id=new_id(),
        company_name="Kettle & Co",
        customer_name="Zoë Ade",
        customer_email="zoe@shop.example",
        item_summary="2 × blue kettle",
        tracking_status=TrackingStatus.PENDING,
        address="12 Marina Road",
    )
    return message_for(event, source="tests", correlation_id=event.order_id)


def into_journal(amqp_url, *messages):
    """Into the journal alone, as whoever publishes writes there."""
    with Connection(amqp_url) as connection:
        for to in {place(m.exchange, m.routing_key) for m in messages}:
            told = [event(m) for m in messages if place(m.exchange, m.routing_key) == to]
            one = batch(told, "tests", to)
            message = AmqpMessage(one.body, type=one.type, message_id=one.message_id)
            channel = connection.default_channel
            channel.basic_publish_confirm(message, exchange=one.exchange)


def test_a_fact_of_the_bulk_lane_is_replayed_into_it_and_never_taken_for_done_elsewhere(
    settings, amqp_url, began
):
    message = order_fact()
    publish(amqp_url, replace(message, routing_key=topology.BULK + message.routing_key))
    # It still waits in its own lane, which this replay does not look into.
    done = ("--to-queue", "notifier.orders", "--types", "order.*", "--done")
    assert replay(settings, began, *done) == {}
    assert replay(settings, began, "--to-queue", "notifier.orders") == {}
    assert replay(settings, began, "--to-queue", "notifier.bulk") == {"order.recorded": 1}
    assert depth(amqp_url, "notifier.bulk") == 2
    assert depth(amqp_url, "notifier.orders") == 0


def test_it_asks_and_is_in_the_audit_log(settings, amqp_url, db, began):
    sent(amqp_url, *(order_created() for _ in range(3)))
    until(lambda: depth(amqp_url, "orders.intake") == 3, "they are there")
    command = ("journal", "replay", "--from", began, "--to-queue", "orders.intake")
    code, _, err = fellow(settings, *command)
    assert (code, "Put what the journal has since" in err) == (1, True), err
    assert "into orders.intake, to be handled again?" in err
    code, _, err = fellow(settings, *command, "--dry-run")
    assert (code, "3 messages would go" in err) == (0, True), err
    assert depth(amqp_url, "orders.intake") == 3
    assert facts(db, OpsJournalReplayed.TYPE) == []
    assert fellow(settings, *command, "--yes", "--types", "order.*")[0] == 0
    assert depth(amqp_url, "orders.intake") == 6
    first, last = facts(db, OpsJournalReplayed.TYPE)
    assert (first.queue, first.how, first.types, first.messages) == (
        "orders.intake",
        "again",
        ["order.*"],
        None,
    )
    assert first.since == datetime.fromisoformat(began)
    assert last == msgspec.structs.replace(first, messages=3)


def test_nothing_is_put_anywhere_that_cannot_be_audited(settings, amqp_url, db, began):
    sent(amqp_url, order_created())
    until(lambda: depth(amqp_url, "orders.intake") == 1, "it is there")
    db.execute(text("ALTER TABLE outbox RENAME TO outbox_away"))
    db.commit()
    code, _, err = fellow(
        settings, "journal", "replay", "--yes", "--from", began, "--to-queue", "orders.intake"
    )
    assert (code, "The database did not do it" in err) == (1, True), err
    assert depth(amqp_url, "orders.intake") == 1


def test_who_may_only_decide_has_nothing_else_said_again(settings, amqp_url, db, began):
    """An operator's user may publish `kyc.decide`; what the message says that it is, it may not."""
    business = account(db, status="approved")
    order = message_for(order_created(business.id), source="x", correlation_id="y")
    commands = [
        SecretRevoke(account_id=business.id, reason="Because."),
        AccountBlock(account_id=business.id, blocked=True, reason="Because."),
        WebhookLimit(account_id=business.id, per_second=1),
    ]
    forged = [("journal.batch", batch([event(order)], "x", "journal").body)]
    forged += [(one.TYPE, msgspec.json.encode(one)) for one in commands]
    forged += [(order.type, order.body), (OrderRecorded.TYPE, order_fact().body)]
    for type_, body in forged:
        publish_raw(
            as_service(amqp_url, "operator"),
            "commands",
            "kyc.decide",
            body,
            type=type_,
            message_id=str(new_id()),
        )
    for queue in topology.WORK_QUEUES:
        if queue != topology.KYC_DECISIONS:
            for types in ("", ",".join(type_ for type_, _ in forged), "*"):
                chosen = ("--types", types) if types else ()
                assert replay(settings, began, "--to-queue", queue.name, *chosen) == {}
                assert depth(amqp_url, queue.name) == 0
    for _ in forged:
        take(amqp_url, "kyc.decisions")
    # What says no known type is a decision, whatever is in it.
    assert replay(settings, began, "--to-queue", "kyc.decisions") == {"journal.batch": 1}
    with Connection(amqp_url) as source:
        entries = reading.read(source, datetime.fromisoformat(began), FAR)
        said = {e.type for e in entries if e.incoming.exchange == "commands"}
    assert said == {"kyc.decide", "journal.batch"}


def test_what_waited_when_the_dump_began_is_not_lost(settings, amqp_url, db, engine, database):
    """It was in the journal before, and in the books after: the dump and the queue have none of it.

    A service may have been behind, and what failed comes back for hours.
    """
    name = settings.database_url.rpartition("/")[2]
    revoked, blocked, again, new = (account(db, status="approved") for _ in range(4))
    db.add_all([a_secret(one) for one in (revoked, again)])
    db.commit()
    handled, waited = order_created(revoked.id), order_created(revoked.id)
    sent(amqp_url, handled)
    for is_blocked in (True, False):
        command(amqp_url, AccountBlock(account_id=again.id, blocked=is_blocked, reason="x"))
    working(settings)
    waiting = order_fact()
    publish(amqp_url, waiting)
    sent(amqp_url, waited)
    command(amqp_url, SecretRevoke(account_id=revoked.id, reason="It leaked."))
    command(amqp_url, AccountBlock(account_id=blocked.id, blocked=True, reason="x"))
    command(
        amqp_url,
        KycApproved(
            account_id=new.id,
            company_name=new.company_name,
            email=new.email,
            application_id=new.id,
            decided_by="ada",
        ),
    )
    time.sleep(1.1)  # what is waited for here is the broker's clock, in whose seconds it looks
    began = datetime.now(UTC).isoformat()
    database.dump(name)
    told = take(amqp_url, "notifier.orders")
    assert told.properties["message_id"] == waiting.message_id
    working(settings)
    after = books(db)
    assert after.keys() == {handled.order_id, waited.order_id}
    state = ends(db)
    db.close()
    engine.dispose()
    shared_engine().dispose()
    database.restore(name)
    assert books(db).keys() == {handled.order_id}
    assert ends(db) != state
    replay(settings, began, "--to-queue", "notifier.orders", "--done")
    assert take(amqp_url, "notifier.orders").properties["message_id"] == waiting.message_id
    types = ("--types", "secret.revoke,account.block,webhook.limit,secret.revoked")
    replay(settings, began, "--to-queue", "secrets.rotate", *types)
    for queue in ("secrets.issue", "orders.intake"):
        replay(settings, began, "--to-queue", queue)
    facts = facts_by_id(db)
    working(settings)
    assert books(db) == after
    assert ends(db) == state
    # What was handled before the dump has told nothing again.
    new = [type_ for _, type_ in facts_by_id(db) - facts]
    assert sorted(new) == ["account.changed", "order.recorded", "secret.issued", "secret.revoked"]
    for queue in (topology.ORDERS_INTAKE, topology.SECRETS_ROTATE, topology.SECRETS_ISSUE):
        assert depth(amqp_url, queue.dead) == 0


def working(settings):
    both = [one for w in (wire, secrets_wire) for one in w(settings).subscriptions]
    with consuming(settings, *both):
        pass


def command(amqp_url, event):
    publish(amqp_url, message_for(event, source="tests", correlation_id=event.account_id))


def a_secret(business):
    raw, id_, now = webhook_keys.generate(), new_id(), datetime.now(UTC)
    return WebhookSecret(
        id=id_,
        account_id=business.id,
        key_hash=webhook_keys.key_hash(webhook_keys.encode_key(raw).encode()),
        sealed=webhook_keys.seal(raw, id_),
        state="active",
        issued_at=now,
        expires_at=now + timedelta(days=30),
    )


def ends(db):
    """Which secrets are revoked, and who is blocked."""
    db.rollback()
    secrets = db.execute(select(WebhookSecret.account_id, WebhookSecret.state))
    policies = db.execute(select(WebhookPolicy.account_id, WebhookPolicy.blocked_at.is_not(None)))
    return sorted(map(str, [*secrets, *policies]))


def test_an_order_that_is_placed_days_later_is_rebuilt_too(settings, amqp_url, db):
    """What it was waited for by is in the journal from before all that was lost."""
    order = order_created()
    about = {"order_id": order.order_id, "account_id": order.account_id}
    unrelated = order_created()
    sent(amqp_url, unrelated, OrderNotPlaced(**about))
    with recording(settings):
        pass
    time.sleep(1.1)  # see above
    began = (datetime.now(UTC) + replaying.WAITED).isoformat()
    members = {name: getattr(order, name) for name in OrderCreated.__struct_fields__}
    sent(amqp_url, OrderPlaced(**members))
    with recording(settings):
        pass
    before = books(db)
    assert before.keys() == {order.order_id, unrelated.order_id}
    db.execute(text("TRUNCATE orders, order_status_history, awaited_orders"))
    db.commit()
    found = replay(settings, began, "--to-queue", "orders.intake")
    assert found == {"order.not_placed": 1, "order.placed": 1}
    with recording(settings):
        pass
    assert books(db) == {order.order_id: before[order.order_id]}
