"""The publisher, on a real broker."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import pika
import pytest
from kombu import Connection
from msgspec.structs import replace
from pika import frame as pika_frame
from prometheus_client import REGISTRY

from services.ingress.webhook.acceptor import Acceptor
from services.ops.journal import reading
from shared.bus.contract import journal, topology
from shared.bus.contract.delivery import RawDelivery
from shared.bus.contract.message import message_for
from shared.bus.publish.confirms import (
    ConfirmTimeoutError,
    NoShardError,
    OverloadedError,
    ReturnedError,
    UnavailableError,
)
from shared.bus.publish.framing import publish_frames
from shared.bus.publish.publisher import Publisher
from shared.db.models import OutboxMessage
from tests.integration.arrange import (
    PATIENCE,
    ago,
    declare,
    depth,
    headers,
    order_created,
    orders_of_shards,
    take,
    until,
)

FRAME_MAX = 131_072


def message(**changes):
    made = message_for(order_created(), source="tests", correlation_id="story")
    return replace(made, **changes)


@asynccontextmanager
async def publishing(amqp_url, **changes):
    options = {"max_outstanding": 1000, "confirm_timeout": PATIENCE, "heartbeat": 30}
    publisher = Publisher(amqp_url, name="tests", **(options | changes))
    await publisher.start()
    await connected(publisher)
    try:
        yield publisher
    finally:
        await publisher.stop()


async def connected(publisher):
    await asyncio.to_thread(until, lambda: publisher.state == "connected", "connected")


def test_what_is_published_arrives_whole(amqp_url):
    sent = message(body='{"é": 1}'.encode(), traceparent="00-" + "a" * 32 + "-" + "b" * 16 + "-01")

    async def story():
        async with publishing(amqp_url) as publisher:
            await publisher.publish(sent)

    asyncio.run(story())
    got = take(amqp_url, topology.ORDERS_INTAKE.name)
    assert got.body == sent.body
    assert headers(got) == sent.headers()
    properties = got.properties
    assert properties["message_id"] == sent.message_id
    assert properties["type"] == "order.created"
    assert properties["delivery_mode"] == 2
    assert properties["content_type"] == "application/json"
    assert properties["correlation_id"] == "story"


def test_many_are_outstanding_at_once_and_all_are_confirmed(amqp_url):
    sent = [message() for _ in range(2000)]

    async def story():
        async with publishing(amqp_url, max_outstanding=5000) as publisher:
            await asyncio.gather(*(publisher.publish(m) for m in sent))
            assert publisher.outstanding == 0

    asyncio.run(story())
    assert depth(amqp_url, topology.ORDERS_INTAKE.name) == 2000


def test_a_body_of_several_frames_arrives_whole(amqp_url):
    body = b'"' + b"x" * 300_000 + b'"'

    async def story():
        async with publishing(amqp_url) as publisher:
            await publisher.publish(message(body=body))

    asyncio.run(story())
    got = take(amqp_url, topology.ORDERS_INTAKE.name)
    assert got.body == body


def test_what_no_queue_wants_is_returned_and_the_rest_is_not(amqp_url):
    async def story():
        async with publishing(amqp_url) as publisher:
            lost = message(exchange="dead", routing_key="nowhere")
            results = await asyncio.gather(
                publisher.publish(message()),
                publisher.publish(lost),
                publisher.publish(message()),
                return_exceptions=True,
            )
            assert [type(result) for result in results] == [type(None), ReturnedError, type(None)]

    asyncio.run(story())


def test_each_copy_that_no_queue_wants_is_returned(amqp_url):
    """Requests with one idempotency key are messages of one id, under way at once.

    The broker acknowledges several returns in one frame when it likes, so that is made here.
    """
    copy = message(exchange="dead", routing_key="nowhere")

    async def story():
        async with publishing(amqp_url) as publisher:
            tags = []
            confirm = publisher._on_confirm
            publisher._on_confirm = lambda tag, multiple, acked: tags.append(tag)
            futures = [publisher.send(copy) for _ in range(3)]
            await asyncio.to_thread(until, lambda: len(tags) == 3, "returned")
            confirm(max(tags), True, acked=True)
            await asyncio.sleep(0)
            assert states(futures) == ["failed"] * 3

    asyncio.run(story())


def test_the_number_outstanding_is_bounded(amqp_url):
    async def story():
        async with publishing(amqp_url, max_outstanding=10) as publisher:
            futures = [publisher.send(message()) for _ in range(10)]
            with pytest.raises(OverloadedError):
                publisher.send(message())
            await asyncio.gather(*futures)
            assert publisher.outstanding == 0
            # The journal's own are not counted: as many orders again, after a turn of the loop.
            futures = [publisher.send(message()) for _ in range(9)]
            await asyncio.sleep(0)
            futures.append(publisher.send(message()))
            await asyncio.gather(*futures)
            await publisher.publish(message())

    asyncio.run(story())


def test_without_a_broker_it_says_so_at_once():
    async def story():
        publisher = Publisher(
            "amqp://guest:guest@127.0.0.1:1/",
            name="tests",
            max_outstanding=10,
            confirm_timeout=5.0,
            heartbeat=30,
        )
        await publisher.start()
        await asyncio.to_thread(
            until, lambda: publisher.standing.status.state == "away", "it has tried"
        )
        assert publisher.state == "away"
        with pytest.raises(UnavailableError):
            await publisher.publish(message())
        await publisher.stop()

    asyncio.run(story())


def test_it_reconnects_and_declares_the_topology_again(amqp_url, broker):
    vhost = amqp_url.rpartition("/")[2]

    async def story():
        async with publishing(amqp_url) as publisher:
            await publisher.publish(message())
            for name in (topology.ORDERS_INTAKE.name, topology.JOURNAL.name):
                broker.control("delete_queue", name, f"--vhost={vhost}")
            broker.control("close_all_connections", f"--vhost={vhost}", "a test")
            await asyncio.to_thread(until, lambda: publisher.state != "connected", "cut")
            await connected(publisher)
            await publisher.publish(message())

    asyncio.run(story())
    assert depth(amqp_url, topology.ORDERS_INTAKE.name) == 1


class Frozen:
    """A proxy in front of the broker that can stop passing anything on."""

    def __init__(self, port):
        self._port = port
        self._writers = []
        self.passing = asyncio.Event()
        self.passing.set()

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_):
        self._server.close()

    def cut(self):
        for writer in self._writers:
            writer.transport.abort()

    async def _serve(self, reader, writer):
        to_reader, to_writer = await asyncio.open_connection("127.0.0.1", self._port)
        self._writers += [writer, to_writer]
        await asyncio.gather(
            self._pump(reader, to_writer), self._pump(to_reader, writer), return_exceptions=True
        )

    async def _pump(self, reader, writer):
        while data := await reader.read(65536):
            await self.passing.wait()
            writer.write(data)
            await writer.drain()
        writer.close()


def test_a_broker_that_does_not_confirm_costs_one_timeout_and_then_nothing(amqp_url):
    parameters = pika.URLParameters(amqp_url)

    async def story():
        async with Frozen(parameters.port) as proxy:
            url = amqp_url.replace(f":{parameters.port}/", f":{proxy.port}/")
            async with publishing(url) as publisher:
                await publisher.publish(message())
                usual = publisher._confirm_timeout
                proxy.passing.clear()
                publisher._confirm_timeout = 0.5
                with pytest.raises(ConfirmTimeoutError):
                    await publisher.publish(message())
                assert publisher.state == "stalled"
                with pytest.raises(UnavailableError):
                    publisher.send(message())
                assert publisher.outstanding == 1
                proxy.passing.set()
                await connected(publisher)
                assert publisher.outstanding == 0
                publisher._confirm_timeout = usual
                await publisher.publish(message())

    asyncio.run(story())


def test_a_lost_connection_fails_what_is_outstanding(amqp_url, broker):
    parameters = pika.URLParameters(amqp_url)

    async def story():
        async with Frozen(parameters.port) as proxy:
            url = amqp_url.replace(f":{parameters.port}/", f":{proxy.port}/")
            async with publishing(url) as publisher:
                proxy.passing.clear()
                future = publisher.send(message())
                proxy.cut()
                with pytest.raises(UnavailableError):
                    await future
                proxy.passing.set()

    asyncio.run(story())


def refuse(publisher, tag):
    method = type("Method", (), {"delivery_tag": tag, "multiple": False})
    publisher._on_nack(type("Frame", (), {"method": method}))


def test_confirms_out_of_order_and_multiple(amqp_url):
    """The broker orders confirms as it likes, so the order is made here."""

    async def story():
        async with publishing(amqp_url) as publisher:
            publisher._flush = lambda: None  # what is sent stays here
            one = message(exchange="", routing_key="orders.intake")
            futures = [publisher.send(one) for _ in range(6)]
            first = publisher._tag - 5
            publisher._on_ack(first + 4, False)
            publisher._on_ack(first + 2, True)
            refuse(publisher, first + 3)
            await asyncio.sleep(0)
            assert states(futures) == [*["confirmed"] * 3, "failed", "confirmed", "waiting"]
            publisher._on_ack(first + 5, False)

    asyncio.run(story())


def states(futures):
    return [
        "waiting" if not f.done() else "failed" if f.exception() else "confirmed" for f in futures
    ]


@pytest.mark.parametrize("outcome", ["confirmed", "failed"])
def test_an_order_is_safe_when_the_journal_has_it_too(amqp_url, outcome):
    async def story():
        async with publishing(amqp_url) as publisher:
            publisher._flush = publisher._write_journal  # what is sent stays here
            futures = [publisher.send(message()) for _ in range(3)]
            first = publisher._tag - 2
            await asyncio.sleep(0)
            assert publisher._tag == first + 3, "one message for the journal"
            publisher._on_ack(first + 2, True)
            assert states(futures) == ["waiting"] * 3
            if outcome == "confirmed":
                publisher._on_ack(first + 3, False)
            else:
                refuse(publisher, first + 3)
            assert states(futures) == [outcome] * 3
            publisher._frames.clear()

    asyncio.run(story())


def test_the_journal_has_what_was_published_in_as_many_messages_as_it_takes(amqp_url, monkeypatch):
    sent = [message(traceparent="00-" + "a" * 32 + "-" + "b" * 16 + "-01") for _ in range(20)]
    size = len(journal.event(sent[0]))
    monkeypatch.setattr(journal, "MAX_BYTES", 5 * size)

    async def story():
        async with publishing(amqp_url) as publisher:
            first = publisher._tag
            await asyncio.gather(*(publisher.send(one) for one in sent))
            assert publisher._tag - first == 24

    begin = datetime.now(UTC) - timedelta(seconds=1)
    asyncio.run(story())
    with Connection(amqp_url) as connection:
        kept = list(reading.read(connection, begin, datetime.now(UTC)))
        taken = [RawDelivery.of(take(amqp_url, topology.ORDERS_INTAKE.name)) for _ in sent]
    assert len(kept) == 20
    for entry, got in zip(kept, taken, strict=True):
        assert (entry.incoming.body, entry.incoming.exchange) == (got.body, got.exchange)
        assert entry.key == "order.created"
        same = ("message_id", "type", "correlation_id", "content_type")
        assert {name: entry.incoming.properties[name] for name in same} == {
            name: got.properties[name] for name in same
        }
        assert entry.incoming.headers == {k: v for k, v in got.headers.items() if k[0] != "x"}


def test_without_a_journal_orders_are_accepted_all_the_same(amqp_url):
    async def story():
        async with publishing(amqp_url) as publisher:
            with Connection(amqp_url) as connection:
                connection.default_channel.queue_delete(topology.JOURNAL.name)
            await publisher.publish(message())

    asyncio.run(story())
    assert depth(amqp_url, topology.ORDERS_INTAKE.name) == 1


def test_orders_that_the_journal_does_not_get_are_counted(amqp_url):
    """All those that are on the bus: a recovery by the journal would not know of them."""

    def counted():
        return REGISTRY.get_sample_value("fellow_journal_missed_total")

    async def story():
        async with publishing(amqp_url) as publisher:
            with Connection(amqp_url) as connection:
                name = topology.JOURNAL.name
                connection.default_channel.queue_unbind(name, name, "#")
            gone, failed, *futures = [publisher.send(message()) for _ in range(4)]
            gone.cancel()  # whoever sent it waits no more
            failed.set_exception(ConfirmTimeoutError("tried again"))
            await asyncio.gather(failed, *futures, return_exceptions=True)
            return states([failed, *futures])

    began = counted()
    assert asyncio.run(story()) == ["failed", "confirmed", "confirmed"]
    assert counted() - began == 3


@pytest.mark.parametrize("size", [0, 1, 500, FRAME_MAX - 8, FRAME_MAX - 7, 3 * FRAME_MAX])
def test_the_frames_are_what_pika_reads(size):
    sent = message(body=b"x" * size)
    data, frames = publish_frames(1, sent, FRAME_MAX), []
    while data:
        used, found = pika_frame.decode_frame(data)
        data = data[used:]
        frames.append(found)
    method, header, *bodies = frames
    assert (method.method.exchange, method.method.routing_key) == ("intake", "order.created")
    assert method.method.mandatory
    assert header.body_size == size
    assert header.properties.headers == sent.headers()
    assert header.properties.message_id == sent.message_id
    assert header.properties.timestamp == int(sent.time.timestamp())
    assert b"".join(body.fragment for body in bodies) == sent.body


def test_topology_that_differs_is_left_alone(bare_amqp_url):
    with Connection(bare_amqp_url) as connection:
        connection.default_channel.queue_declare("orders.intake", durable=True, auto_delete=False)

    async def story():
        publisher = Publisher(
            bare_amqp_url, name="tests", max_outstanding=1, confirm_timeout=1, heartbeat=30
        )
        await publisher.start()
        await asyncio.to_thread(
            until, lambda: publisher.standing.status.state == "refused", "it has tried"
        )
        state = publisher.state
        await publisher.stop()
        return state

    assert asyncio.run(story()) == "away"
    assert depth(bare_amqp_url, "orders.intake") == 0


SHARDS = [topology.ORDERS_INTAKE.name, *(queue.name for queue in topology.shards(4))]


def waiting_in(amqp_url, names=SHARDS):
    return [depth(amqp_url, name) for name in names]


def of_each_shard():
    return orders_of_shards(4, each=2)


def send(amqp_url, sent, **options):
    async def story():
        async with publishing(amqp_url, **options) as publisher:
            return await asyncio.gather(
                *(publisher.publish(m) for m in sent), return_exceptions=True
            )

    return asyncio.run(story())


def test_what_an_account_sends_is_in_one_queue_of_several(amqp_url):
    declare(amqp_url, 4)
    began, sent = ago(seconds=1), of_each_shard()
    assert send(amqp_url, sent, shards=4) == [None] * 8
    assert waiting_in(amqp_url) == [2, 2, 2, 2]
    for first, name in zip(sent[::2], SHARDS, strict=True):
        got = take(amqp_url, name)
        assert (got.body, headers(got)) == (first.body, first.headers())
    # The journal knows of no shards.
    with Connection(amqp_url) as connection:
        kept = [(e.incoming.exchange, e.key) for e in reading.read(connection, began)]
    assert kept == [("intake", "order.created")] * 8


def test_publishers_that_know_fewer_shards_go_on_beside(amqp_url):
    """A rolling upgrade, and a version that knows none."""
    declare(amqp_url, 4)
    for shards, waiting in ((4, [2, 2, 2, 2]), (1, [10, 2, 2, 2]), (2, None)):
        assert send(amqp_url, of_each_shard(), shards=shards) == [None] * 8
        if waiting:
            assert waiting_in(amqp_url) == waiting
    assert sum(waiting_in(amqp_url)) == 24
    assert waiting_in(amqp_url)[2:] == [2, 2]


def test_a_shard_that_is_not_there_is_never_taken_for_safe(amqp_url, settings, db):
    """What is returned is in the outbox before it is accepted; all that follows in the queue."""
    declare(amqp_url, 2)
    first, *rest = reversed(of_each_shard())

    async def story():
        with ThreadPoolExecutor(1) as threads:
            async with publishing(amqp_url, shards=4) as publisher:
                acceptor = Acceptor(publisher, threads, max_waiting=10)
                for message in (first, *rest):
                    await acceptor.accept(message)
                return acceptor.fallbacks

    assert asyncio.run(story()) == 1
    assert [str(row.message_id) for row in db.query(OutboxMessage)] == [first.message_id]
    assert waiting_in(amqp_url, SHARDS[:2]) == [7, 0]


def test_several_under_way_to_shards_that_are_not_there(amqp_url):
    declare(amqp_url, 2)
    sent = of_each_shard()
    results = send(amqp_url, sent, shards=4)
    assert [type(result) for result in results] == [type(None)] * 4 + [NoShardError] * 4
    assert waiting_in(amqp_url, SHARDS[:2]) == [2, 2]


def test_without_the_exchange_of_the_shards_all_is_published_as_before(amqp_url):
    """To publish to an exchange that is not there closes the channel, and all that is under way
    loses its confirm."""
    assert send(amqp_url, of_each_shard(), shards=4) == [None] * 8
    assert depth(amqp_url, topology.ORDERS_INTAKE.name) == 8


def test_nothing_more_comes_into_shards_that_are_retired(amqp_url):
    """Then what is in them can only become less, until they may be deleted."""
    assert declare(amqp_url, 4) == []
    assert send(amqp_url, of_each_shard(), shards=4) == [None] * 8
    assert declare(amqp_url, 2) == SHARDS[2:]
    # A publisher that does not know yet.
    send(amqp_url, of_each_shard(), shards=4)
    assert send(amqp_url, of_each_shard(), shards=2) == [None] * 8
    assert waiting_in(amqp_url)[2:] == [2, 2]
    assert declare(amqp_url, 4) == []
    assert send(amqp_url, of_each_shard(), shards=4) == [None] * 8
    assert waiting_in(amqp_url)[2:] == [4, 4]
