"""However often a consumer is restarted while what it needs is away, no message pays for it."""

import threading

import pytest

from services.notifier.__main__ import wire as wire_notifier
from services.orders.__main__ import wire as wire_orders
from shared.bus.consume.consumer import Consumer
from shared.bus.consume.subscription import Subscription
from shared.bus.contract import topology
from shared.bus.contract.message import message_for
from stack.servers.ports import Port
from tests.integration.arrange import (
    PATIENCE,
    consuming,
    depth,
    join,
    only_read,
    order_created,
    publish,
    take,
    until,
)
from tests.integration.gate import Gate
from tests.integration.notifier.test_sending import order_fact, tell
from tests.unit.notifier.facts import FACTS

AT_ONCE = 10
ROUNDS = 6  # three times the delivery limit, with all at once


def restart_again_and_again(config, subscription):
    """Start consumers that come as far as they can, and stop them."""
    for _ in range(ROUNDS):
        stopping = threading.Event()
        consumers = [
            Consumer(config.amqp_url, config.amqp_heartbeat, subscription, stopping)
            for _ in range(AT_ONCE)
        ]
        threads = [threading.Thread(target=one.run, daemon=True) for one in consumers]
        for thread in threads:
            thread.start()
        until(lambda all_=consumers: all(is_holding(one) for one in all_), "they wait")
        stopping.set()
        join(threads)


def is_holding(consumer):
    return consumer.standing.status.state == "holding"


def untouched(config, queue, count):
    """Assert that no message of a queue was ever delivered; takes the first."""
    assert depth(config.amqp_url, queue.dead) == 0
    assert depth(config.amqp_url, queue.name) == count
    first = take(config.amqp_url, queue.name)
    assert not first.delivery_info["redelivered"]
    assert first.headers.get("x-delivery-count", 0) == 0


def test_restarts_in_an_outage_of_the_database(settings, configure):
    queue = topology.ORDERS_INTAKE
    sent = [message_for(order_created(), source="tests", correlation_id="story") for _ in range(30)]
    with Gate(settings.database_url) as gate:
        config = configure(database_url=gate.url, database_connect_timeout="1")
        (subscription,) = wire_orders(config).subscriptions
        publish(settings.amqp_url, *sent)
        gate.cut()
        restart_again_and_again(config, subscription)
        untouched(config, queue, 30)
        gate.open()
        with consuming(config, subscription) as (consumer,):
            until(lambda: consumer.handled == 29, "handled")
    assert depth(settings.amqp_url, queue.dead) == 0


@pytest.mark.parametrize(
    ("queue", "fact"),
    [
        (topology.NOTIFIER_ORDERS, order_fact()),
        (topology.NOTIFIER_URGENT, FACTS["one_time_code"]),
    ],
)
def test_restarts_in_an_outage_of_the_mail_server(settings, configure, queue, fact):
    nobody_listens = Port()
    config = configure(smtp_port=str(nobody_listens))
    (subscription,) = [s for s in wire_notifier(config).subscriptions if s.queue is queue]
    tell(settings.amqp_url, fact)
    restart_again_and_again(config, subscription)
    untouched(config, queue, 1)


def test_a_database_that_can_only_be_read_is_away(settings, engine):
    subscription = Subscription(
        queue=topology.ORDERS_INTAKE, handle=lambda *_: None, consumer="tests"
    )
    with only_read(engine):
        stopping = threading.Event()
        consumer = Consumer(settings.amqp_url, 10, subscription, stopping)
        thread = threading.Thread(target=consumer.run, daemon=True)
        thread.start()
        until(lambda: consumer.standing.status.state == "holding", "it waits")
    publish(
        settings.amqp_url,
        message_for(order_created(), source="tests", correlation_id="story"),
    )
    until(lambda: consumer.handled == 1, "it goes on")
    stopping.set()
    thread.join(PATIENCE)
