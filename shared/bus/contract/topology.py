"""The topology: every exchange, queue, binding and argument, as data.

A deployment declares it by `python -m shared.bus.declare`; otherwise the first process with the
rights does. Declaring is idempotent. It works on RabbitMQ 3.10 and 4.x: quorum queues, an explicit
delivery limit, at-least-once dead lettering.

Arguments that recur:
    x-delivery-limit: after so many redeliveries the broker dead-letters a message by itself.
        Explicit, since 3.10 has no default and 4.x has 20.
    x-dead-letter-strategy: at-least-once. It needs x-overflow: reject-publish; with the default
        drop-head the broker silently falls back to at-most-once.
"""

import re
import zlib
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from shared.config.settings import JOURNAL_DAYS

DELIVERY_LIMIT = 20
OUT_OF_REACH = 1_000_000_000
"""A delivery limit for queues that people look into: reading a message and putting it back counts
as a delivery, and RabbitMQ 4 gives a message up after 20 by default."""

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
    """Routes messages of `exchange` whose routing key matches `key` to a queue."""

    exchange: str
    key: str


@dataclass(frozen=True, slots=True)
class Queue:
    """A durable queue.

    Attributes:
        name: its name.
        bindings: what comes into it.
        arguments: what it is declared with.
        earlier: what a version before declared it with, where that can stay: the arguments of a
            queue cannot be changed, and it may hold messages.
    """

    name: str
    bindings: tuple[Binding, ...]
    arguments: dict[str, Any] = field(hash=False)
    earlier: dict[str, Any] | None = field(hash=False, default=None)

    @property
    def dead(self) -> str:
        """The name of its dead letter queue."""
        return f"{self.name}.dead"


@dataclass(frozen=True, slots=True)
class DelayQueue:
    """A queue without consumers, from which messages return to their queue after `seconds`."""

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
    return Queue(
        work.dead,
        (Binding(DEAD, work.name),),
        {"x-queue-type": "quorum", "x-delivery-limit": OUT_OF_REACH},
    )


def _retry(rung: DelayQueue) -> Queue:
    # No x-dead-letter-routing-key: the default exchange routes an expired message by its own key,
    # which is the name of the queue to return to. The TTL is the queue's, since a message with its
    # own TTL expires only at the head of the queue.
    earlier = {
        "x-queue-type": "quorum",
        "x-message-ttl": rung.seconds * 1000,
        "x-dead-letter-exchange": "",
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",
    }
    arguments = earlier | {"x-delivery-limit": OUT_OF_REACH}
    return Queue(rung.name, (Binding(rung.name, "#"),), arguments, earlier)


ORDERS_INTAKE = _work("orders.intake", Binding(INTAKE, "#"))
# A quorum queue has one leader, which has one core and one disk. With `INTAKE_SHARDS` above 1
# further queues hold a part of the messages, by account. Only publishers and consumers know them:
# failed messages return to the first queue, and become dead letters of that.
INTAKE_SHARDS = Exchange("intake.shards", "direct")
"""The exchange of messages for shards; the routing key is the name of the shard."""
SHARDS = re.escape(ORDERS_INTAKE.name) + r"\.[1-9][0-9]?"
"""A regular expression for the names of shards."""
_SHARD = re.compile(SHARDS)


@lru_cache(maxsize=64)  # called for each order
def shards(count: int) -> tuple[Queue, ...]:
    """Return the shards beside `orders.intake`, for `count` queues in all."""
    names = [f"{ORDERS_INTAKE.name}.{number}" for number in range(1, count)]
    # Otherwise all leaders would be on the node on which they are declared.
    arguments = ORDERS_INTAKE.arguments | {"x-queue-leader-locator": "balanced"}
    return tuple(Queue(name, (Binding(INTAKE_SHARDS.name, name),), arguments) for name in names)


def whole(name: str) -> str:
    """Return the name of the queue that a shard belongs to; other names unchanged."""
    return ORDERS_INTAKE.name if _SHARD.fullmatch(name) else name


def shard_of(account: str, count: int) -> int:
    """Return the number of an account's shard; 0 is `orders.intake` itself.

    Args:
        account: its id as in messages: 36 characters in lower case.
        count: the number of queues.
    """
    return zlib.crc32(account.encode()) % count


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
# Separate queues, so that a one-time code does not wait behind order emails,
NOTIFIER_URGENT = _work(
    "notifier.urgent",
    Binding(EVENTS, "account.*"),
    Binding(EVENTS, "kyc.*"),
    Binding(EVENTS, "secret.*"),
    Binding(EVENTS, "webhook.*"),
)
NOTIFIER_ORDERS = _work("notifier.orders", Binding(EVENTS, "order.*"))
# and an order email of one account not behind a hundred thousand of another.
BULK = "bulk."
"""Prefix of the routing key of facts that an account causes beyond its share."""
NOTIFIER_BULK = _work("notifier.bulk", Binding(EVENTS, f"{BULK}order.*"))
NOTIFIER = (NOTIFIER_URGENT, NOTIFIER_ORDERS, NOTIFIER_BULK)
"""The queues of emails."""
# The facts of the audit log; one-time codes and orders are not among them.
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

