"""The consumer runtime, on a real broker and a real database."""

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
from amqp import Channel
from kombu import Connection
from msgspec.structs import replace
from sqlalchemy import select, text

from shared.bus.broker import declaration
from shared.bus.consume import session
from shared.bus.consume.consumer import Consumer
from shared.bus.consume.receiving import sources
from shared.bus.consume.subscription import Subscription
from shared.bus.contract import topology
from shared.bus.contract.errors import Hold, Permanent, UnderWay
from shared.bus.contract.message import message_for
from shared.db.models import InboxEntry
from stack.folders import ROOT
from tests.integration.arrange import (
    PATIENCE,
    consuming,
    declare,
    depth,
    headers,
    in_shards,
    join,
    order_created,
    orders_of_shards,
    publish,
    publish_raw,
    take,
    until,
)
from tests.integration.gate import Gate
from tests.zygote.forks import spawn

QUEUE = topology.ORDERS_INTAKE


def messages(count):
    return [
        message_for(order_created(), source="tests", correlation_id="story") for _ in range(count)
    ]


def subscription(handle, **changes):
    return Subscription(queue=QUEUE, handle=handle, consumer="tests", **changes)


class Recorder:
    """Remembers what it was called with, and does what it is told."""

    def __init__(self, act=None):
        self.batches = []
        self.act = act

    def __call__(self, session, received):
        self.batches.append([str(m.id) for m in received])
        return self.act(session, received) if self.act else None

    @property
    def handled(self):
        return [id_ for batch in self.batches for id_ in batch]


def ready(settings):
    return depth(settings.amqp_url, QUEUE.name)


def test_messages_are_handled_in_batches_and_acknowledged(settings, db):
    sent = messages(201)  # the first is handled alone
    publish(settings.amqp_url, *sent)
    recorder = Recorder()
    with consuming(settings, subscription(recorder, batch_size=100, batch_seconds=5.0)):
        until(lambda: len(recorder.handled) == len(sent), "all handled")
    assert sorted(recorder.handled) == sorted(m.message_id for m in sent)
    assert max(map(len, recorder.batches)) == 100
    assert len(db.scalars(select(InboxEntry)).all()) == len(sent)


def test_a_batch_of_large_messages_is_bounded_by_its_bytes(settings, monkeypatch):
    monkeypatch.setattr(session, "MAX_BATCH_BYTES", 10_000)
    sent = [replace(one, body=one.body + b" " * 4_000) for one in messages(41)]
    publish(settings.amqp_url, *sent)
    recorder = Recorder()
    with consuming(settings, subscription(recorder, batch_size=100, batch_seconds=0.5)):
        until(lambda: len(recorder.handled) == len(sent), "all handled")
    assert max(map(len, recorder.batches)) == 2
    assert recorder.handled == [message.message_id for message in sent]


def test_a_redelivery_has_no_effect(settings):
    sent = messages(3)
    recorder = Recorder()
    with consuming(settings, subscription(recorder)):
        for _ in range(3):
            publish(settings.amqp_url, *sent, *sent)
        until(lambda: len(set(recorder.handled)) == 3, "all handled")
        until(lambda: ready(settings) == 0, "queue empty")
    assert sorted(recorder.handled) == sorted(m.message_id for m in sent)


@pytest.mark.usefixtures("retried_late")
def test_a_poison_message_harms_no_neighbour(settings):
    sent = messages(20)
    poison = sent[7].message_id

    def act(session, received):
        if any(str(m.id) == poison for m in received):
            raise ZeroDivisionError("poison")

    done = Recorder()

    def handle(session, received):
        act(session, received)
        return done(session, received)

    publish(settings.amqp_url, *sent)
    with consuming(settings, subscription(handle, batch_size=20)):
        until(lambda: len(done.handled) == 19, "the neighbours are done")
        until(lambda: waiting_in_ladder(settings) == 1, "the poison is in the ladder")
    assert poison not in done.handled
    copy = until(lambda: from_ladder(settings), "its copy")
    assert copy.properties["message_id"] == poison
    assert headers(copy)["x-attempt"] == 1
    assert headers(copy)["x-reason"] == "ZeroDivisionError: poison"


