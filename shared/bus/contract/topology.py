"""The topology: every exchange, queue, binding and argument, as data.

A deployment declares it in a step of its own, as a user who may; where that was not done, whoever
starts first and may does it. Declaring is idempotent. It holds on RabbitMQ 3.10 and 4.x: quorum
queues, a delivery limit that is always set, at-least-once dead lettering.

Args that recur:
    x-delivery-limit: after so many redeliveries the broker dead-letters a message by itself.
        Set explicitly: 3.10 has no default, 4.x has 20, and -1 would lose messages.
    x-dead-letter-strategy: at-least-once. It needs x-overflow: reject-publish; with the default
        drop-head the broker silently falls back to at-most-once.
"""

from dataclasses import dataclass, field
from typing import Any

from shared.config.settings import JOURNAL_DAYS

DELIVERY_LIMIT = 20

INTAKE = "intake"
COMMANDS = "commands"
EVENTS = "events"
DEAD = "dead"


@dataclass(frozen=True, slots=True)
class Exchange:
    """A durable exchange."""

    name: str
    kind: str


@dataclass(frozen=True, slots=True)
class Binding:
    """Messages of `exchange` whose routing key matches `key` reach the queue."""

    exchange: str
    key: str


@dataclass(frozen=True, slots=True)
class Queue:
    """A durable queue."""

    name: str
    bindings: tuple[Binding, ...]
    arguments: dict[str, Any] = field(hash=False)

    @property
    def dead(self) -> str:
        """The name of the queue that its dead messages wait in."""
        return f"{self.name}.dead"


@dataclass(frozen=True, slots=True)
class Rung:
    """One rung of the retry ladder: a queue nobody consumes, which hands back after `seconds`."""

    name: str
    seconds: int


def _work(name: str, *bindings: Binding) -> Queue:
    return Queue(
        name,
        bindings,
        {
            "x-queue-type": "quorum",
            "x-delivery-limit": DELIVERY_LIMIT,
            "x-dead-letter-exchange": DEAD,
            "x-dead-letter-routing-key": name,
            "x-dead-letter-strategy": "at-least-once",
            "x-overflow": "reject-publish",
        },
    )


def _dead(work: Queue) -> Queue:
    # Looking at a message and putting it back counts as a delivery, and RabbitMQ 4 drops after 20
    # by default. A dead queue has nowhere further to send, so its limit is one nobody reaches.
    return Queue(
        work.dead,
        (Binding(DEAD, work.name),),
        {"x-queue-type": "quorum", "x-delivery-limit": 1_000_000_000},
    )


def _retry(rung: Rung) -> Queue:
    # No x-dead-letter-routing-key: the default exchange routes an expired message by the key it
    # came with, which is the name of the queue to come back to. The time to live is the queue's:
    # a message's own would wait behind the head.
    return Queue(
        rung.name,
        (Binding(rung.name, "#"),),
        {
            "x-queue-type": "quorum",
            "x-message-ttl": rung.seconds * 1000,
            "x-dead-letter-exchange": "",
            "x-dead-letter-strategy": "at-least-once",
            "x-overflow": "reject-publish",
        },
    )


ORDERS_INTAKE = _work("orders.intake", Binding(INTAKE, "#"))
KYC_DECISIONS = _work("kyc.decisions", Binding(COMMANDS, "kyc.decide"))
SECRETS_ISSUE = _work(
    "secrets.issue", Binding(EVENTS, "kyc.approved"), Binding(EVENTS, "kyc.revoked")
)
SECRETS_ROTATE = _work(
    "secrets.rotate",
    Binding(COMMANDS, "secret.#"),
    Binding(COMMANDS, "webhook.limit"),
    Binding(COMMANDS, "account.block"),
)
# A one-time code never waits behind a hundred thousand order emails.
NOTIFIER_URGENT = _work(
    "notifier.urgent",
    Binding(EVENTS, "account.*"),
    Binding(EVENTS, "kyc.*"),
    Binding(EVENTS, "secret.*"),
    Binding(EVENTS, "webhook.*"),
)
NOTIFIER_ORDERS = _work("notifier.orders", Binding(EVENTS, "order.*"))
# Nor does an order email of one account behind a hundred thousand of another's.
BULK = "bulk."
"""Before the key of a fact, puts it into the lane for what an account sends beyond its share."""
NOTIFIER_BULK = _work("notifier.bulk", Binding(EVENTS, f"{BULK}order.*"))
NOTIFIER = (NOTIFIER_URGENT, NOTIFIER_ORDERS, NOTIFIER_BULK)
"""What emails wait in."""
# What the audit log keeps; one-time codes and what senders say are not among it.
AUDIT = _work(
    "audit",
    Binding(EVENTS, "account.verified"),
    Binding(EVENTS, "account.changed"),
    Binding(EVENTS, "account.signed_in"),
    Binding(EVENTS, "account.sign_in_failed"),
    Binding(EVENTS, "kyc.*"),
    Binding(EVENTS, "secret.*"),
    Binding(EVENTS, "ops.*"),
    Binding(EVENTS, "webhook.*"),
    Binding(EVENTS, "email.suppression_lifted"),
    Binding(EVENTS, "email.locale_changed"),
)

