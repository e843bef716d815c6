"""Dead letters: looked at without a trace, and put right without a loss or a double."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta

import pytest
from amqp import Message as AmqpMessage
from kombu import Connection
from sqlalchemy import text

from services.ops.audit.actions import Actor
from services.ops.broker import hold
from services.ops.broker.hold import QueueHold
from services.ops.dead_letters import actions, editing, search
from services.ops.dead_letters.editing import NotEditableError
from services.ops.dead_letters.letter import Criteria
from services.orders.__main__ import wire
from shared.bus.broker.kombu_connection import user_of
from shared.bus.consume.subscription import Subscription
from shared.bus.contract import topology
from shared.bus.contract.delivery import RawDelivery, believed
from shared.bus.contract.errors import Retry
from shared.bus.contract.events import EVENT_TYPES, decode
from shared.bus.contract.message import message_for
from shared.db.models import Order, OutboxMessage
from shared.db.session import make_engine
from shared.ids import new_id
from shared.security.service_accounts import CONSOLE, login
from stack.servers.credentials import as_service
from tests.integration.arrange import (
    PATIENCE,
    consuming,
    declare,
    depth,
    facts,
    headers,
    in_shards,
    order_created,
    orders_of_shards,
    publish,
    publish_raw,
    take,
    until,
)
from tests.integration.relay.test_stuck import resume, stuck
from tests.unit.notifier.facts import FACTS

INTAKE = topology.ORDERS_INTAKE
ADA = Actor("ada", "10.0.0.7")


@pytest.fixture
def bus(settings):
    with Connection(settings.amqp_url) as connection:
        yield connection


@pytest.fixture
def service():
    return "ops"


@pytest.fixture
def books(settings):
    made = make_engine(settings)
    yield made
    made.dispose()


def bury(amqp_url, *events, queue=INTAKE, reason="Retry: no such thing", body=None, **more):
    """Dead letters, as `requeue.py` leaves them; returns their messages.

    `said_at`: when that happened of which they tell, where it was not when they died.
    """
    failed_at = more.pop("failed_at", datetime.now(UTC)).replace(microsecond=0)
    said_at = more.pop("said_at", failed_at)
    messages = [
        message_for(
            event,
            source="tests",
            correlation_id=getattr(event, "order_id", new_id()),
            time=said_at,
        )
        for event in events
    ]
    failed = failed_at.isoformat()
    before = depth(amqp_url, queue.dead)
    service = queue.name.partition(".")[0]
    with Connection(as_service(amqp_url, service)) as connection:
        channel = connection.channel()
        channel.confirm_select()
        for message in messages:
            channel.basic_publish(
                AmqpMessage(
                    message.body if body is None else body,
                    message_id=message.message_id,
                    type=message.type,
                    correlation_id=message.correlation_id,
                    delivery_mode=2,
                    user_id=login(service),
                    application_headers=message.headers()
                    | {
                        "x-attempt": 9,
                        "x-reason": reason,
                        "x-reasons": [f"{failed} {reason}"],
                        "x-failed-at": failed,
                        "x-queue": queue.name,
                    }
                    | more,
                ),
                exchange="dead",
                routing_key=queue.name,
            )
        until(lambda: depth(amqp_url, queue.dead) >= before + len(messages), "buried")
    return messages


def ids(page):
    return [letter.message_id for letter in page.letters]


def test_looking_leaves_everything_where_it_was(amqp_url, bus, books):
    buried = [m.message_id for m in bury(amqp_url, *(order_created() for _ in range(250)))]
    for _ in range(3):
        first = search.browse(bus, INTAKE)
        assert (ids(first), first.total, first.next) == (buried[:100], 250, 100)
    second = search.browse(bus, INTAKE, start=first.next)
    third = search.browse(bus, INTAKE, start=second.next)
    assert ids(second) + ids(third) == buried[100:]
    assert third.next is None
    assert [letter.position for letter in third.letters] == list(range(200, 250))
    until(lambda: depth(amqp_url, INTAKE.dead) == 250, "all are back")
    assert [take(amqp_url, INTAKE.dead).properties["message_id"] for _ in range(250)] == buried


def test_an_empty_queue_is_read_without_its_lock(amqp_url, bus, monkeypatch):
    def locked(queue):
        raise AssertionError(f"the lock of {queue} was waited for")

    monkeypatch.setattr(hold, "locked", locked)
    with hold.hold(bus, INTAKE.dead) as held:
        assert (held.take(1), held.ready, held.alone) == ([], 0, True)
    bury(amqp_url, order_created())
    with pytest.raises(AssertionError, match="the lock of"):
        search.browse(bus, INTAKE)


def test_a_letter_tells_why_it_died(amqp_url, bus):
    order = order_created()
    (message,) = bury(amqp_url, order, reason="Retry: this account has no order 12")
    letter = search.find(bus, INTAKE, message.message_id)
    assert letter.type == "order.created"
    assert letter.reason == "Retry: this account has no order 12"
    assert letter.kind == "Retry: this account has no order …"
    assert letter.attempts == 9
    assert letter.reasons[0].endswith(letter.reason)
    assert letter.correlation_id == str(order.order_id)
    assert json.loads(letter.text)["order_id"] == str(order.order_id)
    assert search.find(bus, INTAKE, str(new_id())) is None


def test_what_the_broker_gave_up_says_so(amqp_url, bus):
    """Delivered and never answered, until the delivery limit: then there is no reason of ours."""
    body = json.dumps({"decision": "approve", "email": "a@shop.example"}).encode()
    publish_raw(amqp_url, "commands", "kyc.decide", body, user_id="fellow", delivery_mode=2)
    with Connection(amqp_url) as connection:
        channel = connection.channel()
        while message := channel.basic_get("kyc.decisions"):
            channel.basic_reject(message.delivery_tag, requeue=True)
    queue = topology.KYC_DECISIONS
    until(lambda: depth(amqp_url, queue.dead) == 1, "given up")
    (letter,) = search.browse(bus, queue).letters
    assert "delivered 20 times without an answer" in letter.reason
    assert (letter.type, letter.user) == ("kyc.decide", "fellow")
    assert letter.failed_at is not None
    # Without an id of its own it has the same one whenever it is looked at.
    assert search.find(bus, queue, letter.message_id).failed_at == letter.failed_at


def test_what_the_broker_gave_up_in_a_shard_is_among_its_queues_and_comes_back(
    settings, amqp_url, database_url, configure, bus, books
):
    declare(amqp_url, 2)
    _, sent = orders_of_shards(2)
    publish(amqp_url, *in_shards(2, [sent]))
    with Connection(amqp_url) as connection:
        channel = connection.channel()
        while message := channel.basic_get(topology.shards(2)[0].name):
            channel.basic_reject(message.delivery_tag, requeue=True)
    until(lambda: depth(amqp_url, INTAKE.dead) == 1, "given up")
    (letter,) = search.browse(bus, INTAKE).letters
    assert "delivered 20 times without an answer" in letter.reason
    assert (letter.queue, letter.message_id) == (INTAKE.name, sent.message_id)
    assert letter.failed_at is not None
    assert actions.replay(bus, books, INTAKE, Criteria(), ADA).done == 1
    admin = configure(amqp_url=amqp_url, database_url=database_url)
    handled = []
    subscription = Subscription(
        queue=INTAKE, handle=lambda _, received: handled.extend(received), consumer="x"
    )
    with consuming(admin, subscription):
        until(lambda: handled, "it is back")
    assert str(handled[0].id) == sent.message_id


def test_filters(amqp_url, bus):
    old = datetime.now(UTC) - timedelta(hours=3)
    bury(amqp_url, *(order_created() for _ in range(3)), reason="Malformed: x is missing")
    (wanted,) = bury(amqp_url, order_created(), reason="Retry: no order 7", failed_at=old)
    bury(amqp_url, *(order_created() for _ in range(3)), reason="Retry: no order 8")
    for criteria in (
        Criteria(older_than=timedelta(hours=2)),
        Criteria(reason="ORDER 7"),
        Criteria(ids=frozenset({wanted.message_id})),
        Criteria(correlation_id=wanted.correlation_id),
    ):
        assert ids(search.browse(bus, INTAKE, criteria)) == [wanted.message_id]
    assert len(search.browse(bus, INTAKE, Criteria(reason="Retry: no order …")).letters) == 4
    assert len(search.browse(bus, INTAKE, Criteria(type="order.cancelled")).letters) == 0
    young = Criteria(younger_than=timedelta(hours=1), reason="malformed")
    page = search.browse(bus, INTAKE, young, limit=2)
    assert len(page.letters) == 2
    assert len(search.browse(bus, INTAKE, young, start=page.next).letters) == 1
    summary = search.summarise(bus, INTAKE)
    assert [(g.kind, g.count) for g in summary.groups] == [
        ("Retry: no order …", 4),
        ("Malformed: x is missing", 3),
    ]
    assert summary.total == summary.seen == 7
    assert summary.groups[0].oldest == old.replace(microsecond=0)


def test_a_replayed_letter_is_as_if_it_had_never_been_tried(amqp_url, bus, books):
    (message,) = bury(amqp_url, order_created())
    done = actions.replay(bus, books, INTAKE, Criteria(), ADA)
    assert (done.done, done.total) == (1, 1)
    assert depth(amqp_url, INTAKE.dead) == 0
    back = take(amqp_url, INTAKE.name)
    assert back.body == message.body
    assert back.properties["message_id"] == message.message_id
    assert headers(back) == message.headers()


def test_it_is_recorded_and_told(settings, amqp_url, database_url, bus, books, db, configure):
    orders = [order_created() for _ in range(3)]
    messages = bury(amqp_url, *orders)
    wanted = Criteria(ids=frozenset({messages[0].message_id, messages[2].message_id}))
    assert actions.replay(bus, books, INTAKE, wanted, ADA).done == 2
    assert ids(search.browse(bus, INTAKE)) == [messages[1].message_id]
    admin = configure(amqp_url=amqp_url, database_url=database_url)
    with consuming(admin, *wire(admin).subscriptions):
        pass
    assert {order.id for order in db.query(Order)} == {orders[0].order_id, orders[2].order_id}
    told = facts(db, "ops.dead_letter_replayed")
    assert {fact.message_id for fact in told} == wanted.ids
    assert {(fact.by, fact.address, fact.queue) for fact in told} == {
        ("ada", "10.0.0.7", "orders.intake")
    }


def test_who_published_it_is_still_known(amqp_url, bus, books):
    body = json.dumps({"decision": "approve", "email": "a@shop.example"}).encode()
    queue = topology.KYC_DECISIONS
    # By its service, whose copies carry the user; by nobody who is known; and forged, with what
    # the broker noted itself.
    carried = {"x-user-id": "boss", "x-reason": "Permanent: x"}
    for by in ({"user_id": login("kyc")}, {"user_id": None}):
        publish_raw(
            as_service(amqp_url, "kyc"),
            "dead",
            queue.name,
            body,
            type="kyc.decide",
            application_headers=carried,
            **by,
        )
    publish_raw(
        amqp_url,
        "commands",
        "kyc.decide",
        body,
        application_headers={"x-user-id": "forged"},
        delivery_mode=2,
    )
    with Connection(amqp_url) as connection:
        channel = connection.channel()
        while message := channel.basic_get(queue.name):
            channel.basic_reject(message.delivery_tag, requeue=True)
    until(lambda: depth(amqp_url, queue.dead) == 3, "all dead")
    state = actions.replay(bus, books, queue, Criteria(), ADA)
    assert (state.done, state.orphaned) == (2, 1), "nobody vouches for the second"
    back = [take(amqp_url, queue.name) for _ in range(2)]
    assert [headers(message).get("x-user-id") for message in back] == ["boss", None]
    # Who put them back is what the broker vouches for now.
    assert {message.properties["user_id"] for message in back} == {user_of(bus)}


def test_who_writes_a_decision_anew_is_its_author(amqp_url, books, db):
    """On the console its person, whom the broker's user vouches for; and both bodies are known."""
    queue = topology.KYC_DECISIONS
    first = json.dumps({"decision": "approve", "email": "a@shop.example"}).encode()
    second = json.dumps({"decision": "revoke", "email": "a@shop.example"}).encode()
    publish_raw(
        as_service(amqp_url, "kyc"),
        "dead",
        queue.name,
        first,
        type="kyc.decide",
        message_id="desk-42",
        user_id=login("kyc"),
        application_headers={"x-user-id": login(CONSOLE), "x-acting-user": "ola"},
    )
    known = believed(queue.name, login("kyc"))
    with Connection(as_service(amqp_url, CONSOLE)) as console:
        (letter,) = search.browse(console, queue).letters
        assert (letter.user, letter.person) == (login(CONSOLE), "ola")
        assert editing.edit(console, books, queue, "desk-42", second, ADA)
    back = RawDelivery.of(take(amqp_url, queue.name), known)
    assert (back.body, back.person) == (second, "ada")
    (fact,) = facts(db, "ops.dead_letter_replayed")
    assert fact.digest == hashlib.sha256(first).hexdigest()
    assert fact.new_digest == hashlib.sha256(second).hexdigest()