@pytest.mark.usefixtures("retried_late")
def test_what_the_database_can_never_hold_is_poison_and_no_outage(settings):
    """psycopg2 calls a limit of the program an OperationalError, as it does a lost connection."""
    sent = messages(20)
    poison = sent[7].message_id
    done = Recorder()

    def handle(session, received):
        if any(str(m.id) == poison for m in received):
            session.execute(
                text("SELECT CAST(repeat('[', 9999999) || repeat(']', 9999999) AS json)")
            )
        return done(session, received)

    publish(settings.amqp_url, *sent)
    with consuming(settings, subscription(handle, batch_size=20)):
        until(lambda: len(done.handled) == 19, "the neighbours are done")
        until(lambda: waiting_in_ladder(settings) == 1, "the poison is in the ladder")
    assert "StatementTooComplex" in headers(from_ladder(settings))["x-reason"]


def waiting_in_ladder(settings):
    return sum(depth(settings.amqp_url, rung.name) for rung in topology.RETRY_DELAYS)


def from_ladder(settings):
    for rung in topology.RETRY_DELAYS:
        found = take(settings.amqp_url, rung.name)
        if found is not None:
            return found
    return None


def test_a_failure_that_is_named_spares_the_batch(settings, engine):
    sent = messages(5)
    refused = sent[2].message_id

    def act(session, received):
        session.execute(text("CREATE TABLE IF NOT EXISTS trace (id text)"))
        for m in received:
            session.execute(text("INSERT INTO trace VALUES (:id)"), {"id": str(m.id)})
        return {m.id: Permanent("no such customer") for m in received if str(m.id) == refused}

    publish(settings.amqp_url, *sent)
    with consuming(settings, subscription(act, batch_size=5, batch_seconds=1.0)):
        until(lambda: depth(settings.amqp_url, QUEUE.dead) == 1, "the refused one is dead")
        until(lambda: ready(settings) == 0, "queue empty")
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM trace")).scalar() == 5
        inbox = {str(id_) for id_ in connection.execute(select(InboxEntry.message_id)).scalars()}
    assert inbox == {m.message_id for m in sent} - {refused}
    dead = take(settings.amqp_url, QUEUE.dead)
    assert headers(dead)["x-reason"] == "Permanent: no such customer"
    assert dead.properties["message_id"] == refused


@pytest.mark.parametrize(
    ("body", "properties", "reason"),
    [
        (b"not json", {"type": "order.created"}, "The body is not JSON"),
        (b"{}", {"type": "order.created"}, "$.order_id is missing"),
        (b"{}", {"type": "order.exploded"}, "unknown message type"),
        (b"{}", {}, "no type property"),
        (b"\xff\xfe", {"type": "order.created"}, "Malformed"),
        (b"", {"type": "order.created"}, "The body is empty"),
    ],
)
def test_what_cannot_be_understood_is_dead_at_once(settings, body, properties, reason):
    publish_raw(settings.amqp_url, "intake", "order.created", body, **properties)
    recorder = Recorder()
    with consuming(settings, subscription(recorder)):
        until(lambda: depth(settings.amqp_url, QUEUE.dead) == 1, "dead letter")
    assert recorder.handled == []
    dead = take(settings.amqp_url, QUEUE.dead)
    assert reason in headers(dead)["x-reason"]
    assert dead.body in (body, body.decode(errors="ignore"))


@pytest.mark.usefixtures("retried_soon")
def test_a_retry_comes_back_by_the_ladder(settings):
    (message,) = messages(1)
    attempts = []

    def act(session, received):
        attempts.append(received[0].attempt)
        if len(attempts) == 1:
            raise ValueError("not yet")

    publish(settings.amqp_url, message)
    with consuming(settings, subscription(act)):
        until(lambda: len(attempts) == 2, "it came back")
        until(lambda: ready(settings) == 0, "queue empty")
    assert attempts == [0, 1]


