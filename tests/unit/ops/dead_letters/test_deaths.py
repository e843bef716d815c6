"""What tells one death of a message from another of the same message."""

from services.ops.dead_letters.letter import Letter
from shared.bus.consume.batch import Delivery
from shared.bus.consume.requeue import Requeuer
from shared.bus.contract import topology
from shared.bus.contract.delivery import Incoming
from shared.bus.contract.errors import Permanent
from shared.ids import new_id

QUEUE = topology.KYC_DECISIONS


def test_a_message_that_dies_again_at_once_is_another_letter():
    """Put back, it fails again by the same within the second: nobody has settled that one yet."""
    requeuer = Requeuer("amqp://fellow:x@localhost//", QUEUE, "services.kyc", lambda _: None)
    incoming = Incoming(b"{}", {"message_id": str(new_id())}, {}, "")
    letters = []
    for _ in range(3):
        message = requeuer.copy(Delivery(1, incoming), Permanent("no such business")).routed.message
        message.delivery_info = {"exchange": topology.DEAD, "routing_key": QUEUE.name}
        letters.append(Letter.of(QUEUE, message, 0, "fellow_kyc"))
    assert len({letter.death for letter in letters}) == 3
