"""Which rights it takes to send a message of a queue on, mend it, or throw it away.

What a service does at a command's word is done as by whoever may give that command: so whoever
sends a dead command on needs the right to give it.
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
"""The right beside `messages`, by the work queue; the others take that one alone."""


def of_queues(names: Collection[str]) -> frozenset[Right]:
    """The rights that what lies in work queues takes.

    Args:
        names: of the queues.
    """
    return frozenset({Right.MESSAGES, *(OF_QUEUES[name] for name in names if name in OF_QUEUES)})


def of_message(exchange: str, key: str) -> frozenset[Right]:
    """The rights that a message takes which is to be published.

    Args:
        exchange: to which exchange; the empty one is the default exchange.
        key: by which routing key.
    """
    reached = {queue.name for queue in topology.WORK_QUEUES if topology.takes(queue, exchange, key)}
    # Of these every ingress worker ends secrets and blocks, from a queue of its own.
    ends = any(topology.matches(pattern, key) for pattern in topology.FEED_KEYS)
    return of_queues(reached | ({key} if not exchange else set())) | (
        {Right.KYC} if ends else set()
    )


def lacking(user: User, needed: Collection[Right]) -> str:
    """What a user lacks, in words; empty where they may.

    Args:
        user: who.
        needed: what it takes.
    """
    names = sorted(right for right in needed if not user.may(right))
    if not names:
        return ""
    rights = f"right {names[0]}" if len(names) == 1 else f"rights {' and '.join(names)}"
    return f"This needs the {rights}, which you have not."
