"""A broker of several addresses: one that is away, silent, in alarm or dies is left for the next.

The second is the real broker, and so are first ones that die: by a gate before it.
"""

import asyncio
import socket
from contextlib import closing, suppress

import pytest

from services.ops.broker.connection import ALARM, AlarmProbe, open_connection
from services.ops.doctor import broker_checks, checks
from services.ops.monitoring import heartbeats
from services.ops.monitoring.queue_stats import Sample
from services.ops.monitoring.sampler import Sampler
from services.relay.rehearsal import Rehearsal
from shared.bus import declare
from shared.bus.broker import addresses, kombu_connection, pika_connection
from shared.bus.broker.standing import PartStatus
from shared.bus.consume.subscription import Subscription
from shared.bus.contract import topology
from shared.bus.contract.errors import Permanent
from shared.bus.contract.message import message_for
from shared.bus.publish.confirms import PublishError
from shared.db.session import transaction
from shared.telemetry import heartbeat
from shared.telemetry.heartbeat import QueueFigures
from tests.integration.arrange import PATIENCE, ago, consuming, depth, order_created, publish, until
from tests.integration.bus.test_publisher import connected, publishing
from tests.integration.gate import Gate
from tests.integration.ops.command import run_fellow

QUEUE = topology.ORDERS_INTAKE


def at(url, port):
    return url.replace(addresses.place(url), f"127.0.0.1:{port}")


@pytest.fixture
def silent(amqp_url, monkeypatch):
    """An address that takes connections and never says a word; nobody waits long for it."""
    monkeypatch.setattr(pika_connection, "CONNECT_TIMEOUT", 0.5)
    opened = kombu_connection._open
    monkeypatch.setattr(
        kombu_connection, "_open", lambda url, among, _, options: opened(url, among, 0.5, options)
    )
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield at(amqp_url, listener.getsockname()[1])


@pytest.fixture(params=["closed", "silent"])
def away(request, amqp_url, unused_port):
    """An address at which nobody answers."""
    if request.param == "silent":
        return request.getfixturevalue("silent")
    return at(amqp_url, unused_port())


def a_message():
    return message_for(order_created(), source="tests", correlation_id="story")


def of_queue(handle):
    return Subscription(queue=QUEUE, handle=handle, consumer="tests")


def refuse(*_):
    raise Permanent("nobody can do this")


def test_a_consumer_and_its_copies_pass_over_an_address_that_is_away(
    settings, configure, amqp_url, away
):
    config = configure(amqp_url=f"{away};{amqp_url}")
    publish(amqp_url, a_message())
    with consuming(config, of_queue(refuse)) as (consumer,):
        until(lambda: consumer.handled == 1, "handled")
        assert consumer.standing.where == addresses.place(amqp_url)
    assert depth(amqp_url, QUEUE.dead) == 1


def test_a_consumer_goes_on_at_the_next_address_when_its_own_dies(settings, configure, amqp_url):
    with Gate(amqp_url) as gate:
        config = configure(amqp_url=f"{gate.url};{amqp_url}")
        with consuming(config, of_queue(lambda *_: None)) as (consumer,):
            publish(amqp_url, a_message())
            until(lambda: consumer.handled == 1, "handled")
            assert consumer.standing.where == addresses.place(gate.url)
            gate.cut()
            publish(amqp_url, a_message())
            until(lambda: consumer.handled == 2, "and so is the next")
            assert consumer.standing.where == addresses.place(amqp_url)


def test_a_publisher_passes_over_an_address_that_is_away(amqp_url, away):
    async def story():
        async with publishing(f"{away};{amqp_url}") as publisher:
            assert publisher.standing.where == addresses.place(amqp_url)
            await publisher.publish(a_message())

    asyncio.run(story())
    assert depth(amqp_url, QUEUE.name) == 1


def test_a_publisher_goes_on_at_the_next_address_when_its_own_dies(amqp_url):
    async def story(gate):
        async with publishing(f"{gate.url};{amqp_url}") as publisher:
            await publisher.publish(a_message())
            await asyncio.to_thread(gate.cut)
            # Not when it is lost: it may be connected anew before anybody looks.
            there = addresses.place(amqp_url)
            await asyncio.to_thread(until, lambda: publisher.standing.where == there, "the next")
            await connected(publisher)
            await publisher.publish(a_message())

    with Gate(amqp_url) as gate:
        asyncio.run(story(gate))
    assert depth(amqp_url, QUEUE.name) == 2


async def send(publisher):
    """Publish as far as it goes; what is not confirmed goes to the outbox in the product."""
    while publisher.state != "blocked":
        if publisher.state == "connected":
            # What a broker in alarm was sent has no confirm before the alarm is over.
            with suppress(PublishError, TimeoutError):
                async with asyncio.timeout(1):
                    await publisher.publish(a_message())
        await asyncio.sleep(0)


