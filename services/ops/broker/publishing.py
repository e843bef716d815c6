"""Publishing copies to a queue in a batch, with confirms."""

from collections.abc import Sequence

from amqp import Message as AmqpMessage
from kombu import Connection

from shared.bus.broker import confirmed
from shared.bus.broker.confirmed import Routed

CONFIRM_SECONDS = 30.0


def publish(connection: Connection, queue: str, messages: Sequence[AmqpMessage]) -> None:
    """Publish messages to a queue through the default exchange, and wait for all confirms.

    Args:
        connection: an open kombu connection, whose other consumers go on meanwhile.
        queue: the queue's name.
        messages: the messages, in this order.

    Raises:
        NotPublishedError: there is no such queue, the broker refused, or did not confirm in time.
        Exception: of kombu or py-amqp.
    """
    routed = [Routed(message, "", queue) for message in messages]
    published = confirmed.publish(connection, routed, CONFIRM_SECONDS)
    if published.error is not None:
        raise published.error
