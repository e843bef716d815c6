"""A queue that does not answer the broker is not an empty one, whoever asks."""

import json
import threading
from datetime import UTC, datetime

import pytest
from kombu import Connection

from services.ops.doctor import checks
from services.ops.doctor.check import Check
from services.ops.environment import Surroundings
from services.ops.monitoring.alerts import troubles
from services.ops.monitoring.queue_stats import Sample
from services.ops.monitoring.sampler import Sampler
from shared.bus.broker import queue_counts
from shared.bus.consume import single_active
from shared.bus.contract import topology
from tests.integration.arrange import publish, publish_raw
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
    system = Surroundings(settings, has_database=False)
    found = {(check.about, check.state) for check in checks.run(system)}
    assert ("broker", "broken") in found
