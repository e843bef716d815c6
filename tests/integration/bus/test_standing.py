"""A process is healthy when it is admitted, declared and at work; all that tells of it agrees."""

import asyncio
import os
import subprocess
import threading
from contextlib import contextmanager

import psycopg2
import pytest
from kombu import Connection
from prometheus_client import REGISTRY
from sqlalchemy import text
from sqlalchemy.exc import OperationalError
from structlog.testing import capture_logs

from services.ingress.credentials.feed import SecretFeed
from services.ops.monitoring import heartbeats
from services.ops.monitoring.alerts import troubles
from services.ops.monitoring.queue_stats import Sample
from shared import health, service
from shared.bus.consume import session
from shared.bus.consume.consumer import Consumer
from shared.bus.consume.subscription import Subscription
from shared.bus.contract import topology
from shared.bus.contract.errors import Hold
from shared.bus.publish.publisher import Publisher
from shared.db.session import transaction
from shared.telemetry import heartbeat
from stack.folders import ROOT
from stack.servers.credentials import as_service
from tests.integration.arrange import PATIENCE, depth, publish, until
from tests.integration.bus.test_consumer import messages
from tests.integration.gate import Gate

QUEUE = topology.ORDERS_INTAKE


def nothing(_session, _messages):
    return None


@contextmanager
def consumer(url, handle=nothing):
    """One that runs, whatever becomes of it."""
    stopping = threading.Event()
    made = Consumer(url, 10, Subscription(queue=QUEUE, handle=handle, consumer="tests"), stopping)
    thread = threading.Thread(target=made.run, daemon=True)
    thread.start()
    try:
        yield made
    finally:
        stopping.set()
        thread.join(PATIENCE)
        assert not thread.is_alive()


def becomes(standing, state):
    until(lambda: standing.status.state == state, f"{standing.part} {state}")