def test_the_end_of_the_ladder_is_the_dead_queue(settings):
    from shared.bus.consume.retry import MAX_ATTEMPTS

    message = messages(1)[0]
    publish_raw(
        settings.amqp_url,
        "intake",
        "order.created",
        message.body,
        type=message.type,
        message_id=message.message_id,
        application_headers=message.headers()
        | {"x-attempt": MAX_ATTEMPTS, "x-reasons": [f"then {i}" for i in range(10)]}
        | {"x-replay": "done"},
    )

    def act(session, received):
        raise ValueError("never")

    with consuming(settings, subscription(act)):
        until(lambda: depth(settings.amqp_url, QUEUE.dead) == 1, "dead letter")
    dead = take(settings.amqp_url, QUEUE.dead)
    assert headers(dead)["x-attempt"] == MAX_ATTEMPTS + 1
    assert "x-first-failed-at" in headers(dead)
    # Why each attempt failed, of the last ten.
    assert headers(dead)["x-reasons"][0] == "then 1"
    assert headers(dead)["x-reasons"][-1].endswith(" ValueError: never")
    assert len(headers(dead)["x-reasons"]) == 10
    # A stranger's: on the way back it would be believed.
    assert "x-replay" not in headers(dead)


def test_a_held_batch_burns_nothing(settings):
    sent = messages(4)
    calls = []

    def act(session, received):
        calls.append(len(received))
        if len(calls) < 3:
            raise Hold("the mail server is away")

    publish(settings.amqp_url, *sent)
    with consuming(settings, subscription(act, batch_seconds=0.5)):
        until(lambda: len(calls) >= 3, "it was tried again")
        until(lambda: ready(settings) == 0, "queue empty")
    assert waiting_in_ladder(settings) == 0
    assert depth(settings.amqp_url, QUEUE.dead) == 0


@contextmanager
def two_in_order(settings, configure, handle):
    """Two processes that consume in order, of which the first has its turn by the gate.

    Yields what begins the second, as it is configured, the gate, and the first one's standing.
    """
    stopping, threads = threading.Event(), []

    def begin(config, name):
        asked = subscription(partial(handle, name), in_order=True)
        consumer = Consumer(config.amqp_url, config.amqp_heartbeat, asked, stopping)
        threads.append(threading.Thread(target=consumer.run, daemon=True))
        threads[-1].start()
        return consumer

    for text_ in ("one", "two"):
        body = message_for(order_created(item_summary=text_), source="tests", correlation_id="x")
        publish_raw(settings.amqp_url, "intake", "order.created", body.body, type="order.created")
    with Gate(settings.amqp_url) as gate:
        first = begin(configure(amqp_url=gate.url), "first")
        try:
            yield partial(begin, name="second"), gate, first.standing
        finally:
            stopping.set()
            join(threads)


def test_who_has_lost_the_broker_tries_nothing_that_it_had_in_hand(settings, configure):
    """Without an id nothing would tell that another has done it, and what came behind it, since."""
    done, held, is_away = [], threading.Event(), threading.Event()
    is_away.set()

    def handle(name, session, received):
        if name == "first" and is_away.is_set():
            held.set()
            raise Hold("the mail server is away")
        done.extend((name, m.data.item_summary) for m in received)

    with two_in_order(settings, configure, handle) as (begin_second, gate, standing):
        assert held.wait(PATIENCE)
        gate.cut()
        until(lambda: not standing.status.is_well, "it has lost the broker")
        begin_second(settings)
        until(lambda: len(done) == 2, "the other one does both")
        is_away.clear()
        gate.open()
        until(lambda: standing.status.state == "working", "it waits for its turn")
    assert done == [("second", "one"), ("second", "two")]