def test_an_edited_letter_goes_back_under_its_id(amqp_url, bus, books, db):
    order = order_created()
    (message,) = bury(amqp_url, order, body=b'{"order_id": 1}', reason="Malformed: x")
    for body, type_, why in (
        (b"{", "", "This is no order.created"),
        (b'{"order_id": 1}', "", "This is no order.created"),
        (message.body, "kyc.decide", "orders.intake takes no 'kyc.decide'"),
        (message.body, "order.recorded", "orders.intake takes no"),
    ):
        with pytest.raises(NotEditableError, match=why):
            editing.edit(bus, books, INTAKE, message.message_id, body, ADA, type=type_)
    assert depth(amqp_url, INTAKE.name) == 0
    until(lambda: depth(amqp_url, INTAKE.dead) == 1, "it is back")
    assert editing.edit(bus, books, INTAKE, message.message_id, message.body, ADA)
    back = take(amqp_url, INTAKE.name)
    assert back.body == message.body
    assert back.properties["message_id"] == message.message_id
    assert [fact.edited for fact in facts(db, "ops.dead_letter_replayed")] == [True]
    assert not editing.edit(bus, books, INTAKE, message.message_id, message.body, ADA)


def test_a_letter_of_the_bulk_lane_is_edited_and_stays_in_it(amqp_url, bus, books):
    queue, fact = topology.NOTIFIER_BULK, FACTS["order_received"]
    (message,) = bury(amqp_url, fact, queue=queue, body=b"{}", reason="Malformed: x")
    assert editing.types_for(queue) == editing.types_for(topology.NOTIFIER_ORDERS)
    assert editing.edit(bus, books, queue, message.message_id, message.body, ADA)
    assert take(amqp_url, queue.name).body == message.body