def container_check(tmp_path, *standings):
    """What the container's check says: its exit code, and its sentences."""
    path = tmp_path / "health"
    health.beat(str(path), standings)
    done = subprocess.run(
        [str(ROOT / "deploy" / "alive")],
        env=os.environ | {"HEALTH_FILE": str(path)},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.stderr == ""
    return done.returncode, done.stdout


def metric(part):
    return REGISTRY.get_sample_value("fellow_working", {"part": part})


def found_by_ops(running, name="services.orders"):
    """What the console's banner and the doctor make of its heartbeat."""
    beat = service.heartbeat_of(heartbeat.HeartbeatWriter(name), [running])
    with transaction() as opened:
        beat(opened)
    with transaction() as opened:
        now = opened.connection().exec_driver_sql("SELECT clock_timestamp()").scalar_one()
        sample = Sample(at=now, beats=heartbeats.read(opened, now), broker_error="not asked")
    return [trouble for trouble in troubles([sample]) if QUEUE.name in trouble.text]


def of_another_version(url):
    with Connection(url) as connection:
        connection.default_channel.queue_delete(QUEUE.name)
        connection.default_channel.queue_declare(QUEUE.name, durable=True, auto_delete=False)
    return as_service(url, "orders")


def user_without_rights(url):
    return as_service(url, "kyc")


def wrong_password(url):
    return as_service(url, "orders").replace("@", "x@")


def missing_virtual_host(url):
    return as_service(url, "orders") + "-nowhere"


REFUSALS = [
    (wrong_password, "SERVICE_PASSWORDS"),
    (missing_virtual_host, "virtual host"),
    (user_without_rights, "lacks a right"),
    (of_another_version, "another version"),
]


@pytest.mark.parametrize(("arrange", "advice"), REFUSALS)
def test_a_consumer_that_is_refused_says_so_everywhere(settings, tmp_path, arrange, advice):
    with capture_logs() as logged, consumer(arrange(settings.amqp_url)) as running:
        becomes(running.standing, "refused")
        code, said = container_check(tmp_path, running.standing)
        troubles_ = found_by_ops(running)
        assert metric(QUEUE.name) == 0
    assert code == 1
    assert advice in said
    assert [trouble.level for trouble in troubles_] == ["down"]
    assert advice in troubles_[0].text
    errors = [entry for entry in logged if entry["log_level"] == "error"]
    # However often it tried.
    assert [entry["event"] for entry in errors] == ["refused_by_broker"]
    assert advice in errors[0]["reason"]


def test_a_consumer_at_work_is_healthy_and_one_without_a_broker_is_not(settings, tmp_path):
    gate = Gate(as_service(settings.amqp_url, "orders"))
    with gate, capture_logs() as logged, consumer(gate.url) as running:
        becomes(running.standing, "working")
        assert container_check(tmp_path, running.standing) == (0, "")
        assert found_by_ops(running) == []
        assert metric(QUEUE.name) == 1
        gate.cut()
        becomes(running.standing, "away")
        assert container_check(tmp_path, running.standing)[0] == 1
        assert metric(QUEUE.name) == 0
        gate.open()
        becomes(running.standing, "working")
        assert container_check(tmp_path, running.standing) == (0, "")
    # It is nobody's fault yet.
    assert "error" not in {entry["log_level"] for entry in logged}
    assert "connection_lost" in {entry["event"] for entry in logged}
    assert "working_again" in {entry["event"] for entry in logged}


def test_a_consumer_that_holds_a_batch_is_healthy_and_says_why(settings, tmp_path):
    back = threading.Event()

    def hold(_session, _messages):
        if not back.is_set():
            raise Hold("the mail server is away")

    with consumer(as_service(settings.amqp_url, "orders"), hold) as running:
        publish(settings.amqp_url, *messages(1))
        becomes(running.standing, "holding")
        assert container_check(tmp_path, running.standing) == (0, "")
        assert metric(QUEUE.name) == 1
        [trouble] = found_by_ops(running)
        assert (trouble.level, "the mail server is away" in trouble.text) == ("warning", True)
        back.set()
        becomes(running.standing, "working")
        assert found_by_ops(running) == []


def test_a_batch_that_does_not_end_is_said_everywhere(settings, db, tmp_path, monkeypatch):
    """As behind somebody's `LOCK TABLE`: no error is raised, and the heartbeat goes on."""
    monkeypatch.setattr(session, "LONG_SECONDS", 0.1)
    with consumer(as_service(settings.amqp_url, "orders")) as running:
        becomes(running.standing, "working")
        db.execute(text("LOCK TABLE inbox"))
        publish(settings.amqp_url, *messages(1))
        becomes(running.standing, "holding")
        assert container_check(tmp_path, running.standing) == (0, "")
        [trouble] = found_by_ops(running)
        assert trouble.level == "warning"
        assert "a statement waits for a lock" in trouble.text
        db.rollback()
        becomes(running.standing, "working")
        assert found_by_ops(running) == []


def test_nothing_is_held_when_the_database_is_back_and_the_message_itself_fails(settings):
    away = OperationalError("SELECT 1", {}, psycopg2.OperationalError("the server went away"))
    tries = [away, away, ValueError("never")]
    seen = []

    def handle(session, messages):
        seen.append(running.standing.status.state)
        raise tries[min(len(seen), len(tries)) - 1]

    with consumer(settings.amqp_url, handle) as running:
        publish(settings.amqp_url, *messages(1))
        ladder = [rung.name for rung in topology.RETRY_DELAYS]
        until(lambda: any(depth(settings.amqp_url, name) for name in ladder), "it has failed")
        assert seen[2] == "holding"
        becomes(running.standing, "working")


def test_what_an_older_version_wrote_into_its_heartbeat_is_read(settings, db):
    running = Consumer(
        settings.amqp_url,
        10,
        Subscription(queue=QUEUE, handle=nothing, consumer="tests"),
        threading.Event(),
    )
    assert found_by_ops(running) == []
    db.connection().exec_driver_sql(
        "UPDATE service_heartbeats SET queues = jsonb_build_object('orders.intake',"
        " jsonb_build_object('handled', 3, 'unacked', 0, 'retrying', 0, 'rate', 0.1))"
    )
    db.commit()
    now = db.connection().exec_driver_sql("SELECT clock_timestamp()").scalar_one()
    [beat] = heartbeats.read(db, now)
    assert beat.queues[QUEUE.name].handled == 3
    assert not [t for t in troubles([Sample(at=now, beats=[beat])]) if "does not work" in t.text]


async def after(start, stop, standing, state):
    await start()
    try:
        while standing.status.state != state:  # noqa: ASYNC110 - no event of its own
            await asyncio.sleep(0.02)
        return standing.status.reason
    finally:
        await stop()


@pytest.mark.parametrize(("arrange", "advice"), REFUSALS[:2])
def test_a_publisher_that_is_refused_says_why(settings, arrange, advice):
    async def run():
        publisher = Publisher(
            arrange(settings.amqp_url),
            name="tests",
            max_outstanding=10,
            confirm_timeout=5,
            heartbeat=10,
        )
        return await after(publisher.start, publisher.stop, publisher.standing, "refused")

    assert advice in asyncio.run(run())


@pytest.mark.parametrize("user", ["ingress", "relay"])
def test_a_publisher_works_with_the_rights_it_has(settings, user):
    async def run():
        publisher = Publisher(
            as_service(settings.amqp_url, user),
            name="tests",
            max_outstanding=10,
            confirm_timeout=5,
            heartbeat=10,
        )
        return await after(publisher.start, publisher.stop, publisher.standing, "working")

    assert asyncio.run(run()) == ""


class Cache:
    """Stands in for what the feed keeps true; here only its connection is of interest."""

    refreshed_at = None

    async def warm(self):
        return None

    def __len__(self):
        return 0


@pytest.mark.parametrize(
    ("user", "state", "advice"), [("ingress", "working", ""), ("kyc", "refused", "lacks a right")]
)
def test_the_secret_feed_says_how_it_stands(settings, user, state, advice):
    async def run():
        url = as_service(settings.amqp_url, user)
        feed = SecretFeed(Cache(), url, heartbeat=10, poll_seconds=5)
        return await after(feed.start, feed.stop, feed.standing, state)

    assert advice in asyncio.run(run())
