"""Copies of what failed: a batch's together, each confirmed before its original is acknowledged."""

import re
import time
from contextlib import ExitStack

import pytest
import structlog
from kombu import Connection

from shared.bus.contract import topology
from shared.bus.contract.errors import Permanent, Retry
from stack.folders import ROOT
from tests.integration.arrange import consuming, declare, depth, publish, publish_raw, take, until
from tests.integration.bus.test_consumer import (
    QUEUE,
    connections,
    messages,
    ready,
    subscription,
    waiting_in_ladder,
)
from tests.integration.gate import Gate
from tests.integration.relay.test_stuck import stuck


def test_the_broker_leaves_in_hand_what_is_kept_for_days(broker):
    """Of itself it closes a channel after half an hour, and counts that as a delivery."""
    lines = (ROOT / "deploy" / "rabbitmq.conf").read_text().splitlines()
    (deployed,) = [line for line in lines if line.startswith("consumer_timeout")]
    milliseconds = int(deployed.rpartition(" = ")[2])
    running = broker.evaluate("application:get_env(rabbit, consumer_timeout)")
    # A node prints a blank before the number, and rabbitmqctl none.
    assert re.findall(r"\d+", running) == [str(milliseconds)]
    assert milliseconds >= 30 * 24 * 3_600_000


def all_dead(settings, count):
    return lambda: depth(settings.amqp_url, QUEUE.dead) >= count


def test_a_slow_broker_gets_each_copy_of_a_batch_once(settings, configure, broker):
    """Each confirm takes a second, and the consumer is hung up on after two silent heartbeats."""
    sent = messages(61)
    handled = []
    with Gate(settings.amqp_url) as gate:
        config = configure(amqp_heartbeat="5", amqp_url=gate.url)

        def act(session, received):
            handled.extend(received)
            # The first batch is of one, after which a full prefetch is asked for.
            gate.lag = 0.5 if len(received) > 1 else 0.0
            return {m.id: Permanent("no such order") for m in received}

        publish(settings.amqp_url, *sent)
        with consuming(config, subscription(act, batch_size=60, batch_seconds=5.0)):
            until(lambda: gate.lag, "the full batch is in hand")
            before = connections(broker, settings)
            until(all_dead(settings, 61), "all are copied")
            gate.lag = 0.0
            until(lambda: depth(settings.amqp_url, QUEUE.name) == 0, "queue empty")
            assert set(before) <= set(connections(broker, settings))
    assert len(handled) == depth(settings.amqp_url, QUEUE.dead) == 61


def test_copies_keep_the_order_of_their_originals(settings):
    sent = messages(40)
    publish(settings.amqp_url, *sent)

    def act(session, received):
        return {m.id: Permanent("no such order") for m in received}

    with consuming(settings, subscription(act, batch_size=20)):
        until(all_dead(settings, 40), "all are copied")
    dead = [take(settings.amqp_url, QUEUE.dead) for _ in sent]
    assert [d.properties["message_id"] for d in dead] == [m.message_id for m in sent]


@pytest.mark.usefixtures("retried_soon")
def test_what_goes_nowhere_waits_until_its_destination_is_declared(settings, amqp_url):
    """The ladder has lost its queues: what goes to the dead queue is none of its business."""
    sent = messages(20)
    tried = []
    dead = {m.message_id for m in sent[::2]}

    def act(session, received):
        tried.append({str(m.id) for m in received})
        return {
            m.id: Permanent("no such order") if str(m.id) in dead else Retry("not yet")
            for m in received
            if not m.attempt
        }

    with Connection(amqp_url) as connection:
        for rung in topology.RETRY_DELAYS:
            connection.default_channel.queue_delete(rung.name)
    publish(settings.amqp_url, *sent)
    with consuming(settings, subscription(act, batch_size=20, batch_seconds=1.0)):
        until(all_dead(settings, len(dead)), "those that have somewhere to go are there")
        time.sleep(3.0)  # longer than a drop of the connection would take to come again
        assert [sum(m.message_id in batch for batch in tried) for m in sent] == [1] * 20
        declare(amqp_url)
        late = {m.message_id for m in sent} - dead
        until(lambda: late <= set().union(*tried[2:]), "the others come again by the ladder")
    assert depth(settings.amqp_url, QUEUE.dead) == len(dead)
    assert (ready(settings), waiting_in_ladder(settings)) == (0, 0)


@pytest.mark.usefixtures("retried_late")
def test_what_fails_alike_is_one_line_of_the_log(settings):
    sent = messages(31)  # the first is handled alone

    def act(session, received):
        return {
            m.id: Permanent("no such order") if m.id.int % 2 else ValueError("a fault of ours")
            for m in received
        }

    publish(settings.amqp_url, *sent)
    with (
        structlog.testing.capture_logs() as lines,
        consuming(settings, subscription(act, batch_size=30, batch_seconds=5.0)),
    ):
        until(
            lambda: depth(settings.amqp_url, QUEUE.dead) + waiting_in_ladder(settings) == 31,
            "all are copied",
        )
    told = [line for line in lines if line["event"] == "message_failed"]
    assert sum(line["messages"] for line in told) == 31
    assert {line["log_level"] for line in told} == {"warning", "error"}
    assert len(told) <= 6  # two kinds, three places, a first batch of one


LADDER = [rung.name for rung in topology.RETRY_DELAYS]


@pytest.mark.usefixtures("retried_soon")
@pytest.mark.parametrize("deliveries", [0, 3], ids=["new", "delivered before"])
@pytest.mark.parametrize(
    ("error", "behind"),
    [(Retry("not yet"), LADDER), (Permanent("no such order"), [QUEUE.dead])],
    ids=["the ladder", "the dead queue"],
)
def test_a_copy_that_is_not_confirmed_holds_up_no_neighbour(
    settings, amqp_url, broker, error, behind, deliveries
):
    """Nor is the message delivered again and again, until the broker gives it up."""
    bad, *good = messages(60)
    attempts, handled = [], []

    def act(session, received):
        handled.extend(str(m.id) for m in received if str(m.id) != bad.message_id)
        attempts.extend(m.attempt for m in received if str(m.id) == bad.message_id)
        return {m.id: error for m in received if str(m.id) == bad.message_id and not m.attempt}

    with consuming(settings, subscription(act, batch_size=20)):
        with ExitStack() as stack:
            for queue in behind:
                stack.enter_context(stuck(broker, amqp_url, queue))
            publish_raw(
                amqp_url,
                bad.exchange,
                bad.routing_key,
                bad.body,
                message_id=bad.message_id,
                type=bad.type,
                delivery_mode=2,
                application_headers=bad.headers() | {"x-delivery-count": deliveries},
            )
            publish(amqp_url, *good)
            until(lambda: len(handled) == len(good), "those beside it are handled")
            for message in messages(2):
                before = len(handled)
                publish(amqp_url, message)
                until(lambda n=before: len(handled) > n, "who comes later is handled")
                time.sleep(2.0)  # longer than a drop of the connection would take to come again
            assert attempts == [0]
            assert ready(settings) == 0
        if isinstance(error, Retry):
            until(lambda: attempts == [0, 1], "it comes again by the ladder")
        else:
            until(lambda: depth(amqp_url, QUEUE.dead) == 1, "it is dead")
            assert take(amqp_url, QUEUE.dead).headers["x-attempt"] == 1
    assert len(handled) == len(set(handled))
    assert (ready(settings), waiting_in_ladder(settings)) == (0, 0)