def test_an_alarm_is_left_for_each_other_node_once(amqp_url, broker, monkeypatch):
    """All have it here, as most alarms are a cluster's: the last is waited at, and used again."""
    tried = []
    opened = pika_connection._open
    monkeypatch.setattr(
        pika_connection, "_open", lambda *args: tried.append(args[0].port) or opened(*args)
    )
    for name in ("CONNECT_TIMEOUT", "SETUP_TIMEOUT", "AVOIDED_SECONDS"):
        monkeypatch.setattr(pika_connection, name, PATIENCE)  # a slow connect is no other address
    limit = broker.evaluate("vm_memory_monitor:get_vm_memory_high_watermark()")

    async def story(first, second):
        async with publishing(f"{first.url};{second.url};{amqp_url}") as publisher:
            broker.control("set_vm_memory_high_watermark", "0")
            try:
                async with asyncio.timeout(PATIENCE):
                    await send(publisher)
                    while len(tried) < 3 or publisher.state != "blocked":
                        await send(publisher)
                        await asyncio.sleep(0.05)
                assert publisher.standing.status.state == "holding"
                with closing(AlarmProbe(f"{first.url};{amqp_url}")) as probe:
                    assert await asyncio.to_thread(probe.check) == ALARM
                    assert await asyncio.to_thread(probe.check) == ALARM
            finally:
                broker.control("set_vm_memory_high_watermark", limit)
            await connected(publisher)
            await publisher.publish(a_message())

    with Gate(amqp_url) as first, Gate(amqp_url) as second:
        asyncio.run(story(first, second))
    assert len(set(tried)) == len(tried) == 3


def test_the_tools_of_operators_pass_over_an_address_that_is_away(
    settings, configure, amqp_url, away
):
    urls = f"{away};{amqp_url}"
    config = configure(amqp_url=urls)
    with open_connection(urls) as connection:
        assert connection.place == addresses.place(amqp_url)
    with closing(Sampler(urls, None)) as sampler:
        sample = sampler.take()
    assert (sample.broker_error, sample.alarm) == (None, None)
    rehearsal = Rehearsal(urls)
    rehearsal.try_out(a_message())
    rehearsal.close()
    with declare._open(urls) as connection:
        assert connection.place == addresses.place(amqp_url)
    found = {check.about: check for check in broker_checks.broker(config)}
    assert found["broker"].state == found["topology"].state == "fine"
    assert addresses.place(amqp_url) in found["broker"].found
    assert found["nodes"].state == "look"
    assert "1 of 2" in found["nodes"].found
    assert addresses.place(away) in found["nodes"].found


def test_a_probe_and_a_sampler_go_on_at_the_next_address_when_their_own_dies(amqp_url):
    with Gate(amqp_url) as gate:
        urls = f"{gate.url};{amqp_url}"
        with closing(Sampler(urls, None)) as sampler, closing(AlarmProbe(urls)) as probe:
            assert sampler.take().broker_error is None
            assert probe.check() is None
            gate.cut()
            until(lambda: sampler.take().broker_error is None, "it samples again")
        with closing(AlarmProbe(urls)) as probe:
            assert probe.check() is None


def test_the_doctor_says_which_nodes_the_services_use(settings):
    figures = {
        part: QueueFigures(PartStatus("working"), where=where)
        for part, where in (("orders.intake", "rabbit1:5672"), ("relay", "rabbit2:5672"))
    }
    with transaction() as session:
        heartbeat.HeartbeatWriter("services.orders").beat(session, figures)
    with transaction() as session:
        sample = Sample(at=ago(), beats=heartbeats.read(session, ago()), broker_error="not asked")
    (services,) = [found for found in checks._running(sample, ()) if found.about == "services"]
    assert "(by rabbit1:5672: 1, rabbit2:5672: 1)" in services.found


def test_fellow_uses_the_address_that_answers(settings, amqp_url, unused_port, monkeypatch):
    away = at(amqp_url, unused_port())
    given = {"DATABASE_URL": settings.database_url, "ENVIRONMENT": "test"}
    code, out, err = run_fellow(["queues"], given | {"AMQP_URL": f"{away};{amqp_url}"})
    assert (code, QUEUE.name in out) == (0, True), err
    other = at(amqp_url, unused_port())
    code, out, err = run_fellow(["queues"], given | {"AMQP_URL": f"{away};{other}"})
    assert code == 1
    for url in (away, other):
        assert f"{addresses.place(url)}: [Errno 111]" in err
        assert addresses.credentials(url)[1] not in err
    another = amqp_url.replace("//", "//someone-", 1)
    code, out, err = run_fellow(["queues"], given | {"AMQP_URL": f"{amqp_url};{another}"})
    assert (code, out) == (2, "")
    assert "AMQP_URL: all addresses must have one user" in err
    assert addresses.credentials(amqp_url)[1] not in err


def test_who_is_refused_is_told_so_whatever_else_is_away(amqp_url, unused_port):
    user = addresses.credentials(amqp_url)[0]
    wrong = addresses.signed_in_as(f"{amqp_url};{at(amqp_url, unused_port())}", user, "wrong")
    with pytest.raises(Exception, match="ACCESS_REFUSED"):
        open_connection(wrong)