def test_whose_turn_it_is_waits_for_what_the_last_one_is_amid(settings, configure):
    """What it commits then would else not be seen by who is to tell that it comes again."""
    done, amid, may_go_on = [], threading.Event(), threading.Event()

    def handle(name, session, received):
        if name == "first":
            amid.set()
            assert may_go_on.wait(PATIENCE)
        done.extend((name, m.data.item_summary, m.is_repeat) for m in received)

    with two_in_order(settings, configure, handle) as (begin_second, gate, standing):
        assert amid.wait(PATIENCE)
        gate.cut()
        until(lambda: not standing.status.is_well, "it has lost the broker")
        second = begin_second(settings)
        until(lambda: second.standing.status.is_well, "the other one waits for its turn")
        asked = second.last_turn
        until(lambda: done or second.last_turn > asked + 1, "and has asked for it")
        assert done == []
        may_go_on.set()
        until(lambda: len(done) == 3, "both are done")
    assert done == [("first", "one", False), ("second", "one", True), ("second", "two", False)]


def test_who_waits_for_its_turn_holds_up_nobody_while_its_broker_is_silent(
    settings, configure, engine
):
    """Its node may be frozen, or its host: who works would be late by all that time."""
    done = []

    def handle(name, session, received):
        done.extend(name for _ in received)

    with (
        two_in_order(settings, configure, handle) as (begin_second, _, _),
        Gate(settings.amqp_url) as gate,
    ):
        until(lambda: len(done) == 2, "the first has its turn")
        second = begin_second(configure(amqp_url=gate.url))
        until(lambda: second.standing.status.is_well, "the second waits for its own")
        gate.stall()
        until(lambda: time.monotonic() - second.last_turn > 2, "it has asked, and has no answer")
        with engine.connect() as looker:
            assert looker.scalar(ALONE) == 0
        publish(settings.amqp_url, *messages(1))
        until(lambda: len(done) == 3, "the first goes on")
        gate.open()
    assert done == ["first"] * 3


ALONE = text("""
    SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND mode = 'ExclusiveLock'
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
""")


@pytest.fixture
def commits(engine):
    """Commits of turns end while it is set, as of a server whose synchronous standby is there."""
    may_end = threading.Event()
    with engine.begin() as connection:
        connection.execute(WAITS_TO_COMMIT)
    with engine.connect() as holder:
        holder.execute(text("SELECT pg_advisory_lock(7)"))
        letting = threading.Thread(
            target=lambda: (
                may_end.wait(),
                holder.execute(text("SELECT pg_advisory_unlock(7)")),
            ),
            daemon=True,
        )
        letting.start()
        yield may_end
        may_end.set()
        join([letting])
    with engine.begin() as connection:
        connection.execute(text("DROP FUNCTION wait_to_commit() CASCADE"))


WAITS_TO_COMMIT = text("""
    CREATE FUNCTION wait_to_commit() RETURNS trigger LANGUAGE plpgsql AS
    'BEGIN PERFORM pg_advisory_xact_lock_shared(7); RETURN NULL; END';
    CREATE CONSTRAINT TRIGGER wait_to_commit AFTER INSERT ON inbox DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW WHEN (NEW.consumer LIKE '%turn of%') EXECUTE FUNCTION wait_to_commit()
""")
COMMITTING = text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")


def test_nothing_is_taken_before_its_turn_is_committed(settings, engine, commits):
    """Which may take for as long as a synchronous standby is away; the connection stays."""
    stopping, attempts = threading.Event(), []
    consumer = Consumer(
        settings.amqp_url,
        settings.amqp_heartbeat,
        subscription(lambda _, them: attempts.extend(them), in_order=True),
        stopping,
    )
    publish(settings.amqp_url, *messages(1))
    thread = threading.Thread(target=consumer.run, daemon=True)
    thread.start()
    try:
        with engine.connect() as looker:
            until(lambda: looker.scalar(COMMITTING), "it commits")
            began = consumer.last_turn
            until(lambda: consumer.last_turn > began + 1, "it goes on turning", 10)
        assert (ready(settings), attempts) == (1, [])
        commits.set()
        until(lambda: consumer.handled == 1, "it is handled")
    finally:
        commits.set()
        stopping.set()
        join([thread])