@pytest.mark.usefixtures("retried_soon")
def test_what_a_shovel_put_back_comes_back_from_the_ladder(
    settings, amqp_url, database_url, configure
):
    """Died of the delivery limit, and moved with its headers, as RabbitMQ's own page does it."""
    admin = configure(amqp_url=amqp_url, database_url=database_url)
    publish_raw(amqp_url, "intake", "order.created", b"{}", message_id="x", delivery_mode=2)
    with Connection(amqp_url) as connection:
        channel = connection.channel()
        while message := channel.basic_get(INTAKE.name):
            channel.basic_reject(message.delivery_tag, requeue=True)
        until(lambda: depth(amqp_url, INTAKE.dead) == 1, "given up")
        dead = channel.basic_get(INTAKE.dead, no_ack=True)
        assert "x-death" in dead.headers
        moved = {"message_id": "x", "application_headers": dead.headers}
        publish_raw(amqp_url, "", INTAKE.name, dead.body, **moved)
    tries = []

    def act(_, received):
        tries.append(received)
        if len(tries) == 1:
            raise Retry("for a moment")

    subscription = Subscription(
        queue=INTAKE, handle=act, consumer="x", decode=lambda incoming: incoming.received("x", None)
    )
    with consuming(admin, subscription):
        until(lambda: len(tries) == 2, "it is back")


