"""On the broker each service may do its work, and is refused everything else."""

import itertools

import pytest
from amqp import Message
from amqp.exceptions import AccessRefused, ResourceLocked
from kombu import Connection

from shared.bus.broker import declaration
from shared.bus.contract import topology
from shared.bus.contract.events import EVENT_TYPES
from shared.bus.contract.permissions import RIGHTS
from stack.servers.credentials import as_service

LADDER = [rung.name for rung in topology.RETRY_LADDER]
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
