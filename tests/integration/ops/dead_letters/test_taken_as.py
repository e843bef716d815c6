"""Every way to copy a message keeps what says how it is to be taken, and believes no stranger."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from kombu import Connection
from sqlalchemy import Engine

from services.ops.audit.actions import Actor
from services.ops.broker.hold import hold, scan, verbatim_copy
from services.ops.customers import messages_on_bus
from services.ops.customers.erasure import Person
from services.ops.dead_letters import actions, editing, retry_queue
from services.ops.dead_letters.letter import Criteria
from shared.bus.consume.subscription import Subscription
from shared.bus.contract import topology
from shared.bus.contract.delivery import RawDelivery
from shared.bus.contract.errors import Permanent, Retry
from shared.bus.contract.events import OrderCreated
from shared.bus.contract.message import Message, message_for
from shared.config.settings import Settings
from shared.db.session import make_engine
from shared.security.service_accounts import login
from stack.servers.credentials import as_service
from tests.integration.arrange import (
    consuming,
    depth,
    headers,
    order_created,
    publish_raw,
    take,
    until,
)

INTAKE = topology.ORDERS_INTAKE
ADA = Actor("ada", "10.0.0.7")
TAKEN_AS = {"x-replay": "again", "x-happened": True}
RUNG = "retry.1h"


@pytest.fixture
def service():
    return "ops"


@dataclass
class Stand:
    """What a way to copy may use: its own user's connections, and the recorder's settings."""

    bus: Connection
    books: Engine
    recorder: Callable[[], Settings]
    amqp_url: str
    order: OrderCreated

    def place(self, exchange: str, publisher: str = "orders") -> Message:
        """As the recorder leaves what has failed, of a copy from the journal.

        Args:
            exchange: where to.
            publisher: the service; empty for a stranger whom the broker vouches for no name of.
        """
        message = message_for(self.order, source="tests", correlation_id=self.order.order_id)
        publish_raw(
            as_service(self.amqp_url, publisher) if publisher else self.amqp_url,
            exchange,
            message.type if exchange == topology.INTAKE else INTAKE.name,
            message.body,
            type=message.type,
            message_id=message.message_id,
            delivery_mode=2,
            application_headers=message.headers() | {"x-attempt": 3} | TAKEN_AS,
            **({"user_id": login(publisher)} if publisher else {}),
        )
        queue = {topology.DEAD: INTAKE.dead, "": INTAKE.name, topology.INTAKE: INTAKE.name}.get(
            exchange, exchange
        )
        until(lambda: depth(self.amqp_url, queue) == 1, "there")
        return message

    def fail(self, error: Exception) -> None:
        """What is in the queue fails."""

        def handle(session: Any, received: Any) -> None:
            raise error

        subscription = Subscription(queue=INTAKE, handle=handle, consumer="services.orders")
        with consuming(self.recorder(), subscription):
            until(lambda: depth(self.amqp_url, INTAKE.name) == 0, "taken")

    def erase(self) -> None:
        address = self.order.customer_details.email
        person = Person.of(address, {address: re.escape(address)})
        found = messages_on_bus.erase(self.bus, self.books, person, ADA, "DPO-17")
        assert sum(found.places.values()) == 1


@pytest.fixture
def stand(settings, configure, amqp_url, database_url):
    books = make_engine(settings)
    with Connection(settings.amqp_url) as bus:
        yield Stand(
            bus,
            books,
            lambda: configure(
                amqp_url=as_service(amqp_url, "orders"),
                database_url=as_service(database_url, "orders"),
            ),
            amqp_url,
            order_created(),
        )
    books.dispose()


def replayed(stand: Stand) -> str:
    stand.place(topology.DEAD)
    assert actions.replay(stand.bus, stand.books, INTAKE, Criteria(), ADA).done == 1
    return INTAKE.name


def edited(stand: Stand) -> str:
    message = stand.place(topology.DEAD)
    assert editing.edit(stand.bus, stand.books, INTAKE, message.message_id, message.body, ADA)
    return INTAKE.name


def erased_among_the_dead(stand: Stand) -> str:
    stand.place(topology.DEAD)
    stand.erase()
    return INTAKE.dead


def erased_and_replayed(stand: Stand) -> str:
    erased_among_the_dead(stand)
    assert actions.replay(stand.bus, stand.books, INTAKE, Criteria(), ADA).done == 1
    return INTAKE.name


def erased_on_the_ladder(stand: Stand) -> str:
    stand.place(RUNG)
    stand.erase()
    return INTAKE.name


def erased_in_the_queue(stand: Stand) -> str:
    stand.place("", "ops")
    stand.erase()
    return INTAKE.name


def looked_at(stand: Stand) -> str:
    stand.place("", "ops")
    scan(stand.bus, INTAKE.name, verbatim_copy)
    return INTAKE.name


def retried_now(stand: Stand) -> str:
    stand.place(RUNG)
    assert retry_queue.retry_now(stand.bus, stand.books, INTAKE, ADA).done == 1
    return INTAKE.name


def failed(stand: Stand) -> str:
    stand.place("", "ops")
    stand.fail(Retry("not yet"))
    waiting = [rung.name for rung in topology.RETRY_DELAYS if depth(stand.amqp_url, rung.name)]
    (rung,) = waiting
    return rung


def failed_for_good(stand: Stand) -> str:
    stand.place("", "ops")
    stand.fail(Permanent("never"))
    return INTAKE.dead


def given_up_by_the_broker(stand: Stand) -> str:
    stand.place("", "ops")
    with Connection(stand.amqp_url) as connection:
        channel = connection.channel()
        while message := channel.basic_get(INTAKE.name):
            channel.basic_reject(message.delivery_tag, requeue=True)
    until(lambda: depth(stand.amqp_url, INTAKE.dead) == 1, "given up")
    assert actions.replay(stand.bus, stand.books, INTAKE, Criteria(), ADA).done == 1
    return INTAKE.name


WAYS = (
    replayed,
    edited,
    erased_among_the_dead,
    erased_and_replayed,
    erased_on_the_ladder,
    erased_in_the_queue,
    looked_at,
    retried_now,
    failed,
    failed_for_good,
    given_up_by_the_broker,
)


@pytest.mark.parametrize("way", WAYS)
def test_a_copy_is_taken_as_the_message_is(stand, way):
    found = headers(take(stand.amqp_url, way(stand)))
    assert {name: found.get(name) for name in TAKEN_AS} == TAKEN_AS


def test_of_another_body_nothing_has_happened(stand):
    message = stand.place(topology.DEAD)
    other = message.body.replace(b"Lagos", b"Abuja")
    assert other != message.body
    assert editing.edit(stand.bus, stand.books, INTAKE, message.message_id, other, ADA)
    found = headers(take(stand.amqp_url, INTAKE.name))
    assert {name: found.get(name) for name in TAKEN_AS} == TAKEN_AS | {"x-happened": None}


@pytest.mark.parametrize("publisher", ["", "relay"], ids=["without a name", "another's"])
@pytest.mark.parametrize("action", ["replay", "edit", "erase"])
def test_what_a_stranger_wrote_on_what_the_broker_gave_up_is_not_believed(stand, publisher, action):
    message = stand.place(topology.INTAKE, publisher)
    with Connection(stand.amqp_url) as connection:
        channel = connection.channel()
        while got := channel.basic_get(INTAKE.name):
            channel.basic_reject(got.delivery_tag, requeue=True)
    until(lambda: depth(stand.amqp_url, INTAKE.dead) == 1, "given up")
    queue = INTAKE.name
    if action == "erase":
        stand.erase()
        queue = INTAKE.dead
    elif action == "edit":
        editing.edit(stand.bus, stand.books, INTAKE, message.message_id, message.body, ADA)
    else:
        actions.replay(stand.bus, stand.books, INTAKE, Criteria(), ADA)
    assert not TAKEN_AS.keys() & headers(take(stand.amqp_url, queue)).keys()


@pytest.mark.parametrize("exchange", ["events", "commands"])
def test_what_the_broker_gave_up_has_the_key_that_it_came_with(stand, exchange):
    """By it is told what its publisher may say, of this copy as of one that a service has made."""
    queue, key = {
        "events": (topology.SECRETS_ISSUE, "kyc.approved"),
        "commands": (topology.SECRETS_ROTATE, "webhook.limit"),
    }[exchange]
    publish_raw(stand.amqp_url, exchange, key, b"{}", type=key, delivery_mode=2)
    with Connection(stand.amqp_url) as connection:
        channel = connection.channel()
        while message := channel.basic_get(queue.name):
            channel.basic_reject(message.delivery_tag, requeue=True)
    until(lambda: depth(stand.amqp_url, queue.dead) == 1, "given up")
    with hold(stand.bus, queue.dead) as held:
        (message,) = held.take(1)
        assert RawDelivery.of(message).first_key == key
        copied = verbatim_copy(RawDelivery.of(message), "fellow_ops")
    assert copied.headers["x-key"] == key


def test_a_dead_letter_of_a_replay_takes_effect_when_it_is_replayed(stand):
    """The inbox knows it, from when it was handled first."""
    handled: list[Any] = []
    errors: list[Exception] = []

    def handle(session: Any, received: Any) -> None:
        if errors:
            raise errors[0]
        handled.extend(received)

    subscription = Subscription(queue=INTAKE, handle=handle, consumer="services.orders", keyed=True)
    message = message_for(stand.order, source="tests", correlation_id=stand.order.order_id)
    said = {"type": message.type, "message_id": message.message_id, "delivery_mode": 2}
    publish_raw(stand.amqp_url, "intake", message.type, message.body, **said)
    with consuming(stand.recorder(), subscription):
        until(lambda: handled, "handled")
    errors.append(Permanent("the disk is full of bees"))
    again = {"application_headers": {"x-replay": "again"}}
    publish_raw(stand.amqp_url, "", INTAKE.name, message.body, **said | again)
    with consuming(stand.recorder(), subscription):
        until(lambda: depth(stand.amqp_url, INTAKE.dead) == 1, "dead")
    errors.clear()
    with Connection(as_service(stand.amqp_url, "ops")) as bus:
        assert actions.replay(bus, stand.books, INTAKE, Criteria(), ADA).done == 1
    with consuming(stand.recorder(), subscription):
        until(lambda: len(handled) == 2, "handled again")
    assert {str(one.id) for one in handled} == {message.message_id}