def test_every_type_of_message_has_a_queue_to_be_edited_for():
    found = {type_ for queue in topology.WORK_QUEUES for type_ in editing.types_for(queue)}
    assert set(EVENT_TYPES) - found <= {"email.undeliverable"}


def test_a_discarded_letter_is_gone_and_its_reason_kept(amqp_url, bus, books, db):
    messages = bury(amqp_url, order_created(), order_created())
    with pytest.raises(ValueError, match="reason"):
        actions.discard(bus, books, INTAKE, Criteria(), ADA, "  ")
    wanted = Criteria(ids=frozenset({messages[0].message_id}))
    assert actions.discard(bus, books, INTAKE, wanted, ADA, "A test order.").done == 1
    assert ids(search.browse(bus, INTAKE)) == [messages[1].message_id]
    assert depth(amqp_url, INTAKE.name) == 0
    (fact,) = facts(db, "ops.dead_letter_discarded")
    assert (fact.message_id, fact.reason) == (messages[0].message_id, "A test order.")


def test_every_other_one_of_many_goes_and_stays_gone(amqp_url, bus, books):
    for _ in range(20):
        for reason in ("Malformed: a", "Malformed: b"):
            bury(amqp_url, *(order_created() for _ in range(15)), reason=reason)
    wanted = Criteria(reason="Malformed: a")
    assert actions.discard(bus, books, INTAKE, wanted, ADA, "A test.").done == 300
    until(lambda: depth(amqp_url, INTAKE.dead) == 300, "all are back")
    assert search.browse(bus, INTAKE, wanted).letters == ()