def test_what_is_under_way_stays_in_hand_and_holds_up_nobody(settings, broker, engine):
    sent = messages(60)
    slow, known = sent[3].message_id, threading.Event()

    def act(session, received):
        ids = [m.id for m in received]
        return {
            id_: UnderWay("it thinks") for id_ in ids if str(id_) == slow and not known.is_set()
        }

    recorder = Recorder(act)
    publish(settings.amqp_url, *sent)
    with consuming(settings, subscription(recorder, batch_size=20)) as consumers:
        until(lambda: len(inbox(engine)) == 59, "the others are done")
        asked = recorder.handled.count(slow)
        until(lambda: recorder.handled.count(slow) > asked, "it is asked about again")
        assert consumers[0].unacknowledged == 1
        # It comes again with a new connection, and nothing else does.
        broker.control("close_all_connections", f"--vhost={vhost(settings)}", "a test")
        publish(settings.amqp_url, *messages(1))
        until(lambda: len(inbox(engine)) == 60, "what came later is done")
        assert slow not in inbox(engine)
        known.set()
        until(lambda: slow in inbox(engine), "it is known")
    assert {recorder.handled.count(m.message_id) for m in sent} - {1} == {
        recorder.handled.count(slow)
    }
    assert waiting_in_ladder(settings) == depth(settings.amqp_url, QUEUE.dead) == 0


def inbox(engine):
    with engine.connect() as connection:
        return {str(id_) for id_ in connection.scalars(select(InboxEntry.message_id))}


def test_what_a_stop_gives_back_is_not_acknowledged_with_what_came_after_it(settings):
    """A stop in the middle of a batch, while the next one waits already."""
    stopping, done = threading.Event(), Recorder()

    def handle(session, received):
        if len(received) == 1 or stopping.is_set():
            return done(session, received)
        stopping.set()
        done(session, received[:2])
        return {message.id: Hold("the process stops") for message in received[2:]}

    publish(settings.amqp_url, *messages(60))
    consumer = Consumer(
        settings.amqp_url, settings.amqp_heartbeat, subscription(handle, batch_size=10), stopping
    )
    consumer.run()
    until(lambda: ready(settings) == 60 - len(done.handled), "all that was not done is back")


def test_a_lost_database_connection_burns_nothing(settings, engine):
    sent = messages(10)
    calls = []

    def act(session, received):
        calls.append(len(received))
        if len(calls) == 1:
            mine = session.execute(text("SELECT pg_backend_pid()")).scalar()
            with engine.connect() as other:
                other.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": mine})
            session.execute(text("SELECT 1"))

    publish(settings.amqp_url, *sent)
    with consuming(settings, subscription(act, batch_size=10, batch_seconds=0.5)):
        until(lambda: sum(calls[1:]) >= 10, "it was tried again")
        until(lambda: ready(settings) == 0, "queue empty")
    assert waiting_in_ladder(settings) == 0
    assert depth(settings.amqp_url, QUEUE.dead) == 0


def test_a_connection_closed_by_the_broker_loses_nothing(settings, broker):
    sent = messages(300)
    recorder = Recorder(lambda session, received: time.sleep(0.02))
    publish(settings.amqp_url, *sent)
    with consuming(settings, subscription(recorder, batch_size=20)):
        until(lambda: len(recorder.handled) >= 40, "some are handled")
        broker.control("close_all_connections", f"--vhost={vhost(settings)}", "a test")
        until(lambda: len(set(recorder.handled)) == 300, "all are handled")
        until(lambda: ready(settings) == 0, "queue empty")
    assert len(recorder.handled) == 300


def vhost(settings):
    return settings.amqp_url.rpartition("/")[2]


@pytest.mark.parametrize("waiting", [1, 300], ids=["alone", "with a full prefetch behind it"])
def test_heartbeats_go_on_while_a_handler_is_busy(settings, configure, broker, waiting):
    config = configure(amqp_heartbeat="5")
    busy, done = threading.Event(), threading.Event()

    def act(session, received):
        # The first batch is of one, after which a full prefetch is asked for.
        if (waiting == 1 or len(received) > 1) and not busy.is_set():
            busy.set()
            time.sleep(16)  # more than three heartbeats: a silent peer is hung up on after two
            done.set()

    publish(settings.amqp_url, *messages(waiting))
    with consuming(config, subscription(act, batch_size=50)):
        assert busy.wait(PATIENCE)
        before = connections(broker, settings)
        assert done.wait(PATIENCE)
        assert connections(broker, settings) == before != []


