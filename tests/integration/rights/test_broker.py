"""On the broker each service may do its work, and is refused everything else."""

import asyncio
import base64
import itertools
import re
import threading
from contextlib import contextmanager

import pytest
from amqp import Message
from amqp.exceptions import AccessRefused, ResourceLocked
from kombu import Connection

from shared.bus.broker import declaration
from shared.bus.consume.consumer import Consumer
from shared.bus.consume.receiving import sources
from shared.bus.consume.subscription import Subscription
from shared.bus.contract import topology
from shared.bus.contract.events import EVENT_TYPES
from shared.bus.contract.permissions import RIGHTS
from shared.bus.publish.confirms import UnavailableError
from shared.bus.publish.publisher import Publisher
from shared.security.service_accounts import login
from stack.servers.credentials import as_service
from tests.integration.arrange import (
    declare,
    depth,
    in_shards,
    join,
    orders_of_shards,
    publish,
    until,
)

LADDER = [rung.name for rung in topology.RETRY_DELAYS]
WORK = [queue.name for queue in topology.WORK_QUEUES]
DEAD = [queue.name for queue in topology.DEAD_QUEUES]
KEYS = [*EVENT_TYPES, *WORK, "anything"]


def failing(*queues):
    """What a consumer may publish: its own failures."""
    return {(exchange, queue) for exchange in ("dead", *LADDER) for queue in queues}


def anything(exchange):
    return {(exchange, key) for key in KEYS}


MAY_PUBLISH = {
    "ingress": anything("intake") | anything("journal") | {("commands", "secret.rotate")},
    "kyc": failing("kyc.decisions"),
    "secrets": failing("secrets.issue", "secrets.rotate"),
    "orders": failing("orders.intake"),
    "notifier": failing("notifier.urgent", "notifier.orders", "notifier.bulk"),
    "audit": failing("audit"),
    "relay": anything("events")
    | anything("intake")
    | anything("journal")
    | anything("journal.facts")
    | {("commands", "secret.rotate")},
    "ops": anything("") | anything("commands"),
    "console": anything("") | anything("commands"),
    "operator": {("commands", "kyc.decide")},
}
MAY_READ = {
    "ingress": set(),
    "kyc": {"kyc.decisions"},
    "secrets": {"secrets.issue", "secrets.rotate"},
    "orders": {"orders.intake"},
    "notifier": {"notifier.urgent", "notifier.orders", "notifier.bulk"},
    "audit": {"audit"},
    "relay": set(),
    "ops": {queue.name for queue in topology.QUEUES},
    "console": {queue.name for queue in topology.QUEUES},
    "operator": set(),
}


@pytest.fixture(scope="module")
def declared(module_amqp_url):
    return module_amqp_url


def connected(url, service):
    return Connection(as_service(url, service))


def refused(connection, act):
    """Whether the broker refuses an act, each on a channel of its own: a refusal closes it."""
    channel = connection.channel()
    try:
        act(channel)
    except AccessRefused:
        return True
    channel.close()
    return False


def test_every_service_is_tried():
    assert set(MAY_PUBLISH) == set(MAY_READ) == set(RIGHTS)


@pytest.mark.parametrize("service", MAY_PUBLISH)
def test_what_it_may_publish(declared, service):
    allowed = set()
    exchanges = ["", *(exchange.name for exchange in topology.EXCHANGES)]
    with connected(declared, service) as connection:
        for exchange, key in itertools.product(exchanges, KEYS):

            def publish(channel, exchange=exchange, key=key):
                channel.basic_publish_confirm(Message(b"x"), exchange=exchange, routing_key=key)

            if not refused(connection, publish):
                allowed.add((exchange, key))
    assert allowed == MAY_PUBLISH[service]


@pytest.mark.parametrize("service", MAY_READ)
def test_what_it_may_read_and_empty(declared, service):
    streams = {topology.JOURNAL.name}
    names = {queue.name for queue in topology.QUEUES}
    with connected(declared, service) as connection:
        consumed = {
            name
            for name in names
            if not refused(connection, lambda channel, name=name: consume(channel, name))
        }
        emptied = {
            name
            for name in names - streams
            if not refused(connection, lambda channel, name=name: channel.queue_purge(name))
        }
    assert consumed == MAY_READ[service]
    assert emptied == MAY_READ[service] - streams


def consume(channel, name):
    channel.basic_qos(0, 1, False)
    tag = channel.basic_consume(name, callback=lambda _: None)
    channel.basic_cancel(tag)