def test_what_a_loaded_queue_forgets_is_acknowledged_again(amqp_url, bus, books, db, monkeypatch):
    """A quorum queue puts off what it cannot take at once, and forgets it with the channel."""
    bury(amqp_url, *(order_created() for _ in range(20)))
    settle, times = QueueHold.settle, []

    def forgetful(held, tags):
        tags = sorted(tags)
        settle(held, tags if times else tags[:15])
        held._settled += 0 if times else 5
        times.append(len(tags))

    monkeypatch.setattr(QueueHold, "settle", forgetful)
    assert actions.replay(bus, books, INTAKE, Criteria(), ADA).done == 20
    assert times == [20, 5]
    assert depth(amqp_url, INTAKE.dead) == 0
    assert depth(amqp_url, INTAKE.name) == 20
    assert len(facts(db, "ops.dead_letter_replayed")) == 20


def test_who_has_letters_in_hand_without_the_meeting_place_is_seen_by_the_broker(amqp_url, bus):
    """As another's tool, while the database where they would meet is away."""
    (message,) = bury(amqp_url, order_created())
    with Connection(amqp_url) as other:
        channel = other.channel()
        came = []
        channel.basic_consume(INTAKE.dead, callback=came.append)
        until(lambda: came or other.drain_events(timeout=PATIENCE) or came, "it has it in hand")
        with pytest.raises(hold.BusyError):
            search.find(bus, INTAKE, message.message_id)
        assert not search.browse(bus, INTAKE).alone
    until(lambda: depth(amqp_url, INTAKE.dead) == 1, "it is back")
    assert search.find(bus, INTAKE, message.message_id) is not None
    assert search.browse(bus, INTAKE).alone


def test_nothing_is_done_that_cannot_be_audited(amqp_url, bus, books, engine):
    bury(amqp_url, order_created())
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE outbox RENAME TO outbox_away"))
    with pytest.raises(Exception, match="outbox"):
        actions.discard(bus, books, INTAKE, Criteria(), ADA, "Never.")
    until(lambda: depth(amqp_url, INTAKE.dead) == 1, "it is back")


def test_a_queue_that_is_slow_for_a_moment_has_nothing_less_in_it(amqp_url, bus, books, broker):
    """What does not come for a while is not in somebody else's hand."""
    bury(amqp_url, *(order_created() for _ in range(300)))
    with hold.hold(bus, INTAKE.dead, 100) as held:
        first = held.take(100)
        with stuck(broker, amqp_url, INTAKE.dead):
            threading.Timer(3, lambda: resume(broker, amqp_url, INTAKE.dead)).start()
            held.settle(message.delivery_info["delivery_tag"] for message in first)
            second = held.take(100)
        assert (len(first), len(second), held.remaining) == (100, 100, 200)
        # The window is full: what is behind it does not come, and is not waited for.
        assert held.take(100) == []
    until(lambda: depth(amqp_url, INTAKE.dead) == 200, "the rest is back")


