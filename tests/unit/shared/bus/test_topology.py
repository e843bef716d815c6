"""The rules that every queue must obey, whoever adds one."""

import re
import zlib

import pytest
from kombu.transport.virtual.exchange import TopicExchange
from msgspec.structs import replace

from shared.bus.contract import journal, topology
from shared.bus.contract.events import EVENT_TYPES
from shared.bus.contract.message import message_for, sharded
from shared.config.settings import MOST_SHARDS
from shared.ids import new_id
from tests.integration.arrange import order_created


@pytest.mark.parametrize("queue", topology.WORK_QUEUES, ids=lambda queue: queue.name)
def test_work_queues_cannot_lose_a_message(queue):
    arguments = queue.arguments
    assert arguments["x-queue-type"] == "quorum"
    assert arguments["x-delivery-limit"] == 20
    assert arguments["x-dead-letter-exchange"] == topology.DEAD
    assert arguments["x-dead-letter-routing-key"] == queue.name
    assert arguments["x-dead-letter-strategy"] == "at-least-once"
    assert arguments["x-overflow"] == "reject-publish"


QUORUM_QUEUES = [q for q in topology.QUEUES if q.arguments["x-queue-type"] == "quorum"]


@pytest.mark.parametrize("queue", QUORUM_QUEUES, ids=lambda queue: queue.name)
def test_no_queue_leaves_its_delivery_limit_to_the_broker(queue):
    """RabbitMQ 3 has none by default, 4 has 20, by which looking into a queue empties it."""
    limit = 20 if queue in topology.WORK_QUEUES else topology.OUT_OF_REACH
    assert queue.arguments["x-delivery-limit"] == limit


def test_every_work_queue_has_a_dead_queue():
    dead = {
        (binding.key, queue.name) for queue in topology.DEAD_QUEUES for binding in queue.bindings
    }
    assert dead == {(queue.name, queue.dead) for queue in topology.WORK_QUEUES}


@pytest.mark.parametrize("queue", topology.RETRY_QUEUES, ids=lambda queue: queue.name)
def test_a_rung_hands_back_by_the_unchanged_key(queue):
    assert queue.arguments["x-dead-letter-exchange"] == ""
    assert "x-dead-letter-routing-key" not in queue.arguments
    (rung,) = [rung for rung in topology.RETRY_DELAYS if rung.name == queue.name]
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


def test_one_shard_is_the_queue_itself_and_nothing_more():
    assert topology.shards(1) == ()
    assert {topology.shard_of(str(new_id()), 1) for _ in range(100)} == {0}


@pytest.mark.parametrize("shard", topology.shards(MOST_SHARDS), ids=lambda queue: queue.name)
def test_what_fails_in_a_shard_is_its_queues(shard):
    """So nothing on the ladder or among the dead needs a shard that may be gone by then."""
    placed = {"x-queue-leader-locator": "balanced"}
    assert shard.arguments == topology.ORDERS_INTAKE.arguments | placed
    assert topology.whole(shard.name) == topology.ORDERS_INTAKE.name
    assert re.fullmatch(topology.SHARDS, shard.name)


def test_no_other_queue_is_a_part():
    for queue in (*topology.QUEUES, topology.shards(2)[0]):
        is_shard = queue.name == "orders.intake.1"
        assert topology.whole(queue.name) == ("orders.intake" if is_shard else queue.name)
    assert topology.whole("orders.intake.0") == "orders.intake.0"


def test_an_account_is_in_the_same_shard_in_every_version():
    """Who changes this splits an account over two queues for as long as versions run together."""
    ids = [f"0199a1b2-0000-7000-8000-00000000000{last}" for last in range(8)]
    assert [topology.shard_of(id_, 4) for id_ in ids] == [zlib.crc32(i.encode()) % 4 for i in ids]
    assert [topology.shard_of(id_, 4) for id_ in ids] == [3, 1, 3, 1, 2, 0, 2, 0]


def test_a_message_goes_where_its_account_does_and_says_the_same():
    for account in (new_id() for _ in range(50)):
        first, second = (
            message_for(order_created(account), source="tests", correlation_id=new_id())
            for _ in range(2)
        )
        routed = sharded(first, 4)
        assert replace(routed, exchange=first.exchange, routing_key=first.routing_key) == first
        number = topology.shard_of(str(account), 4)
        way = ("intake.shards", f"orders.intake.{number}") if number else ("intake", first.type)
        assert (routed.exchange, routed.routing_key) == way
        assert (sharded(second, 4).exchange, sharded(second, 4).routing_key) == way


@pytest.mark.parametrize("body", [b"", b"{}", b"[1]", b'{"account_id": 7}', b"\xff", b"[" * 9999])
def test_what_does_not_say_whose_it_is_stays_in_the_first(body):
    sent = message_for(order_created(), source="tests", correlation_id=new_id())
    assert sharded(replace(sent, body=body), 4).exchange == topology.INTAKE


def test_a_fact_has_no_shard():
    sent = message_for(order_created(), source="tests", correlation_id=new_id())
    assert sharded(replace(sent, exchange="events"), 64).exchange == "events"