@pytest.mark.parametrize("service", MAY_READ)
def test_what_it_may_declare_and_delete(declared, service):
    own = MAY_READ[service] if service not in ("ops", "console") else set()
    with connected(declared, service) as connection:
        for exchange in topology.EXCHANGES:
            assert refused(connection, lambda c, e=exchange: c.exchange_delete(e.name))
            assert refused(
                connection, lambda c, e=exchange: c.exchange_declare(e.name, e.kind, durable=True)
            )
        assert refused(connection, lambda c: c.queue_declare("mine"))
        for queue in topology.QUEUES:
            if queue.name in own:
                assert not refused(connection, lambda c, q=queue: declaration.declare_queue(c, q))
            else:
                assert refused(connection, lambda c, q=queue: declaration.declare_queue(c, q))
                assert refused(connection, lambda c, q=queue: c.queue_delete(q.name))


@pytest.mark.parametrize(
    ("service", "queue", "exchange", "key"),
    [
        ("kyc", "kyc.decisions", "intake", "order.created"),
        ("kyc", "kyc.decisions", "commands", "secret.revoke"),
        ("kyc", "orders.intake", "commands", "kyc.decide"),
        ("orders", "orders.intake", "events", "order.#"),
        ("notifier", "notifier.orders", "commands", "#"),
        ("notifier", "notifier.orders", "events", "#"),
        ("secrets", "secrets.issue", "events", "kyc.#"),
    ],
)
def test_nobody_listens_to_what_is_not_theirs(declared, service, queue, exchange, key):
    with connected(declared, service) as connection:
        assert refused(connection, lambda c: c.queue_bind(queue, exchange, key))


def test_an_ingress_worker_hears_of_secrets_and_nothing_else(declared):
    with connected(declared, "ingress") as connection:
        name = "ingress.secrets.of-a-test"
        connection.default_channel.queue_declare(name, exclusive=True, auto_delete=True)
        for exchange, key in (("events", "#"), ("events", "order.#"), ("intake", "order.#")):
            assert refused(
                connection, lambda c, exchange=exchange, key=key: c.queue_bind(name, exchange, key)
            )
        for key in ("secret.#", "kyc.revoked"):
            assert not refused(connection, lambda c, key=key: c.queue_bind(name, "events", key))
        with connected(declared, "ingress") as other, pytest.raises(ResourceLocked):
            other.default_channel.basic_get(name)


def test_nobody_publishes_under_another_name(declared):
    """Who decided is what the broker has verified (RabbitMQ, "Validated User-ID")."""
    with connected(declared, "operator") as connection:
        message = Message(b"{}", user_id="the boss")
        with pytest.raises(connection.channel_errors, match="user_id property"):
            connection.default_channel.basic_publish_confirm(
                message, exchange="commands", routing_key="kyc.decide"
            )


def test_what_somebody_deleted_is_declared_again_by_its_owner_alone(declared):
    with Connection(declared) as connection:
        connection.default_channel.queue_delete("secrets.issue")
    with connected(declared, "secrets") as connection:
        declaration.ensure(connection, topology.SECRETS_ISSUE)
        assert not refused(connection, lambda c: c.basic_get("secrets.issue"))


@pytest.mark.parametrize("queue", topology.WORK_QUEUES, ids=lambda queue: queue.name)
def test_a_consumer_needs_no_right_beyond_its_own_queue_to_begin(declared, queue):
    """On RabbitMQ 4.3 even a look at the journal was refused, and nothing was consumed."""
    with connected(declared, queue.name.partition(".")[0]) as connection:
        declaration.ensure(connection, queue)
        assert not refused(connection, lambda c: consume(c, queue.name))


@pytest.mark.parametrize("service", ["ingress", "relay"])
def test_a_publisher_begins(declared, service):
    with connected(declared, service) as connection:
        declaration.ensure(connection)


def test_without_a_declared_topology_a_consumer_is_refused(amqp_url):
    with Connection(amqp_url) as connection:
        connection.default_channel.exchange_delete("commands")
    with connected(amqp_url, "kyc") as connection, pytest.raises(AccessRefused):
        declaration.ensure(connection, topology.KYC_DECISIONS)


