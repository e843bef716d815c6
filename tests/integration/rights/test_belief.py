"""What a consumer believes is what the broker vouches for, by CC, BCC, retries and headers too.

Every user of the broker publishes whatever it may, by every exchange and key, to every key by CC
and BCC (which RabbitMQ checked no right for before pull request 12553), in everybody's name. What
lies in the queues afterwards is read as the consumers and the tools read it.
"""

import itertools
import re
import time

import pytest
from amqp import Message
from amqp.exceptions import AccessRefused
from kombu import Connection

from services.kyc.parsing import decode_decision
from services.ops.audit.actions import Actor
from services.ops.customers import messages_on_bus
from services.ops.customers.erasure import Person
from services.ops.dead_letters import actions
from services.ops.dead_letters.actions import copy_of
from services.ops.dead_letters.authors import is_orphaned
from services.ops.dead_letters.letter import Criteria, Letter
from services.ops.dead_letters.retry_queue import retry_now
from services.ops.users import users
from services.secrets.__main__ import wire
from shared.bus.broker.declaration import declare
from shared.bus.consume.batch import Delivery
from shared.bus.consume.requeue import Requeuer
from shared.bus.consume.subscription import Subscription, decoding
from shared.bus.contract import topology
from shared.bus.contract.delivery import RawDelivery, believed
from shared.bus.contract.errors import Malformed, Permanent
from shared.bus.contract.events import EVENT_TYPES, AccountBlock
from shared.bus.contract.message import message_for
from shared.bus.contract.permissions import NOTHING, RIGHTS
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
LADDER = [rung.name for rung in topology.RETRY_DELAYS]
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
            incoming = RawDelivery.of(message, known)
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


MENTIONED = "zoe@kettle.example"
DECISION = b'{"decision": "approve", "email": "%b"}' % MENTIONED.encode()
DECLARERS = sorted(user for user, rights in RIGHTS.items() if rights.configure != NOTHING)


class Builder:
    """Declares what a user may, to have the broker carry what they may not publish.

    The rights to declare are to names, whatever stands under them; and the broker checks no right
    on the keys of what it routes from exchange to exchange or dead-letters.
    """

    def __init__(self, url, user):
        self._connection = Connection(as_service(url, user))
        own = [queue for queue in WORK if re.fullmatch(RIGHTS[user].configure, queue)]
        self.name = own[0] if own else "ingress.secrets.mine"
        self.user = user

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._connection.release()

    def may(self, act):
        channel = self._connection.channel()
        try:
            act(channel)
        except AccessRefused:
            return False
        channel.close()
        return True

    def send(self):
        """To the own exchange: each type by its key and by each queue's name, in each manner."""
        channel = self._connection.channel()
        said = [(type_, type_) for type_ in EVENT_TYPES]
        said += [(queue, type_) for queue, type_ in HANDLED]
        # Of a decision the queue says what it is.
        said += [(topology.KYC_DECISIONS.name, None), ("kyc.decide", None)] * 6
        manners = itertools.cycle(
            itertools.product(
                ({}, {"user_id": login(self.user)}),
                ({}, {"x-replay": "done", "x-happened": True}, {"x-user-id": login(CONSOLE)}),
            )
        )
        for key, type_ in said:
            properties, headers = next(manners)
            if "x-replay" in headers and type_:
                headers = headers | {"x-key": type_}
            if type_:
                properties = properties | {"type": type_}
            channel.basic_publish_confirm(
                Message(DECISION, application_headers=headers, **properties),
                exchange=self.name,
                routing_key=key,
            )
        channel.close()

    def through_an_exchange(self):
        """An exchange under the own name, bound to all that it can be bound to."""
        assert self.may(lambda c: c.exchange_declare(self.name, "fanout", auto_delete=False))
        for target in EXCHANGES[1:]:
            self.may(lambda c, t=target: c.exchange_bind(t, self.name, "#"))
        self.send()
        self.may(lambda c: c.exchange_delete(self.name))

    def through_a_queue(self):
        """A queue under the own name, which dead-letters into each exchange in its turn."""
        for target in EXCHANGES:
            arguments = {"x-message-ttl": 0, "x-dead-letter-exchange": target}
            self.may(lambda c: c.queue_delete(self.name))
            if self.may(
                lambda c, a=arguments: c.queue_declare(self.name, auto_delete=False, arguments=a)
            ):
                assert self.may(lambda c: c.exchange_declare(self.name, "fanout"))
                assert self.may(lambda c: c.queue_bind(self.name, self.name, ""))
                self.send()
                self.may(lambda c: c.exchange_delete(self.name))
        self.may(lambda c: c.queue_delete(self.name))