def test_no_tag_is_used_twice_on_a_channel(settings, monkeypatch):
    """It crashes the channel on 3.10, with what is in hand (rabbitmq-server 5927)."""
    consume, used = Channel.basic_consume, []

    def noting(channel, *given, **named):
        used.append((id(channel.connection), channel.channel_id, named["consumer_tag"]))
        return consume(channel, *given, **named)

    monkeypatch.setattr(Channel, "basic_consume", noting)
    recorder = Recorder()
    publish(settings.amqp_url, *messages(20))
    with consuming(settings, subscription(recorder)):
        until(lambda: len(recorder.handled) == 20, "handled")
    assert len(used) == len(set(used)) == 2


def connections(broker, settings):
    listed = broker.control("list_connections", "vhost", "pid").splitlines()
    return sorted(line for line in listed if line.split("\t")[0] == vhost(settings))


def test_a_suspicious_message_is_handled_alone(settings):
    """What was delivered again and again may kill its consumer: it must not share a batch."""
    sent = messages(6)
    publish(settings.amqp_url, *sent)
    with Connection(settings.amqp_url) as connection:
        channel = connection.default_channel
        channel.basic_qos(0, 1, False)
        for _ in range(4):
            found = channel.basic_get(QUEUE.name)
            channel.basic_reject(found.delivery_tag, requeue=True)
    recorder = Recorder()
    with consuming(settings, subscription(recorder, batch_size=6, batch_seconds=0.5)):
        until(lambda: len(recorder.handled) == 6, "all handled")
    assert [sent[0].message_id] in recorder.batches


SHARDS = [QUEUE.name, *(queue.name for queue in topology.shards(4))]


@pytest.mark.parametrize("known", [1, 2, 4])
def test_all_shards_that_there_are_are_consumed(settings, known):
    """What was accepted before somebody made them fewer is recorded all the same."""
    declare(settings.amqp_url, 4)
    sent = orders_of_shards(4, each=30)
    publish(settings.amqp_url, *in_shards(4, sent))
    recorder = Recorder()
    with consuming(settings, subscription(recorder, shards=known, batch_size=50)):
        until(lambda: len(recorder.handled) == len(sent), "all handled")
        until(lambda: [depth(settings.amqp_url, name) for name in SHARDS] == [0] * 4, "empty")
    assert sorted(recorder.handled) == sorted(m.message_id for m in sent)


def test_what_waits_is_handled_once_while_shards_become_more_and_fewer(settings):
    """Whoever publishes knows another number than whoever consumes, at each moment."""
    recorder, sent = Recorder(), []

    def send(shards):
        messages = orders_of_shards(4, each=5)
        publish(settings.amqp_url, *in_shards(shards, messages))
        sent.extend(messages)

    send(1)
    declare(settings.amqp_url, 4)
    send(4)
    send(1)
    with consuming(settings, subscription(recorder, shards=4)):
        send(4)
        assert declare(settings.amqp_url, 2) == SHARDS[2:]
        send(2)
        until(lambda: len(recorder.handled) == len(sent), "all handled")
    send(2)
    with consuming(settings, subscription(recorder, shards=2)):
        until(lambda: len(recorder.handled) == len(sent), "all handled")
        with Connection(settings.amqp_url) as connection:
            for name in reversed(SHARDS[2:]):
                connection.default_channel.queue_delete(name)
        send(2)
        until(lambda: len(recorder.handled) == len(sent), "it goes on")
    assert sorted(recorder.handled) == sorted(m.message_id for m in sent)
    with Connection(settings.amqp_url) as connection:
        assert declaration.parts(connection, QUEUE) == SHARDS[:2]


