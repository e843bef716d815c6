"""A queue that does not answer the broker is not an empty one, whoever asks."""

import dataclasses
import json
import threading
from datetime import UTC, datetime
from threading import Event

import pytest
from kombu import Connection
from msgspec.structs import replace
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from services.ops.broker.queue_lock import locked
from services.ops.doctor import broker_checks, checks
from services.ops.doctor.check import Check
from services.ops.environment import Target
from services.ops.monitoring.alerts import troubles
from services.ops.monitoring.queue_stats import Sample
from services.ops.monitoring.sampler import Sampler
from shared.bus.broker import queue_counts
from shared.bus.broker.standing import Standing
from shared.bus.consume import single_active
from shared.bus.consume.batch import Batches, Delivery, StoppedError
from shared.bus.consume.consumer import Consumer
from shared.bus.consume.receiving import sources
from shared.bus.consume.subscription import Subscription
from shared.bus.contract import topology
from shared.bus.contract.delivery import RawDelivery, decode_by_type
from shared.bus.contract.message import message_for
from tests.integration.arrange import (
    declare,
    in_shards,
    join,
    order_created,
    orders_of_shards,
    publish,
    publish_raw,
    until,
)
from tests.integration.ops.cli.test_cli import fellow
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


def test_nobody_begins_while_a_tool_looks_through_a_queue(settings, channel):
    """It would have some of the messages in hand, and decide on what came behind them."""
    with locked(QUEUE.name) as is_alone:
        assert is_alone
        assert single_active.begin(channel, QUEUE, lambda: None) is None
    assert single_active.begin(channel, QUEUE, lambda: None) is not None


def test_who_has_no_answer_of_the_broker_keeps_others_from_the_queue_for_a_moment(
    settings, channel, engine, monkeypatch
):
    """While nobody consumes it: whoever could begin, or looks through it, would wait as well."""
    # What is asked behind the lock is asked within it.
    monkeypatch.setattr(single_active, "LOOK_SECONDS", 3.0)
    ask, asked = queue_counts.of, []
    share = text("SELECT pg_try_advisory_xact_lock_shared(hashtextextended(:name, 0))")

    def is_free():
        with engine.connect() as other:
            return other.scalar(share, {"name": single_active.lock_name(QUEUE.name)})

    def have_no_answer(*given):
        asked.append(is_free())
        if not asked[-1]:
            until(is_free, "it is let go", 15)
        return ask(*given)

    monkeypatch.setattr(queue_counts, "of", have_no_answer)
    with pytest.raises(DBAPIError):
        single_active.begin(channel, QUEUE, lambda: None)
    # Before it has the lock it asks as well, and then of most queues no more than that.
    assert asked == [True, False]


def test_whose_turn_is_over_does_nothing(settings, channel):
    """It may not have noticed yet that the broker has given up its connection."""
    handled = []
    batches = Batches(
        "tests", decode_by_type, lambda _, them: handled.extend(them), Event(), Standing("tests")
    )
    event = message_for(order_created(), source="tests", correlation_id="story")
    properties = {"type": event.type}
    delivery = Delivery(1, RawDelivery(event.body, properties, {}, event.exchange))
    earlier = single_active.begin(channel, QUEUE, lambda: None)
    batches.is_ours = lambda session: single_active.is_turn(session, QUEUE.name, earlier)
    assert (batches.run([delivery]), len(handled)) == ({}, 1)
    assert single_active.begin(channel, QUEUE, lambda: None) not in (None, earlier)
    assert (type(batches.run([delivery])[1]), len(handled)) == (StoppedError, 1)


def test_a_sample_says_so_of_that_queue_and_counts_the_others(channel, broker, amqp_url):
    publish_raw(amqp_url, "dead", "kyc.decisions", b"x", delivery_mode=2)
    sampler = Sampler(amqp_url, None)
    with stuck(broker, amqp_url, QUEUE.name):
        sample = sampler.take()
        assert (sample.broker_error, sample.silent) == (None, {QUEUE.name})
        assert sample.counts["kyc.decisions.dead"].ready == 1
        assert set(sample.counts) == {queue.name for queue in topology.QUEUES} - {QUEUE.name}
        said = [trouble.text for trouble in troubles([sample])]
        assert [text for text in said if text.startswith("orders.intake does not answer")]
        assert not [text for text in said if "declare the topology" in text]
    sample = sampler.take()
    assert (sample.counts[QUEUE.name].ready, sample.silent) == (7, frozenset())
    sampler.close()


