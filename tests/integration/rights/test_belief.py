"""What a consumer believes is what the broker vouches for, by CC, BCC, retries and headers too.

Every user of the broker publishes whatever it may, by every exchange and key, to every key by CC
and BCC (which RabbitMQ checked no right for before pull request 12553), in everybody's name. What
lies in the queues afterwards is read as the consumers and the tools read it.
"""

import itertools
import time

import pytest
from amqp import Message
from amqp.exceptions import AccessRefused
from kombu import Connection

from services.ops.audit.actions import Actor
from services.ops.dead_letters import actions
from services.ops.dead_letters.letter import Criteria, Letter
from services.secrets.__main__ import wire
from shared.bus.consume.subscription import Subscription, decoding
from shared.bus.contract import topology
from shared.bus.contract.delivery import Incoming, believed
from shared.bus.contract.errors import Malformed
from shared.bus.contract.events import EVENT_TYPES, AccountBlock
from shared.bus.contract.message import message_for
from shared.bus.contract.permissions import RIGHTS
from shared.db.models import WebhookPolicy
from shared.security.service_accounts import CONSOLE, login
from stack.servers.credentials import as_service
from tests.integration.arrange import account, consuming, depth, until

WORK = [queue.name for queue in topology.WORK_QUEUES]
KEYS = [
    *EVENT_TYPES,
    *(f"{topology.BULK}{type_}" for type_ in EVENT_TYPES if type_.startswith("order.")),
    *WORK,
    *(queue.dead for queue in topology.WORK_QUEUES),
    "anything",
]
# By CC and BCC each queue is reached by its name and, on topic exchanges, by a key of its bindings.
COPIES = [
    *WORK,
    *(queue.dead for queue in topology.WORK_QUEUES),
    *(
        next(key for key in KEYS if topology.matches(binding.key, key))
        for queue in topology.WORK_QUEUES
        for binding in queue.bindings
    ),
]
EXCHANGES = ["", *(exchange.name for exchange in topology.EXCHANGES)]
LADDER = [rung.name for rung in topology.RETRY_LADDER]
SOMEBODY = "somebody"
FORGED = [
    {"x-user-id": SOMEBODY, "x-acting-user": SOMEBODY},
    {"x-user-id": login(CONSOLE), "x-acting-user": SOMEBODY},
    {"x-user-id": login("kyc"), "x-acting-user": SOMEBODY},
]

MAY_REACH = {
    "ingress": {"orders.intake", "secrets.rotate"},
    "kyc": {"kyc.decisions"},
    "secrets": {"secrets.issue", "secrets.rotate"},
    "orders": {"orders.intake"},
    "notifier": {"notifier.urgent", "notifier.orders", "notifier.bulk"},
    "audit": {"audit"},
    "relay": {*WORK} - {"kyc.decisions"},
    "ops": {*WORK},
    "console": {*WORK},
    "operator": {"kyc.decisions"},
}
"""Where what they send is handled."""


def test_every_user_is_tried():
    assert set(MAY_REACH) == set(RIGHTS)


class Publisher:
    """Publishes as one user, and goes on after each refusal."""

    def __init__(self, url, user):
        self._connection = Connection(as_service(url, user))
        self._channel = self._connection.channel()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._connection.release()

    def may(self, exchange, key, headers, **properties):
        try:
            self._channel.basic_publish_confirm(
                Message(b"{}", application_headers=headers, delivery_mode=2, **properties),
                exchange=exchange,
                routing_key=key,
            )
        except AccessRefused:  # py-amqp has opened it again
            return False
        return True


def publish_everything(url, user):
    """All that the user may publish; returns how many messages that were."""
    count = 0
    names = itertools.cycle(itertools.product(FORGED, ({}, {"user_id": login(user)})))
    with Publisher(url, user) as publisher:
        for exchange, key in itertools.product(EXCHANGES, KEYS):
            headers, properties = next(names)
            if not publisher.may(exchange, key, headers, **properties):
                continue
            count += 1
            for copies in ("CC", "BCC"):
                headers, properties = next(names)
                if publisher.may(exchange, key, {**headers, copies: COPIES}, **properties):
                    count += 1
                    continue
                # A broker that checks these too: what it lets through, one by one.
                for one in COPIES:
                    alone = {**headers, copies: [one]}
                    count += publisher.may(exchange, key, alone, **properties)
    return count


