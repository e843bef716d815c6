"""A queue that does not answer the broker is not an empty one, whoever asks."""

import threading

import pytest
from kombu import Connection

from services.ops.monitoring.sampler import Sampler
from shared.bus.broker import queue_counts
from shared.bus.consume import single_active
from shared.bus.contract import topology
from tests.integration.arrange import publish
from tests.integration.relay.relaying import messages
from tests.integration.relay.test_stuck import resume, stuck

QUEUE = topology.ORDERS_INTAKE


@pytest.fixture
def channel(amqp_url):
    publish(amqp_url, *messages(7))
    with Connection(amqp_url) as connection:
        yield connection.default_channel


def test_what_the_broker_says_of_it_is_nothing(channel, broker, amqp_url):
    with stuck(broker, amqp_url, QUEUE.name):
        told = channel.queue_declare(QUEUE.name, passive=True)
    assert (told.message_count, told.consumer_count) == (0, 0)


def test_it_is_asked_again_until_it_answers(channel, broker, amqp_url):
    with stuck(broker, amqp_url, QUEUE.name):
        later = threading.Timer(2, resume, (broker, amqp_url, QUEUE.name))
        later.start()
        assert queue_counts.of(channel, QUEUE.name) == (7, 0)
        later.join()


def test_who_cannot_wait_is_told_that_it_is_not_known(channel, broker, amqp_url):
    with (
        stuck(broker, amqp_url, QUEUE.name),
        pytest.raises(queue_counts.NotKnownError, match=r"orders\.intake does not answer"),
    ):
        queue_counts.of(channel, QUEUE.name, 0.5)


def test_an_empty_queue_is_one(amqp_url):
    with Connection(amqp_url) as connection:
        assert queue_counts.of(connection.default_channel, QUEUE.name) == (0, 0)


def test_nobody_begins_beside_a_consumer_that_is_not_seen(settings, channel, broker, amqp_url):
    """Two would handle the decisions on one business in any order."""
    begun = []
    with stuck(broker, amqp_url, QUEUE.name):
        assert not single_active.begin(channel, QUEUE, lambda: begun.append(1))
    assert single_active.begin(channel, QUEUE, lambda: begun.append(2))
    assert begun == [2]


def test_a_sample_says_so(channel, broker, amqp_url):
    sampler = Sampler(amqp_url, None)
    with stuck(broker, amqp_url, QUEUE.name):
        assert "orders.intake does not answer" in (sampler.take().broker_error or "")
    assert sampler.take().counts[QUEUE.name].ready == 7
    sampler.close()