@pytest.mark.timeout(600)
def test_ten_thousand_killed_in_the_middle_lose_and_double_nothing(
    settings, amqp_url, database_url, bus, books, db, configure
):
    orders = [order_created() for _ in range(10_000)]
    bury(amqp_url, *orders)
    began = time.monotonic()
    assert len(search.browse(bus, INTAKE).letters) == 100
    print(f"a page of 10,000: {time.monotonic() - began:.2f} s")
    began = time.monotonic()
    assert search.summarise(bus, INTAKE).seen == 10_000
    print(f"a summary of 10,000: {time.monotonic() - began:.2f} s")
    command = (sys.executable, "-m", "services.ops", "dead", "replay", "orders.intake", "--all")
    environment = os.environ | {
        "AMQP_URL": settings.amqp_url,
        "DATABASE_URL": settings.database_url,
    }
    running = subprocess.Popen((*command, "--yes"), env=environment, stderr=subprocess.DEVNULL)

    def some_are_back():
        assert running.poll() is None, "it has ended"
        return depth(amqp_url, INTAKE.name) > 2_000

    until(some_are_back, "some are back", 240)
    running.send_signal(signal.SIGKILL)
    running.wait()

    def both():
        return depth(amqp_url, INTAKE.dead) + depth(amqp_url, INTAKE.name)

    until(lambda: both() >= 10_000, "what it held is back among the dead")
    assert depth(amqp_url, INTAKE.dead) > 0
    began = time.monotonic()
    assert subprocess.run((*command, "--yes"), env=environment, timeout=240).returncode == 0
    print(f"the rest: {time.monotonic() - began:.2f} s")
    assert depth(amqp_url, INTAKE.dead) == 0
    assert depth(amqp_url, INTAKE.name) >= 10_000
    admin = configure(amqp_url=amqp_url, database_url=database_url)
    with consuming(admin, *wire(admin).subscriptions):
        pass
    assert {id_ for (id_,) in db.query(Order.id)} == {order.order_id for order in orders}
    assert len({f.message_id for f in facts(db, "ops.dead_letter_replayed")}) == 10_000
    assert len(facts(db, "order.recorded")) == 10_000


def test_who_edits_what_another_has_begun_is_named_with_their_body(
    amqp_url, bus, books, db, monkeypatch
):
    """The first is broken off behind its fact; the letter is there yet."""
    (message,) = bury(amqp_url, order_created())
    settle = QueueHold.settle

    def die(*_):
        raise ConnectionError("it is gone")

    wanted = Criteria(ids=frozenset({message.message_id}))
    monkeypatch.setattr(QueueHold, "settle", die)
    with pytest.raises(ConnectionError):
        actions.replay(bus, books, INTAKE, wanted, ADA)
    monkeypatch.setattr(QueueHold, "settle", settle)
    until(lambda: depth(amqp_url, INTAKE.dead), "it is there yet")
    # Who begins the same again has told it.
    monkeypatch.setattr(QueueHold, "settle", die)
    with pytest.raises(ConnectionError):
        actions.replay(bus, books, INTAKE, wanted, ADA)
    monkeypatch.setattr(QueueHold, "settle", settle)
    until(lambda: depth(amqp_url, INTAKE.dead), "it is there yet")
    other = message.body.replace(b"kettle", b"teapot")
    ola = Actor("ola", "10.0.0.8")
    assert editing.edit(bus, books, INTAKE, message.message_id, other, ola)
    told = {row.message_id: row for row in db.query(OutboxMessage)}
    said = [decode(row.type, row.body) for row in told.values()]
    digest = hashlib.sha256(other).hexdigest()
    assert {(fact.by, fact.edited, fact.new_digest) for fact in said} == {
        ("ada", False, ""),
        ("ola", True, digest),
    }
    assert len(told) == 2
