"""Services that die, are restarted, or meet a message that kills them."""

import os
import signal

import pytest
from kombu import Connection

from shared.bus.consume.session import SUSPICIOUS_DELIVERIES
from shared.bus.contract.message import message_for
from stack.supervisor import MODULES
from tests.faults.poisonous import POISON
from tests.integration.arrange import (
    depth,
    headers,
    order_created,
    publish,
    publish_raw,
    take,
    until,
)

KILLS = 200
SERVICES = list(MODULES)


def kill(stand, name, how=signal.SIGKILL):
    pid = stand.supervisor.pid(name)
    if pid is not None:
        os.kill(pid, how)


@pytest.mark.parametrize("name", SERVICES)
def test_each_service_killed(stand, name):
    with stand.load() as load:
        stand.go_on(1)
        for _ in range(3):
            kill(stand, name)
            stand.go_on(1.5)
        stand.ready()
        stand.go_on(1)
    balance = stand.settle(load)
    assert balance.accepted
    if name != "ingress":
        assert set(balance.answers) == {201}
    if name != "notifier":
        assert balance.doubled == 0


def test_two_hundred_kills_at_random(stand):
    kills = []

    def step():
        name = stand.rng.choice([*SERVICES, "worker"])
        if name == "worker":
            stand.kill_worker()
        else:
            kill(stand, name)
        kills.append(name)
        stand.go_on(stand.rng.expovariate(4))

    with stand.load() as load:
        while len(kills) < KILLS:
            step()
        stand.repeat(0, step)
        stand.ready()
        stand.go_on(1)
    balance = stand.settle(load)
    assert balance.accepted
    # A double needs a crash between SMTP's answer and the commit: at most a batch a kill.
    assert balance.doubled <= kills.count("notifier") * 64


def test_a_rolling_restart_is_not_noticed(stand):
    with stand.load() as load:
        stand.go_on(1)
        for _ in range(2):
            for name in SERVICES:
                # gunicorn starts new workers and lets the old ones finish.
                kill(stand, name, signal.SIGHUP if name == "ingress" else signal.SIGTERM)
                stand.go_on(3)
        stand.ready()
    balance = stand.settle(load)
    balance.accepted_all()
    assert balance.doubled == 0


def test_a_message_that_cannot_be_handled_harms_no_neighbour(stand):
    before = depth(stand.amqp_url, "orders.intake.dead")
    with stand.load() as load:
        for body in (b"", b"{", b'{"order_id": "x"}', b"\xff" * 100, b"[" * 10_000):
            for _ in range(20):
                publish_raw(
                    stand.amqp_url,
                    "intake",
                    "order.created",
                    body,
                    type="order.created",
                    delivery_mode=2,
                )
            stand.go_on(0.3)
        good = order_created()
        message = message_for(good, source="tests", correlation_id=good.order_id)
        publish_raw(stand.amqp_url, "intake", "order.created", message.body, type="order.created")
        until(lambda: depth(stand.amqp_url, "orders.intake.dead") == before + 100, "dead")
    empty(stand, "orders.intake.dead")
    balance = stand.settle(load)
    assert set(balance.answers) == {201}


def test_a_message_that_kills_its_process_every_time_ends_dead_and_alone(stand):
    """Each death costs it a delivery, and its neighbours none: the broker gives up on it at 20."""
    kills = []

    def restarted():
        pid = stand.supervisor.pid("orders")
        if pid and pid not in kills:
            kills.append(pid)
        stand.go_on(0.1)
        return depth(stand.amqp_url, "orders.intake.dead") == 1

    poison = order_created(item_summary=POISON)
    message = message_for(poison, source="tests", correlation_id=poison.order_id)
    with stand.load(rate=40) as load:
        stand.supervisor.swap("orders", "tests.faults.poisonous")
        kill(stand, "orders")
        stand.go_on(2)
        publish(stand.amqp_url, message)
        # Twenty starts of a process, each of which may take half a minute on a busy machine.
        until(restarted, "dead", 20 * 30)
        stand.supervisor.swap("orders", MODULES["orders"])
        kill(stand, "orders")
        stand.go_on(1)
    assert len(kills) > SUSPICIOUS_DELIVERIES
    dead = take(stand.amqp_url, "orders.intake.dead")
    # The broker's own limit, and not ours: no process lived long enough to say anything.
    assert headers(dead)["x-first-death-reason"] == "delivery_limit"
    assert dead.properties["message_id"] == message.message_id
    stand.settle(load).accepted_all()


def empty(stand, queue):
    with Connection(stand.amqp_url) as connection:
        connection.default_channel.queue_purge(queue)
