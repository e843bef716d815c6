"""The rules that every queue must obey, whoever adds one."""

import pytest
from kombu.transport.virtual.exchange import TopicExchange

from shared.bus.contract import journal, topology
from shared.bus.contract.events import EVENT_TYPES


@pytest.mark.parametrize("queue", topology.WORK_QUEUES, ids=lambda queue: queue.name)
def test_work_queues_cannot_lose_a_message(queue):
    arguments = queue.arguments
    assert arguments["x-queue-type"] == "quorum"
    assert arguments["x-delivery-limit"] == 20
    assert arguments["x-dead-letter-exchange"] == topology.DEAD
    assert arguments["x-dead-letter-routing-key"] == queue.name
    assert arguments["x-dead-letter-strategy"] == "at-least-once"
    assert arguments["x-overflow"] == "reject-publish"


def test_every_work_queue_has_a_dead_queue():
    dead = {
        (binding.key, queue.name) for queue in topology.DEAD_QUEUES for binding in queue.bindings
    }
    assert dead == {(queue.name, queue.dead) for queue in topology.WORK_QUEUES}


@pytest.mark.parametrize("queue", topology.RETRY_QUEUES, ids=lambda queue: queue.name)
def test_a_rung_hands_back_by_the_unchanged_key(queue):
    assert queue.arguments["x-dead-letter-exchange"] == ""
    assert "x-dead-letter-routing-key" not in queue.arguments
    (rung,) = [rung for rung in topology.RETRY_LADDER if rung.name == queue.name]
    assert queue.arguments["x-message-ttl"] == 1000 * rung.seconds


def bound(exchange, key):
    matcher = TopicExchange(channel=None)
    return {
        queue.name
        for queue in topology.QUEUES
        for binding in queue.bindings
        if binding.exchange == exchange and matcher._match(matcher.key_to_pattern(binding.key), key)
    }


@pytest.mark.parametrize("exchange", topology.EXCHANGES, ids=lambda exchange: exchange.name)
def test_where_a_key_leads_is_what_topic_matching_says(exchange):
    for key in (*EVENT_TYPES, "bulk.order.recorded", "order.a.b", "kyc.x.y", "", "nobody"):
        reached = {queue.name for queue in topology.reached(exchange, key)}
        if exchange.kind == "topic":
            assert reached == bound(exchange.name, key), key
        else:
            assert reached == {"orders.intake" if exchange.name == "intake" else "journal"}


def test_a_hash_is_any_number_of_words_none_included():
    commands = next(e for e in topology.EXCHANGES if e.name == topology.COMMANDS)
    assert topology.reached(commands, "") == [topology.JOURNAL]


def test_what_goes_into_the_bulk_lane_reaches_nobody_elses_queue():
    facts = [type_ for type_, struct in EVENT_TYPES.items() if struct.EXCHANGE == topology.EVENTS]
    for type_ in facts:
        lane = bound(topology.EVENTS, topology.BULK + type_) - {"journal"}
        assert lane == ({"notifier.bulk"} if type_.startswith("order.") else set())


@pytest.mark.parametrize("type_", sorted(EVENT_TYPES))
def test_every_message_has_somewhere_to_go(type_):
    work = {queue.name for queue in topology.WORK_QUEUES}
    # Nobody acts on this one; the journal keeps it.
    expected_without_consumer = {"email.undeliverable"}
    reached = bound(EVENT_TYPES[type_].EXCHANGE, type_)
    assert bool(reached & work) != (type_ in expected_without_consumer)


def test_the_journal_holds_everything_but_one_time_codes():
    missing = {
        type_
        for type_, event in EVENT_TYPES.items()
        if "journal" not in bound(event.EXCHANGE, type_)
        and not journal.place(event.EXCHANGE, type_)
    }
    assert missing == {"account.otp_requested"}


@pytest.mark.parametrize("type_", sorted(EVENT_TYPES))
def test_nobody_waits_for_the_journals_confirm_of_what_somebody_else_wants(type_):
    exchange = EVENT_TYPES[type_].EXCHANGE
    if exchange != topology.COMMANDS:  # strangers publish these, and write no journal
        assert "journal" not in bound(exchange, type_) or bound(exchange, type_) == {"journal"}


@pytest.mark.parametrize(
    ("pattern", "taken"),
    [
        ("#", {"order", "order.created", "order.created.twice"}),
        ("order.#", {"order", "order.created", "order.created.twice"}),
        ("order.*", {"order.created"}),
        ("*", {"order"}),
        ("order.created", {"order.created"}),
        ("*.created.#", {"order.created", "order.created.twice"}),
        ("secret.#", set()),
    ],
)
def test_bindings_are_matched_as_the_broker_does(pattern, taken):
    keys = ("order", "order.created", "order.created.twice")
    assert {key for key in keys if topology.matches(pattern, key)} == taken
