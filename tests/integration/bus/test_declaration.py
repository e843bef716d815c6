"""Queues that an earlier version has declared, whose arguments cannot be changed."""

import pytest
from amqp import Message
from amqp.exceptions import PreconditionFailed
from kombu import Connection

from services.ops.doctor import broker_checks
from shared.bus.broker import declaration
from shared.bus.contract import topology
from tests.integration.arrange import depth, publish_raw

EARLIER = [queue for queue in topology.QUEUES if queue.earlier is not None]


def declare(channel, name, arguments):
    channel.queue_declare(name, durable=True, auto_delete=False, arguments=arguments)


@pytest.fixture
def earlier(bare_amqp_url):
    """A broker on which an earlier version's ladder holds a message."""
    with Connection(bare_amqp_url) as connection:
        for queue in EARLIER:
            declare(connection.default_channel, queue.name, queue.earlier)
        publish_raw(bare_amqp_url, "", "retry.1h", b"{}", delivery_mode=2)
        yield connection


def test_they_stay_with_what_they_hold(earlier, bare_amqp_url):
    declaration.declare(earlier)
    declaration.declare(earlier)
    assert depth(bare_amqp_url, "retry.1h") == 1
    with earlier.channel() as channel, pytest.raises(PreconditionFailed):
        declare(channel, "retry.1h", topology.RETRY_QUEUES[-1].arguments)


def test_other_arguments_are_refused(earlier):
    with earlier.channel() as channel:
        channel.queue_delete("retry.5s")
        declare(channel, "retry.5s", {"x-queue-type": "quorum"})
    with pytest.raises(PreconditionFailed, match=r"retry\.5s"):
        declaration.declare(earlier)


@pytest.mark.parametrize(("version", "state"), [("3.10.8", "fine"), ("4.0.5", "look")])
def test_the_doctor_names_them_where_it_matters(earlier, monkeypatch, version, state):
    declaration.declare(earlier)
    monkeypatch.setattr(broker_checks, "server_version", lambda _: version)
    found = broker_checks._topology(earlier, 1)
    assert found.state == state
    named = [queue.name for queue in EARLIER if queue.name in found.found]
    assert len(named) == (len(EARLIER) if state == "look" else 0)


def test_what_is_declared_today_is_fine(bare_amqp_url, monkeypatch):
    monkeypatch.setattr(broker_checks, "server_version", lambda _: "4.0.5")
    with Connection(bare_amqp_url) as connection:
        declaration.declare(connection)
        assert broker_checks._topology(connection, 1).state == "fine"


def test_the_doctor_binds_nothing(bare_amqp_url):
    with Connection(bare_amqp_url) as connection:
        declaration.declare(connection)
        channel = connection.default_channel
        channel.queue_unbind("retry.5s", "retry.5s", "#")
        broker_checks._topology(connection, 1)
        channel.basic_publish_confirm(Message(b"{}"), exchange="retry.5s", routing_key="x")
    assert depth(bare_amqp_url, "retry.5s") == 0
