"""A queue and what is done with its messages, as a service says it."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from shared.bus.consume.batch import BatchHandler, Decode
from shared.bus.consume.rehearsals.trying import Rehearsed
from shared.bus.contract import topology
from shared.bus.contract.delivery import Incoming, decode_by_type
from shared.bus.contract.errors import Malformed
from shared.bus.contract.message import Received


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscription:
    """A queue and what is done with its messages.

    Attributes:
        queue: from the topology.
        handle: a batch handler; `batch.each` makes one of plain handlers.
        consumer: the name of the inbox.
        batch_size: how many messages share a transaction at most.
        batch_seconds: how long the first message of a batch waits for others.
        decode: from what came to what the handler sees.
        in_order: whether its messages take effect one by one in the order of the queue: of several
            processes one consumes, and another when that one ends.
        needs: looks for what is needed beside the database, and raises `Hold` where it is away.
        keyed: whether each effect has a key of its own, which outlives the journal, so that a
            message may be handled again although the inbox knows it; see `message.Replay`.
        rehearsed: makes the handler for trying what a message would do; None where that is not to
            be tried.
    """

    queue: topology.Queue
    handle: BatchHandler
    consumer: str
    batch_size: int = 100
    batch_seconds: float = 0.02
    decode: Decode = decode_by_type
    in_order: bool = False
    needs: Callable[[], None] | None = None
    keyed: bool = False
    rehearsed: Rehearsed | None = None


def decoding(subscription: Subscription) -> Decode:
    """What is not from where the queue's messages come from is not even read.

    Nor is what is of another type than its key says: a publisher's rights are to keys.
    """
    queue = subscription.queue

    @lru_cache(maxsize=256)
    def misrouted(exchange: str, key: str) -> str:
        return topology.misrouted(queue, exchange, key)

    def decode(incoming: Incoming) -> Received[Any]:
        if reason := misrouted(incoming.exchange, incoming.routing_key):
            raise Malformed(
                f"{reason}, which is none of {queue.name}'s: sent there by CC or BCC, or by a "
                "binding that is not ours"
            )
        if reason := incoming.misnamed:
            raise Malformed(f"{reason}: whoever may publish the one may not say the other by it")
        return subscription.decode(incoming)

    return decode