WORK_QUEUES = (
    ORDERS_INTAKE,
    KYC_DECISIONS,
    SECRETS_ISSUE,
    SECRETS_ROTATE,
    NOTIFIER_URGENT,
    NOTIFIER_ORDERS,
    NOTIFIER_BULK,
    AUDIT,
)
DEAD_QUEUES = tuple(_dead(queue) for queue in WORK_QUEUES)

RETRY_LADDER = (
    Rung("retry.0s", 0),  # for what has happened already: see retry.py
    Rung("retry.5s", 5),
    Rung("retry.30s", 30),
    Rung("retry.2m", 120),
    Rung("retry.10m", 600),
    Rung("retry.1h", 3600),
)
RETRY_QUEUES = tuple(_retry(rung) for rung in RETRY_LADDER)

FEED_KEYS = ("secret.#", "kyc.revoked", "account.changed", "webhook.allowlist_changed")
"""What an ingress worker's own queue is bound by: all that may end a webhook secret, block an
account, or say otherwise from where and how it may send."""

# The replayable record of a week. Orders and facts are published into it by the batch: see
# journal.py.
JOURNAL_OF_FACTS = "journal.facts"
JOURNAL = Queue(
    "journal",
    (
        Binding("journal", "#"),
        Binding(JOURNAL_OF_FACTS, "#"),
        Binding(COMMANDS, "#"),
        # Nobody else wants it, and the broker would return it.
        Binding(EVENTS, "email.undeliverable"),
    ),
    {
        "x-queue-type": "stream",
        "x-max-age": f"{JOURNAL_DAYS}D",
        "x-stream-max-segment-size-bytes": 100_000_000,
    },
)
# Type by type where `account.#` would bring the sealed one-time codes along.
JOURNAL_FACTS = (
    "account.verified",
    "account.changed",
    "account.signed_in",
    "account.sign_in_failed",
    "kyc.#",
    "secret.#",
    "order.#",
    f"{BULK}#",
    "ops.#",
    "webhook.#",
    "email.suppression_lifted",
    "email.locale_changed",
)
"""The keys of the facts that their publisher writes into the journal."""
FORMERLY_BOUND = (*JOURNAL_FACTS, "email.#")
"""What the broker brought into the journal, and confirmed nothing of while that was stuck."""


EXCHANGES = (
    # Everything in it is for the one queue bound to it, and matching a pattern costs the broker as
    # much as a third of its time for an order (docs/performance.md).
    Exchange(INTAKE, "fanout"),
    Exchange(JOURNAL.name, "fanout"),
    Exchange(JOURNAL_OF_FACTS, "fanout"),
    Exchange(COMMANDS, "topic"),
    Exchange(EVENTS, "topic"),
    # Topic exchanges these, since the broker checks keys on no other kind: what failed in one queue
    # must not come back in another's (see permissions.py).
    Exchange(DEAD, "topic"),
    *(Exchange(rung.name, "topic") for rung in RETRY_LADDER),
)
_FANOUTS = frozenset(exchange.name for exchange in EXCHANGES if exchange.kind == "fanout")
QUEUES = (*WORK_QUEUES, *DEAD_QUEUES, *RETRY_QUEUES, JOURNAL)


def reached(exchange: Exchange, key: str) -> list[Queue]:
    """The queues that a message of this routing key gets into, as the broker would decide."""
    return [queue for queue in QUEUES if takes(queue, exchange.name, key)]


def takes(queue: Queue, exchange: str, key: str) -> bool:
    """Whether a message of this exchange and routing key gets into a queue."""
    return any(
        binding.exchange == exchange and (exchange in _FANOUTS or matches(binding.key, key))
        for binding in queue.bindings
    )


def carries(exchange: str, key: str, of: str, type_: str) -> bool:
    """Whether an exchange and a routing key are those by which a type of message is published.

    Args:
        exchange: where a message came by.
        key: its routing key.
        of: the type's exchange.
        type_: the type, which is its key too.
    """
    return exchange == of and (exchange in _FANOUTS or key in (type_, BULK + type_))


def misrouted(queue: Queue, exchange: str, key: str) -> str:
    """Why a message has no business in a work queue; empty when it has.

    Brokers before rabbitmq-server's pull request 12553 check no right on the keys of CC and BCC,
    by which anybody who may publish reaches any queue. A delivery bears the main key alone.
    """
    # By the default exchange it comes back from the retry ladder, or was put back.
    fits = takes(queue, exchange, key) if exchange else key == queue.name
    return "" if fits else f"it came by {exchange or 'the default exchange'} with the key {key!r}"


def matches(pattern: str, key: str) -> bool:
    """Whether a binding's key takes a routing key of a topic exchange (AMQP 0-9-1, 3.1.3.3).

    Args:
        pattern: words separated by dots; `*` is one word, `#` at the end any number of them.
        key: the routing key.
    """
    words, given = pattern.split("."), key.split(".")
    if words[-1] == "#":
        words.pop()
        given = given[: len(words)] if words else []
    return len(words) == len(given) and all(
        word in ("*", other) for word, other in zip(words, given, strict=True)
    )