HANDLED = [
    (queue.name, next(t for t in EVENT_TYPES if topology.takes(queue, EVENT_TYPES[t].EXCHANGE, t)))
    for queue in topology.WORK_QUEUES
    if queue is not topology.NOTIFIER_BULK
]


def understood(queue, incoming):
    """What a consumer of a queue makes of it; None where it refuses it."""

    def decode(incoming):
        if queue is topology.KYC_DECISIONS:
            return decode_decision(incoming)
        if not incoming.properties.get("type"):
            raise Malformed("the message has no type property")
        return incoming.received(incoming.properties["type"], None)

    subscription = Subscription(
        queue=queue, handle=lambda *_: None, consumer="tests", decode=decode
    )
    try:
        return decoding(subscription)(incoming)
    except Malformed:
        return None


def refused(queue, incoming):
    """The letter that a consumer makes of what it refuses."""
    url = f"amqp://{login(queue.name.partition('.')[0])}:x@localhost//"
    requeuer = Requeuer(url, queue, "tests", lambda _: None)
    message = requeuer.copy(Delivery(1, incoming), Malformed("not here")).routed.message
    message.delivery_info = {"exchange": topology.DEAD, "routing_key": queue.name}
    return Letter.of(queue, message, 0, login("ops"))


def replayed(queue, letter, publisher, known):
    """What a consumer of a queue makes of a letter that is put back as it is; None: nothing."""
    if is_orphaned(letter, None):
        return None
    copy = copy_of(letter, publisher, ADA)
    properties = dict(copy.properties)
    headers = properties.pop("application_headers")
    return understood(
        queue, RawDelivery(copy.body, properties, headers, "", False, queue.name, known)
    )


ADA = Actor("ada", "192.0.2.1")
REPLAYERS = (login("ops"), login(CONSOLE), "administrator")


@pytest.mark.parametrize(
    ("user", "is_erased"),
    [*((user, False) for user in DECLARERS), ("ingress", True), ("notifier", True)],
)
def test_nobody_is_handled_beyond_their_rights_by_what_they_declare(amqp_url, db, user, is_erased):
    """Neither at once, nor when what is on the ladder or dead is put back by who may do that."""
    with Builder(amqp_url, user) as builder:
        builder.through_an_exchange()
        builder.through_a_queue()
    with Connection(amqp_url) as connection:
        declare(connection)  # the own queue, as it was
    until(lambda: depth(amqp_url, LADDER[0]) == 0, "it is back from the ladder")
    if is_erased:
        zoe = Person.of(MENTIONED, {MENTIONED: re.escape(MENTIONED)})
        with Connection(as_service(amqp_url, CONSOLE)) as console:
            assert messages_on_bus.erase(console, db.get_bind(), zoe, ADA, "DPO-17").places
    with Connection(as_service(amqp_url, "ops")) as ops:
        for queue in topology.WORK_QUEUES:
            retry_now(ops, db.get_bind(), queue, ADA)
    reached, seen = set(), 0
    for queue in topology.WORK_QUEUES:
        known = believed(queue.name, login(queue.name.partition(".")[0]))
        letters = []
        for message in taken(amqp_url, queue.name):
            incoming = RawDelivery.of(message, known)
            if understood(queue, incoming):
                reached.add(queue.name)
            else:
                letters.append(refused(queue, incoming))
        dead = taken(amqp_url, queue.dead)
        letters += [Letter.of(queue, message, 0, login("ops")) for message in dead]
        seen += len(letters)
        for letter, publisher in itertools.product(letters, REPLAYERS):
            if replayed(queue, letter, publisher, known):
                reached.add(queue.name)
    assert seen > 0
    assert reached <= MAY_REACH[user]


