"""The declaration of a consumer by its service."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from shared.bus.consume.batch import BatchHandler, Decode
from shared.bus.consume.rehearsals.trying import Rehearsed
from shared.bus.contract import topology
from shared.bus.contract.delivery import RawDelivery, decode_by_type
from shared.bus.contract.errors import Malformed
from shared.bus.contract.message import Received


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscription:
    """A queue and what is done with its messages.

    Attributes:
        queue: from the topology.
        handle: a batch handler; `batch.each` makes one of plain handlers.
        consumer: the name of the inbox.
        batch_size: the most messages of one transaction.
        most_under_way: how many further messages may be under way outside the database; added to
            the prefetch.
        batch_seconds: how long the first message of a batch waits for others.
        decode: from a delivery to what the handler is given.
        shards: the expected number of queues that hold its messages. Missing ones are looked for
            again and again; additional ones are consumed too.
        in_order: whether messages take effect one by one in the order of the queue. Of several
            processes one consumes, and another takes over when that one ends.
        needs: checks what is needed beside the database, and raises `Hold` if it is unreachable.
        keyed: whether each effect has its own unique key that outlives the journal, so that a
            message may be handled again although the inbox knows it; see `message.Replay`.
        rehearsed: makes the handler for rehearsals; None if messages are not to be rehearsed.
    """

    queue: topology.Queue
    handle: BatchHandler
    consumer: str
    batch_size: int = 100
    most_under_way: int = 0
    batch_seconds: float = 0.02
    decode: Decode = decode_by_type
    shards: int = 1
    in_order: bool = False
    needs: Callable[[], None] | None = None
    keyed: bool = False
    rehearsed: Rehearsed | None = None


def decoding(subscription: Subscription) -> Decode:
    """Return the subscription's decoder behind checks of where a message came from.

    A publisher's rights are to exchanges and routing keys. So a message is refused unread unless it
    came by a binding of the queue, and its type agrees with its key.
    """
    queue = subscription.queue

    @lru_cache(maxsize=256)
    def misrouted(exchange: str, key: str) -> str:
        return topology.misrouted(queue, exchange, key)

    def decode(incoming: RawDelivery) -> Received[Any]:
        if reason := misrouted(incoming.exchange, incoming.routing_key):
            raise Malformed(
                f"{reason}, which is none of {queue.name}'s: sent there by CC or BCC, or by a "
                "binding that is not ours"
            )
        if reason := incoming.misnamed:
            raise Malformed(reason)
        return subscription.decode(incoming)

    return decode
