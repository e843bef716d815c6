"""What a consumer believes is what the broker vouches for, by CC, BCC, retries and headers too.

Every user of the broker publishes whatever it may, by every exchange and key, to every key by CC
and BCC (which RabbitMQ checked no right for before pull request 12553), in everybody's name. What
lies in the queues afterwards is read as the consumers and the tools read it.
"""

import itertools

import pytest
from amqp import Message
from amqp.exceptions import AccessRefused
from kombu import Connection

from services.ops.dead_letters.letter import Letter
from shared.bus.contract import topology
from shared.bus.contract.delivery import Incoming, believed
from shared.bus.contract.events import EVENT_TYPES
from shared.bus.contract.permissions import RIGHTS
from shared.security.service_accounts import CONSOLE, login
from stack.servers.credentials import as_service
from tests.integration.arrange import depth, until

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
        self._channel = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._connection.release()

    def may(self, exchange, key, headers, **properties):
        self._channel = self._channel or self._connection.channel()
        try:
            self._channel.basic_publish_confirm(
                Message(b"{}", application_headers=headers, delivery_mode=2, **properties),
                exchange=exchange,
                routing_key=key,
            )
        except AccessRefused:
            self._channel = None
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


def test_the_person_on_the_console_is_believed(amqp_url):
    with Publisher(amqp_url, CONSOLE) as publisher:
        headers = {"x-acting-user": "ada"}
        assert publisher.may("commands", "kyc.decide", headers, user_id=login(CONSOLE))
    (message,) = taken(amqp_url, "kyc.decisions")
    incoming = Incoming.of(message, believed("kyc.decisions", login("kyc")))
    assert (incoming.actor, incoming.person) == (f"ada ({login(CONSOLE)})", "ada")
