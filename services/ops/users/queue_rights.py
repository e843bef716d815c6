"""The rights needed to replay, edit or discard a message, by its queue or its routing key.

A service carries out a command without a check of its own, so replaying a dead command needs the
right to give it.
"""

from collections.abc import Collection

from services.ops.users.rights import Right
from services.ops.users.users import User
from shared.bus.contract import topology

OF_QUEUES = {
    topology.KYC_DECISIONS.name: Right.KYC,
    topology.SECRETS_ISSUE.name: Right.KYC,
    topology.SECRETS_ROTATE.name: Right.KYC,
}
"""The right beside `messages`, by work queue; other queues need `messages` alone."""


def of_queues(names: Collection[str]) -> frozenset[Right]:
    """Return the rights needed for messages of these work queues."""
    return frozenset({Right.MESSAGES, *(OF_QUEUES[name] for name in names if name in OF_QUEUES)})


def of_message(exchange: str, key: str) -> frozenset[Right]:
    """Return the rights needed to publish a message.

    Args:
        exchange: the exchange; empty for the default exchange.
        key: the routing key.
    """
    reached = {queue.name for queue in topology.WORK_QUEUES if topology.takes(queue, exchange, key)}
    # Every ingress worker revokes secrets and blocks businesses by these, from its own queue.
    ends = any(topology.matches(pattern, key) for pattern in topology.FEED_KEYS)
    return of_queues(reached | ({key} if not exchange else set())) | (
        {Right.KYC} if ends else set()
    )


def lacking(user: User, needed: Collection[Right]) -> str:
    """Return a sentence about the rights that a user lacks; empty if none.

    Args:
        user: the user.
        needed: the needed rights.
    """
    names = sorted(right for right in needed if not user.may(right))
    if not names:
        return ""
    rights = f"right {names[0]}" if len(names) == 1 else f"rights {' and '.join(names)}"
    return f"This needs the {rights}, which you do not have."