def test_shards_are_for_those_alone_whom_their_queue_is_for(amqp_url):
    """With no number in the rights: who makes the shards fewer must still get at what waits."""
    declare(amqp_url, 3)
    shards = [queue.name for queue in topology.shards(3)]
    publishers, readers, others = set(), set(), set()
    for service in RIGHTS:
        with connected(amqp_url, service) as connection:

            def publish(channel):
                channel.basic_publish_confirm(
                    Message(b"x"), exchange="intake.shards", routing_key=shards[1]
                )

            def alter(channel):
                channel.queue_unbind(shards[1], "intake.shards", shards[1])

            if not refused(connection, publish):
                publishers.add(service)
            if not any(refused(connection, lambda c, n=n: consume(c, n)) for n in shards):
                readers.add(service)
            if not (
                refused(connection, lambda c: c.queue_delete(shards[1]))
                and refused(connection, lambda c: c.exchange_delete("intake.shards"))
                and refused(connection, alter)
            ):
                others.add(service)
    assert publishers == {"ingress", "relay"}
    assert readers == {"orders", "ops", "console"}
    assert others == set()


def test_who_consumes_finds_the_shards_by_its_own_rights(amqp_url):
    declare(amqp_url, 3)
    for service in ("orders", "ops", "console"):
        with connected(amqp_url, service) as connection:
            assert len(declaration.parts(connection, topology.ORDERS_INTAKE)) == 3
    for service in ("ingress", "relay"):
        with connected(amqp_url, service) as connection:
            assert declaration.has_shards(connection)


def test_rights_of_before_there_were_shards_are_no_reason_not_to_begin(bare_amqp_url):
    """Since 4.2.6 and 4.3.0 even the look is refused."""
    with connected(bare_amqp_url, "kyc") as connection:
        assert declaration.parts(connection, topology.ORDERS_INTAKE) == ["orders.intake"]
        assert not declaration.has_shards(connection)


@contextmanager
def rights_of_before(broker, amqp_url, service):
    """A service's user as a version made it that knew no shards."""
    vhost = amqp_url.rpartition("/")[2]

    def erlang(text):
        return f'base64:decode(<<"{base64.b64encode(text.encode()).decode()}">>)'

    def allow(*expressions):
        given = ", ".join(map(erlang, (login(service), vhost, *expressions, "tests")))
        broker.evaluate(f"rabbit_auth_backend_internal:set_permissions({given})")

    today = RIGHTS[service].configure, RIGHTS[service].write, RIGHTS[service].read
    more = f"|{topology.SHARDS}", f"|{re.escape(topology.INTAKE_SHARDS.name)}"
    before = [text.replace(more[0], "").replace(more[1], "") for text in today]
    assert tuple(before) != today
    allow(*before)
    try:
        yield lambda: allow(*today)
    finally:
        allow(*today)


def test_a_recorder_without_the_right_to_the_shards_does_all_else(
    settings, broker, amqp_url, monkeypatch
):
    """Before 4.2.6 it sees that they are there."""
    monkeypatch.setattr(sources, "LOOK_SECONDS", 0.1)
    declare(amqp_url, 3)
    batches = []
    asked = Subscription(
        queue=topology.ORDERS_INTAKE,
        handle=lambda _, received: batches.append(len(received)),
        consumer="tests",
        shards=3,
    )
    consumer = Consumer(as_service(amqp_url, "orders"), 30, asked, stopping := threading.Event())
    thread = threading.Thread(target=consumer.run, daemon=True)
    with rights_of_before(broker, amqp_url, "orders") as allow:
        publish(amqp_url, *in_shards(3, orders_of_shards(3, each=20)))
        thread.start()
        try:
            until(lambda: sum(batches) == 20, "its own queue")
            assert max(batches) > 1
            allow()
            until(lambda: sum(batches) == 60, "the shards, once it may")
        finally:
            stopping.set()
            join([thread])


@pytest.mark.parametrize("service", ["ingress", "relay"])
def test_who_publishes_without_the_right_to_the_shards_loses_its_connection_once(
    broker, amqp_url, service
):
    declare(amqp_url, 4)

    async def story():
        publisher = Publisher(
            as_service(amqp_url, service),
            name="tests",
            max_outstanding=100,
            confirm_timeout=5.0,
            heartbeat=30,
            shards=4,
        )
        await publisher.start()
        try:
            told = []
            for _ in range(2):
                await asyncio.to_thread(until, lambda: publisher.state == "connected", "connected")
                sending = [publisher.publish(message) for message in orders_of_shards(4)]
                told.append(await asyncio.gather(*sending, return_exceptions=True))
            return told
        finally:
            await publisher.stop()

    with rights_of_before(broker, amqp_url, service):
        first, second = asyncio.run(story())
    assert UnavailableError in {type(error) for error in first}
    assert second == [None] * 4
    assert depth(amqp_url, topology.ORDERS_INTAKE.name) >= 4