def test_shards_that_are_declared_late_are_found(settings, monkeypatch):
    """Recorders may be started before the deployment's step has ended."""
    monkeypatch.setattr(sources, "LOOK_SECONDS", 0.1)
    recorder, sent = Recorder(), orders_of_shards(4, each=20)
    publish(settings.amqp_url, *messages(30))
    stopping = threading.Event()
    consumer = Consumer(settings.amqp_url, 30, subscription(recorder, shards=4), stopping)
    thread = threading.Thread(target=consumer.run, daemon=True)
    thread.start()
    try:
        until(lambda: len(recorder.handled) == 30, "what is there is handled")
        declare(settings.amqp_url, 4)
        publish(settings.amqp_url, *in_shards(4, sent))
        until(lambda: len(recorder.handled) == 110, "and what came later")
    finally:
        stopping.set()
        join([thread])


@pytest.mark.usefixtures("retried_late")
def test_what_failed_in_a_shard_waits_for_the_queue_itself(settings):
    """So a shard can go while the ladder has something of it."""
    declare(settings.amqp_url, 2)
    _, poison = orders_of_shards(2)
    publish(settings.amqp_url, *in_shards(2, [poison]))

    def act(session, received):
        raise ZeroDivisionError("poison")

    with consuming(settings, subscription(act, shards=2)):
        until(lambda: waiting_in_ladder(settings) == 1, "the poison is in the ladder")
    copy = from_ladder(settings)
    assert copy.delivery_info["routing_key"] == QUEUE.name
    assert copy.properties["message_id"] == poison.message_id
    assert headers(copy)["x-queue"] == QUEUE.name


def test_what_is_tried_at_the_start_has_no_other_shards_message_beside_it(settings):
    """What kills its consumer costs nobody else a delivery."""
    declare(settings.amqp_url, 4)
    sent = orders_of_shards(4, each=3)
    publish(settings.amqp_url, *in_shards(4, sent))
    in_hand, made = [], []

    def act(session, received):
        (consumer,) = until(lambda: made, "begun")
        in_hand.append((len(received), consumer.unacknowledged))

    with consuming(settings, subscription(act, shards=4, batch_size=50)) as consumers:
        made.extend(consumers)
        until(lambda: sum(count for count, _ in in_hand) == 12, "all handled")
    assert in_hand[:4] == [(1, 1)] * 4


def test_what_waits_in_one_shard_alone_is_taken_by_the_batch(settings):
    """All that an account sends is in one: of a prefetch by the shard it would get a part."""
    declare(settings.amqp_url, 4)
    sent = orders_of_shards(4, each=201)[201:402]
    publish(settings.amqp_url, *in_shards(4, sent))
    recorder = Recorder()
    asked = subscription(recorder, shards=4, batch_size=50, batch_seconds=0.5)
    with consuming(settings, asked) as consumers:
        until(lambda: len(recorder.handled) == 201, "all handled")
        until(lambda: set(consumers[0].reached_in) == {SHARDS[1]}, "it says how far it is")
    assert [len(batch) for batch in recorder.batches].count(50) >= 3


def test_shards_that_are_found_while_something_is_in_hand_are_tried_one_by_one(
    settings, monkeypatch
):
    """What kills its consumer costs nobody else a delivery, whenever it is found."""
    ask, looked, go_on = declaration.parts, threading.Event(), threading.Event()
    made, where, first, handled = [], {}, {}, []

    def parts(*given):
        found = ask(*given)
        if len(found) == 4:
            looked.set()
        return found

    def act(session, received):
        (consumer,) = until(lambda: made, "begun")
        for message in received:
            first.setdefault(where.get(str(message.id)), (len(received), consumer.unacknowledged))
        handled.extend(received)
        if len(received) > 1:
            assert go_on.wait(PATIENCE)

    # Not amid the declaration, which goes by `parts` itself.
    monkeypatch.setattr(sources, "LOOK_SECONDS", 1e9)
    monkeypatch.setattr(declaration, "parts", parts)
    publish(settings.amqp_url, *messages(30))
    with consuming(settings, subscription(act, shards=4, batch_size=50)) as consumers:
        made.extend(consumers)
        until(lambda: consumers[0].unacknowledged == 29, "in hand")
        declare(settings.amqp_url, 4)
        sent = in_shards(4, orders_of_shards(4, each=3)[3:])
        where |= {message.message_id: message.routing_key for message in sent}
        publish(settings.amqp_url, *sent)
        looked.clear()
        monkeypatch.setattr(sources, "LOOK_SECONDS", 0.0)
        assert looked.wait(PATIENCE)
        time.sleep(0.5)  # for what would come
        assert consumers[0].unacknowledged == 29
        go_on.set()
        until(lambda: len(handled) == 39, "all handled")
    assert [first[name] for name in SHARDS[1:]] == [(1, 1)] * 3