RETRY_DELAYS = (
    DelayQueue("retry.0s", 0),  # for messages that were done: see retry.py
    DelayQueue("retry.5s", 5),
    DelayQueue("retry.30s", 30),
    DelayQueue("retry.2m", 120),
    DelayQueue("retry.10m", 600),
    DelayQueue("retry.1h", 3600),
)
RETRY_QUEUES = tuple(_retry(rung) for rung in RETRY_DELAYS)

FEED_KEYS = ("secret.#", "kyc.revoked", "account.changed", "webhook.allowlist_changed")
"""The bindings of an ingress worker's queue: facts that may end a webhook secret, block an account,
or change from where and how it may send."""

# The replayable record of a week. Orders and facts are published to it in batches; see journal.py.
JOURNAL_OF_FACTS = "journal.facts"
JOURNAL = Queue(
    "journal",
    (
        Binding("journal", "#"),
        Binding(JOURNAL_OF_FACTS, "#"),
        Binding(COMMANDS, "#"),
        # No other queue takes it, and the broker would return it as unroutable.
        Binding(EVENTS, "email.undeliverable"),
    ),
    {
        "x-queue-type": "stream",
        "x-max-age": f"{JOURNAL_DAYS}D",
        "x-stream-max-segment-size-bytes": 100_000_000,
    },
)
# By type, since `account.#` would include the sealed one-time codes.
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
"""The routing keys of facts that their publisher writes to the journal."""
FORMERLY_BOUND = (*JOURNAL_FACTS, "email.#")
"""Bindings of earlier versions, whose confirms had to wait for the journal."""


EXCHANGES = (
    # A fanout, since matching a topic pattern costs a third of the broker's time for an order
    # (docs/performance.md), and there is one queue.
    Exchange(INTAKE, "fanout"),
    Exchange(JOURNAL.name, "fanout"),
    Exchange(JOURNAL_OF_FACTS, "fanout"),
    Exchange(COMMANDS, "topic"),
    Exchange(EVENTS, "topic"),
    # Topic exchanges, since the broker checks rights to keys on no other kind: a service must not
    # return a failed message to another service's queue (see permissions.py).
    Exchange(DEAD, "topic"),
    *(Exchange(rung.name, "topic") for rung in RETRY_DELAYS),
)
_FANOUTS = frozenset(exchange.name for exchange in EXCHANGES if exchange.kind == "fanout")
QUEUES = (*WORK_QUEUES, *DEAD_QUEUES, *RETRY_QUEUES, JOURNAL)


def reached(exchange: Exchange, key: str) -> list[Queue]:
    """Return the queues that the broker routes a message to."""
    return [queue for queue in QUEUES if takes(queue, exchange.name, key)]


def takes(queue: Queue, exchange: str, key: str) -> bool:
    """Whether the broker routes a message of this exchange and routing key to a queue."""
    return any(
        binding.exchange == exchange and (exchange in _FANOUTS or matches(binding.key, key))
        for binding in queue.bindings
    )


def carries(exchange: str, key: str, of: str, type_: str) -> bool:
    """Whether a message has the exchange and a routing key of its type.

    Args:
        exchange: of the message.
        key: its routing key.
        of: the exchange of the type.
        type_: the type, which is its routing key as well.
    """
    return exchange == of and (exchange in _FANOUTS or key in (type_, BULK + type_))


def misrouted(queue: Queue, exchange: str, key: str) -> str:
    """Return why a message does not belong in a work queue; empty if it does.

    Brokers before rabbitmq-server's pull request 12553 check no rights to the keys of CC and BCC,
    so any publisher could reach any queue by them. A delivery shows the main key only.
    """
    # By the default exchange, messages return from delay queues and are put back by ops staff.
    fits = takes(queue, exchange, key) if exchange else key == queue.name
    return "" if fits else f"it came by {exchange or 'the default exchange'} with the key {key!r}"


def matches(pattern: str, key: str) -> bool:
    """Whether a binding key matches a routing key of a topic exchange (AMQP 0-9-1, 3.1.3.3).

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