def test_nobody_is_one_by_putting_back_what_another_decided(amqp_url, db):
    """An administrator of the broker is a person where they decide themselves."""
    queue = topology.KYC_DECISIONS
    users.put(db, "ada", "kyc", "correct horse battery")
    db.commit()
    decisions = [{"user_id": login(CONSOLE)}, {}]
    with Publisher(amqp_url, CONSOLE) as console:
        for properties in decisions:
            headers = {"x-acting-user": "ada"}
            assert console.may(topology.COMMANDS, "kyc.decide", headers, **properties)
    known = believed(queue.name, login("kyc"))
    with Connection(as_service(amqp_url, "kyc")) as kyc, Connection(amqp_url) as administrator:
        requeuer = Requeuer(as_service(amqp_url, "kyc"), queue, "tests", lambda _: None)
        for message in list(taken(amqp_url, queue.name)):
            copy = requeuer.copy(
                Delivery(1, RawDelivery.of(message, known)), Permanent("no such one")
            )
            requeuer.publish(kyc, [copy], 5.0, lambda: True)
        until(lambda: depth(amqp_url, queue.dead) == len(decisions), "dead")
        done = actions.replay(administrator, db.get_bind(), queue, Criteria(), ADA).done
    assert done == len(decisions)
    back = [RawDelivery.of(message, known) for message in taken(amqp_url, queue.name)]
    assert [incoming.person for incoming in back] == [None, None]
    # Nor when its own service puts it off once more.
    copies = [requeuer.copy(Delivery(1, incoming), Permanent("again")) for incoming in back]
    assert {copy.routed.message.headers.get("x-user-id") for copy in copies} == {None}


@pytest.mark.parametrize("user", ["ingress", "notifier"])
def test_who_may_declare_blocks_nobody(settings, db, amqp_url, user):
    business, dead = account(db), topology.SECRETS_ROTATE.dead
    block = message_for(
        AccountBlock(account_id=business.id, blocked=True, reason="."),
        source="tests",
        correlation_id=business.id,
    )
    with Builder(amqp_url, user) as builder:
        name, key = builder.name, block.type
        if user == "notifier":
            key = "secrets.rotate"
            assert builder.may(lambda c: c.exchange_declare(name, "fanout", auto_delete=False))
            assert builder.may(lambda c: c.exchange_bind(LADDER[0], name, ""))
        else:
            arguments = {"x-message-ttl": 0, "x-dead-letter-exchange": topology.COMMANDS}
            assert builder.may(lambda c: c.exchange_declare(name, "fanout", auto_delete=False))
            assert builder.may(
                lambda c: c.queue_declare(name, auto_delete=False, arguments=arguments)
            )
            assert builder.may(lambda c: c.queue_bind(name, name, ""))
        with consuming(settings, *wire(settings).subscriptions):
            said = Message(block.body, type=block.type, message_id=block.message_id)
            builder.may(lambda c: c.basic_publish_confirm(said, exchange=name, routing_key=key))
            until(lambda: depth(amqp_url, dead) == 1, "dead")
    db.rollback()
    assert db.get(WebhookPolicy, business.id) is None


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
            incoming = RawDelivery.of(message)
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
                until(lambda: depth(amqp_url, queue.name) == 0, "none waits")
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
    incoming = RawDelivery.of(message, believed("kyc.decisions", login("kyc")))
    assert (incoming.actor, incoming.person) == (f"ada ({login(CONSOLE)})", "ada")
