"""The consumer runtime, on a real broker and a real database."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from amqp import Channel
from kombu import Connection
from sqlalchemy import select, text

from shared.bus.consume.consumer import Consumer
from shared.bus.consume.subscription import Subscription
from shared.bus.contract import topology
from shared.bus.contract.errors import Hold, Permanent, UnderWay
from shared.bus.contract.message import message_for
from shared.db.models import InboxEntry
from stack.folders import ROOT
from tests.integration.arrange import (
    PATIENCE,
    consuming,
    depth,
    headers,
    order_created,
    publish,
    publish_raw,
    take,
    until,
)
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
    return sum(depth(settings.amqp_url, rung.name) for rung in topology.RETRY_LADDER)


def from_ladder(settings):
    for rung in topology.RETRY_LADDER:
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