def test_a_message_that_has_no_business_there_is_refused_in_a_shard_too(settings, db):
    """By CC whoever may publish reaches any queue; the keys of a shard say nothing for it."""
    declare(settings.amqp_url, 2)
    (_, shard), recorder = SHARDS[:2], Recorder()
    with Connection(settings.amqp_url) as connection:
        connection.default_channel.queue_bind(shard, "commands", "kyc.decide")
    publish_raw(settings.amqp_url, "commands", "kyc.decide", b"{}", type="order.created")
    with consuming(settings, subscription(recorder, shards=2)):
        until(lambda: depth(settings.amqp_url, QUEUE.dead) == 1, "refused")
    assert recorder.handled == []
    assert "none of orders.intake's" in headers(take(settings.amqp_url, QUEUE.dead))["x-reason"]


@pytest.fixture
def child(settings, engine):
    """A consumer in a process of its own, which writes each message it handles into a table."""
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE trace (id text)"))
    running = []

    def start(**environment):
        given = {
            "AMQP_URL": settings.amqp_url,
            "DATABASE_URL": settings.database_url,
            "HANDLER_SECONDS": "0.02",
        }
        process = spawn(
            (sys.executable, "-m", "tests.integration.bus.traced_consumer"),
            environment=os.environ | given | environment,
            log=Path(os.devnull),
            directory=ROOT,
        )
        running.append(process)
        return process

    yield start
    for process in running:
        process.kill()
        process.wait()


def traces(engine):
    with engine.connect() as connection:
        return sorted(connection.execute(text("SELECT id FROM trace")).scalars())


def test_killed_consumers_lose_and_double_nothing(settings, engine, child):
    sent = messages(600)
    publish(settings.amqp_url, *sent)
    for _ in range(4):
        before = len(traces(engine))
        process = child()
        until(lambda before=before: len(traces(engine)) > before, "progress")
        process.kill()
        process.wait()
    child()
    until(lambda: len(traces(engine)) >= 600, "all handled")
    assert traces(engine) == sorted(m.message_id for m in sent)


@pytest.mark.parametrize("handler_seconds", ["0.02", "2"])
def test_sigterm_ends_cleanly_in_the_middle(settings, engine, child, handler_seconds):
    publish(settings.amqp_url, *messages(200))
    process = child(HANDLER_SECONDS=handler_seconds)
    until(lambda: depth(settings.amqp_url, QUEUE.name) < 200, "it is at work")
    process.send_signal(signal.SIGTERM)
    assert process.wait(PATIENCE) == 0
    # What it had in hand is back only when the broker has seen its connection end.
    until(lambda: len(traces(engine)) + ready(settings) == 200, "the rest is back, each once")


def test_sigterm_ends_a_consumer_whose_broker_is_away(child, tmp_path):
    file = tmp_path / "health"
    process = child(AMQP_URL="amqp://guest:guest@127.0.0.1:1/", HEALTH_FILE=str(file))
    until(lambda: file.exists() and "is away" in file.read_text(), "it has tried")
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert process.wait(PATIENCE) == 0


def test_a_bad_configuration_is_one_sentence(child, settings):
    done = subprocess.run(
        [sys.executable, "-m", "services.kyc"],
        env=os.environ | {"AMQP_HEARTBEAT": "often"},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 2
    assert "AMQP_HEARTBEAT" in done.stderr
    assert "Traceback" not in done.stderr