def test_shards_are_counted_as_one_queue_and_missed_where_one_is_missing(channel, amqp_url):
    sampler = Sampler(amqp_url, None, 3)
    sample = sampler.take()
    assert (sample.silent, QUEUE.name in sample.counts) == (frozenset(), False)
    said = [trouble.text for trouble in troubles([sample])]
    assert "orders.intake is not there: declare the topology" in said
    declare(amqp_url, 3)
    shards = [queue.name for queue in topology.shards(3)]
    for shard, count in zip(shards, (2, 3), strict=True):
        for _ in range(count):
            publish_raw(amqp_url, "intake.shards", shard, b"{}")
    channel.basic_consume(shards[0], callback=lambda _: None)
    channel.basic_consume(QUEUE.name, callback=lambda _: None)
    sample = sampler.take()
    assert sample.counts[QUEUE.name] == (3, 0)  # the others are in a hand that is not known
    assert {name: count.consumers for name, count in sample.shards.items()} == {
        QUEUE.name: 1, shards[0]: 1, shards[1]: 0,
    }  # fmt: skip
    assert set(sample.counts) == {queue.name for queue in topology.QUEUES}
    said = [trouble.text for trouble in troubles([dataclasses.replace(sample, beats=())])]
    assert (
        "orders.intake has no consumer: 3 messages wait "
        "(3 in orders.intake.2: were all recorders restarted since it was declared?)"
    ) in said
    sampler.close()


def test_a_shard_that_does_not_answer_is_its_queue(channel, broker, amqp_url):
    declare(amqp_url, 3)
    publish_raw(amqp_url, "intake.shards", "orders.intake.2", b"{}")
    sampler = Sampler(amqp_url, None, 3)
    with stuck(broker, amqp_url, "orders.intake.2"):
        assert sampler.take().silent == {QUEUE.name}
    sampler.close()


def test_a_shard_that_does_not_answer_keeps_nobody_from_the_others(
    settings, amqp_url, broker, monkeypatch
):
    monkeypatch.setattr(sources, "LOOK_SECONDS", 0.1)
    declare(amqp_url, 3)
    publish(amqp_url, *in_shards(3, orders_of_shards(3, each=5)))
    handled = []
    asked = Subscription(
        queue=QUEUE, handle=lambda _, them: handled.extend(them), consumer="tests", shards=3
    )
    stopping = Event()
    with stuck(broker, amqp_url, "orders.intake.1"):
        consumer = Consumer(amqp_url, 30, asked, stopping)
        thread = threading.Thread(target=consumer.run, daemon=True)
        thread.start()
        try:
            until(lambda: len(handled) == 10, "the others are handled")
            resume(broker, amqp_url, "orders.intake.1")
            until(lambda: len(handled) == 15, "and it, once it answers")
        finally:
            stopping.set()
            join([thread])


def test_the_doctor_knows_all_shards(settings, channel, amqp_url):
    def found(shards):
        config = replace(settings, intake_shards=shards)
        return {c.about: c for c in broker_checks.broker(config)}

    assert "shards" not in found(1)
    assert found(3)["topology"].state == "broken"
    assert "the exchange intake.shards" in found(3)["topology"].found
    declare(amqp_url, 3)
    told = found(3)
    assert (told["topology"].state, told["shards"].state) == ("fine", "look")
    assert "orders.intake: 7 ready, 0 consuming" in told["shards"].found
    idle = "no consumer on orders.intake, orders.intake.1, orders.intake.2"
    assert idle in told["shards"].advice
    for name in (QUEUE.name, *(queue.name for queue in topology.shards(3))):
        channel.basic_consume(name, callback=lambda _: None)
    assert found(3)["shards"].state == "fine"
    assert "INTAKE_SHARDS is 1 here" in found(1)["shards"].advice


def test_the_doctor_and_the_list_of_queues_say_so(settings, channel, broker, amqp_url, db):
    """Whoever looked at the broker alone found all fine."""
    with stuck(broker, amqp_url, QUEUE.name):
        code, out, _ = fellow(settings, "doctor", "--json")
        found = {(c["about"], c["state"]) for c in json.loads(out)}
        assert (code, (QUEUE.name, "broken") in found) == (1, True)
        assert ("broker", "fine") in found
        code, out, _ = fellow(settings, "queues", "--json")
        assert {q["name"] for q in json.loads(out) if q["silent"]} == {QUEUE.name}
        assert code == 1


def test_the_doctor_leaves_out_nothing_that_it_has_not_said(settings, monkeypatch):
    """A trouble is left out only where a check has told the same part as broken."""
    monkeypatch.setattr(
        checks.Sampler, "take", lambda _: Sample(at=datetime.now(UTC), broker_error="no answer")
    )
    monkeypatch.setattr(checks.broker_checks, "broker", lambda _: [Check("broker", "fine", "x")])
    system = Target(settings, has_database=False)
    found = {(check.about, check.state) for check in checks.run(system)}
    assert ("broker", "broken") in found
