"""RabbitMQ killed, stopped, alarmed, cut off, stalled, slow; a queue deleted under us."""

import contextlib
import subprocess
import time

import pytest
from kombu import Connection

from tests.integration.arrange import until

AWAY_SECONDS = 60.0


@pytest.fixture(autouse=True)
def broker_is_back(stand, whole):
    yield
    stand.bus.open()
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        stand.broker.control("set_vm_memory_high_watermark", "0.4")
        stand.broker.control("set_disk_free_limit", "50MB")


def test_killed_and_started_again(stand):
    with stand.load() as load:
        for _ in range(2):
            stand.go_on(2)
            stand.broker.kill()
            stand.go_on(1)
            stand.broker.start()
            stand.go_on(3)
    stand.settle(load).accepted_all()


def test_stopped_for_a_while(stand):
    with stand.load() as load:
        stand.go_on(2)
        stand.broker.stop()
        stand.repeat(AWAY_SECONDS, lambda: stand.go_on(1))
        stand.broker.start()
        stand.go_on(2)
    stand.settle(load).accepted_all()


@pytest.mark.parametrize(
    ("raised", "lowered"),
    [
        (
            ("set_vm_memory_high_watermark", "absolute", "1"),
            ("set_vm_memory_high_watermark", "0.4"),
        ),
        (("set_disk_free_limit", "100000GB"), ("set_disk_free_limit", "50MB")),
    ],
    ids=["memory", "disk"],
)
def test_an_alarm(stand, raised, lowered):
    with stand.load() as load:
        stand.go_on(1)
        stand.broker.control(*raised)
        stand.go_on(6)
        stand.broker.control(*lowered)
        stand.go_on(2)
    stand.settle(load).accepted_all()


def test_connections_that_the_broker_closes(stand):
    with stand.load() as load:
        for _ in range(4):
            stand.go_on(1)
            stand.broker.control("close_all_connections", "maintenance")
    stand.settle(load).accepted_all()


def test_connections_that_are_cut(stand):
    with stand.load() as load:
        for _ in range(5):
            stand.go_on(stand.rng.uniform(0.5, 1.5))
            stand.bus.cut()
            stand.go_on(stand.rng.uniform(0.1, 1.5))
            stand.bus.open()
    stand.settle(load).accepted_all()


def test_a_broker_that_falls_silent(stand):
    with stand.load(rate=60) as load:
        stand.go_on(1)
        stand.bus.stall()
        stand.go_on(6)
        stand.bus.open()
        stand.go_on(2)
    balance = stand.settle(load)
    balance.accepted_all()
    assert balance.doubled == 0


def test_a_queue_that_somebody_deletes(stand):
    """The consumer makes it again; what came in between waited in the outbox."""
    with stand.load() as load:
        stand.go_on(1)
    stand.settle(load)
    with Connection(stand.amqp_url) as connection:
        connection.default_channel.queue_delete("orders.intake")
    with stand.load() as load:
        stand.go_on(2)

    def consumed():
        stand.supervisor.watch()
        with Connection(stand.amqp_url) as connection:
            try:
                declared = connection.default_channel.queue_declare("orders.intake", passive=True)
            except connection.channel_errors:
                return False
            return declared.consumer_count == 1

    until(consumed, "the queue is back, with its consumer", 60)
    stand.settle(load).accepted_all()


def test_with_both_away_every_answer_is_503_in_time(stand):
    stand.bus.cut()
    stand.books.cut()
    time.sleep(0.5)
    with stand.load(rate=60) as load:
        stand.go_on(6)
        # One that hangs counts as well, and is found by its status.
        stand.go_on_until(lambda: answered(load), "each sender has got an answer")
        during = len(load.sent)
        stand.bus.open()
        stand.books.open()
        stand.ready()
        stand.go_on(1)
    while_away = load.sent[:during]
    assert {sent.status for sent in while_away} == {503}
    assert all(int(sent.retry_after) >= 1 for sent in while_away)
    stand.settle(load)


def answered(load):
    """Whether each of its senders has got an answer, or has given one up."""
    senders = {sent.customer.partition("-")[0] for sent in load.sent}
    return len(senders) == load.connections
