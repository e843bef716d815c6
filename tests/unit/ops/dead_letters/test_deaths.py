"""The identity of a death, and letters that must not be replayed."""

import pytest
from amqp import Message

from services.ops.dead_letters.authors import is_orphaned
from services.ops.dead_letters.letter import Letter
from shared.bus.consume.batch import Delivery
from shared.bus.consume.requeue import Requeuer
from shared.bus.contract import topology
from shared.bus.contract.delivery import RawDelivery
from shared.bus.contract.errors import Malformed, Permanent
from shared.ids import new_id

QUEUE = topology.KYC_DECISIONS


def test_a_second_death_within_a_second_has_another_id():
    """Replayed, it may fail again within the second, before the first letter is settled."""
    requeuer = Requeuer("amqp://fellow:x@localhost//", QUEUE, "services.kyc", lambda _: None)
    incoming = RawDelivery(b"{}", {"message_id": str(new_id())}, {}, "")
    letters = []
    for _ in range(3):
        message = requeuer.copy(Delivery(1, incoming), Permanent("no such business")).routed.message
        message.delivery_info = {"exchange": topology.DEAD, "routing_key": QUEUE.name}
        letters.append(Letter.of(QUEUE, message, 0, "fellow_kyc"))
    assert len({letter.death for letter in letters}) == 3


@pytest.mark.parametrize(
    ("exchange", "key", "stays"),
    [
        (topology.COMMANDS, "kyc.decide", False),
        (topology.COMMANDS, "secret.rotate", True),  # by a CC of kyc.decide
        (topology.EVENTS, "kyc.approved", True),
        ("", QUEUE.name, True),  # by a user who may not make copies
        ("ingress.secrets.mine", "kyc.decide", True),
        ("notifier.urgent", QUEUE.name, True),
    ],
)
def test_a_misrouted_letter_is_not_replayed(exchange, key, stays):
    """A replay's copy would lose the foreign route, and be believed."""
    requeuer = Requeuer("amqp://fellow_kyc:x@localhost//", QUEUE, "services.kyc", lambda _: None)
    properties = {"message_id": str(new_id()), "user_id": "fellow_ingress"}
    came = RawDelivery(b"{}", properties, {}, exchange, routing_key=key)
    message = requeuer.copy(Delivery(1, came), Malformed("not here")).routed.message
    message.delivery_info = {"exchange": topology.DEAD, "routing_key": QUEUE.name}
    assert is_orphaned(Letter.of(QUEUE, message, 0, "fellow_kyc"), None) == stays


@pytest.mark.parametrize(
    ("exchange", "stays"), [(topology.COMMANDS, False), ("ingress.secrets.mine", True)]
)
def test_a_misrouted_letter_that_the_broker_gave_up_is_not_replayed(exchange, stays):
    death = {"queue": QUEUE.name, "exchange": exchange, "routing-keys": ["kyc.decide"]}
    message = Message(b"{}", application_headers={"x-death": [death]}, user_id="ada")
    message.delivery_info = {"exchange": topology.DEAD, "routing_key": QUEUE.name}
    assert is_orphaned(Letter.of(QUEUE, message, 0, "fellow_kyc"), None) == stays