def taken(url, queue):
    with Connection(url) as connection:
        while message := connection.default_channel.basic_get(queue, no_ack=True):
            yield message


@pytest.mark.parametrize("user", MAY_REACH)
def test_nobody_is_handled_or_believed_beyond_their_rights(amqp_url, user):
    assert publish_everything(amqp_url, user) > 0
    until(lambda: depth(amqp_url, LADDER[0]) == 0, "it is back from the ladder")
    reached, seen = set(), 0
    for queue in topology.WORK_QUEUES:
        owner = queue.name.partition(".")[0]
        known = believed(queue.name, login(owner))
        # The console says who is signed in, and a queue's own service whose message it put off.
        vouches = user in (CONSOLE, owner)
        for message in taken(amqp_url, queue.name):
            seen += 1
            incoming = Incoming.of(message, known)
            if topology.misrouted(queue, incoming.exchange, incoming.routing_key):
                continue
            reached.add(queue.name)
            if not vouches:
                assert incoming.user_id in (None, login(user)), incoming
                assert incoming.actor in (None, login(user)), incoming
                assert incoming.person is None, incoming
        for message in taken(amqp_url, queue.dead):
            letter = Letter.of(queue, message, 0, login("ops"))
            if not vouches and user != "ops":
                assert letter.user in (None, login(user)), letter
                assert letter.person == "", letter
    assert reached == MAY_REACH[user]
    assert seen > 0


def types_under_each_key(url, user):
    """Of each topic exchange that is ours, every type under every key that the user may use."""
    with Publisher(url, user) as publisher:
        for exchange, key in itertools.product((topology.COMMANDS, topology.EVENTS), KEYS):
            for type_ in EVENT_TYPES:
                if not publisher.may(exchange, key, {}, type=type_):
                    break


@pytest.mark.parametrize("user", ["ingress", "relay", "ops", "operator"])
def test_nobody_says_under_one_key_what_they_may_not_say_by_another(amqp_url, user):
    """The broker looks at keys, and knows nothing of types."""
    types_under_each_key(amqp_url, user)
    taken_as = set()
    for queue in topology.WORK_QUEUES:
        everything = Subscription(
            queue=queue,
            handle=lambda *_: None,
            consumer="tests",
            decode=lambda incoming: incoming.received(incoming.properties["type"], None),
        )
        decode = decoding(everything)
        for message in taken(amqp_url, queue.name):
            incoming = Incoming.of(message)
            try:
                taken_as.add((incoming.routing_key, decode(incoming).type))
            except Malformed:
                continue
    assert taken_as
    assert {key.removeprefix(topology.BULK) == type_ for key, type_ in taken_as} == {True}


def test_whose_key_is_to_rotate_blocks_nobody(settings, db, amqp_url):
    """Neither at once nor when the dead letter is replayed as it is."""
    business, queue = account(db), topology.SECRETS_ROTATE
    command = message_for(
        AccountBlock(account_id=business.id, blocked=True, reason="."),
        source="tests",
        correlation_id=business.id,
    )
    with (
        consuming(settings, *wire(settings).subscriptions),
        Connection(as_service(amqp_url, "ingress")) as connection,
    ):
        for deaths in range(2):
            if deaths:
                time.sleep(1.1)  # two deaths in one second are one to the tool
                with Connection(amqp_url) as ops:
                    actions.replay(ops, db.get_bind(), queue, Criteria(), Actor("ada", "192.0.2.1"))
                assert depth(amqp_url, queue.name) == 0
            else:
                connection.default_channel.basic_publish_confirm(
                    Message(command.body, type=command.type, message_id=command.message_id),
                    exchange=topology.COMMANDS,
                    routing_key="secret.rotate",
                )
            until(lambda: depth(amqp_url, queue.dead) == 1, "dead")
    db.rollback()
    assert db.get(WebhookPolicy, business.id) is None


def test_the_person_on_the_console_is_believed(amqp_url):
    with Publisher(amqp_url, CONSOLE) as publisher:
        headers = {"x-acting-user": "ada"}
        assert publisher.may("commands", "kyc.decide", headers, user_id=login(CONSOLE))
    (message,) = taken(amqp_url, "kyc.decisions")
    incoming = Incoming.of(message, believed("kyc.decisions", login("kyc")))
    assert (incoming.actor, incoming.person) == (f"ada ({login(CONSOLE)})", "ada")
