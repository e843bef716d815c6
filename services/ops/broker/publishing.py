"""Publishing copies to a queue, each of them confirmed, many outstanding at once."""

import time
from collections.abc import Sequence
from typing import Any

from amqp import Message as AmqpMessage
from kombu import Connection

CONFIRM_SECONDS = 30.0


class NotPublishedError(ConnectionError):
    """Not all messages are known to be safe; those that are will be doubles when it is repeated."""


def publish(connection: Connection, queue: str, messages: Sequence[AmqpMessage]) -> None:
    """Publish to a queue, through the default exchange, and return when all are confirmed.

    Args:
        connection: an open kombu connection; what else it consumes goes on meanwhile.
        queue: its name.
        messages: in this order.

    Raises:
        NotPublishedError: there is no such queue, the broker refused, or did not confirm in time.
        Exception: of kombu or py-amqp.
    """
    with connection.channel() as channel:
        confirmed: set[int] = set()
        done = 0

        def confirm(tag: int, multiple: bool) -> None:
            nonlocal done
            if multiple:
                done = max(done, tag)
                confirmed.difference_update({t for t in confirmed if t <= tag})
            else:
                confirmed.add(tag)

        def refuse(tag: int, multiple: bool) -> None:
            raise NotPublishedError(f"the broker refused message {tag} (multiple: {multiple})")

        def come_back(_: Exception, *__: Any) -> None:
            raise NotPublishedError(f"there is no queue {queue}")

        channel.confirm_select()
        channel.events["basic_ack"].add(confirm)
        channel.events["basic_nack"].add(refuse)
        channel.events["basic_return"].add(come_back)
        for message in messages:
            # Without `mandatory` the broker confirms what it throws away.
            channel.basic_publish(message, exchange="", routing_key=queue, mandatory=True)
        deadline = time.monotonic() + CONFIRM_SECONDS
        while done + len(confirmed) < len(messages):
            if time.monotonic() > deadline:
                raise NotPublishedError(f"no confirm within {CONFIRM_SECONDS:g} s")
            connection.drain_events(timeout=CONFIRM_SECONDS)
