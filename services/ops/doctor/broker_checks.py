"""The doctor's checks of the broker."""

import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Literal

from amqp.exceptions import AccessRefused, NotFound, PreconditionFailed
from kombu import Connection

from services.ops.broker.connection import TIMEOUT, open_connection
from services.ops.doctor.check import Check, clocks
from shared import versions
from shared.bus.broker import addresses, declaration, queue_counts
from shared.bus.broker.kombu_connection import server_version
from shared.bus.broker.refusal import explain
from shared.bus.contract import topology
from shared.config.settings import Settings
from shared.http import direct


def broker(config: Settings) -> Iterator[Check]:
    """Check that it answers, has the topology, and agrees on the time."""
    try:
        connection = open_connection(config.amqp_url)
    except Exception as error:  # noqa: BLE001 - any error is the finding
        yield Check(
            "broker",
            "broken",
            f"{addresses.place(config.amqp_url)}: {explain(error).sentence}",
            "Is RabbitMQ running, and is AMQP_URL right: host, port, user, password, vhost?",
        )
        return
    with connection:
        version = server_version(connection)
        untried = versions.warning("RabbitMQ", version)
        found = f"RabbitMQ {version} at {connection.place}"
        yield Check("broker", "look" if untried else "fine", found, untried or "")
        yield _topology(connection, config.intake_shards)
        yield from _shards(connection, config.intake_shards)
    if len(nodes := addresses.of(config.amqp_url).round()) > 1:
        yield _nodes(nodes)
    if config.rabbitmq_management_url:
        yield _clock(config.rabbitmq_management_url)


def _nodes(urls: Sequence[str]) -> Check:
    """Check that each address accepts a connection; clients hide the failing ones."""
    away = []
    for url in urls:
        try:
            open_connection(url).release()
        except Exception as error:  # noqa: BLE001 - any error is the finding
            away.append(f"{addresses.place(url)}: {explain(error).sentence}")
    found = f"{len(urls) - len(away)} of {len(urls)} addresses let us in"
    if not away:
        return Check("nodes", "fine", found)
    return Check(
        "nodes",
        "look",
        f"{found}; {'; '.join(away)}",
        "Start it again, or remove it from AMQP_URL: with fewer nodes, fewer may fail.",
    )


def _topology(connection: Connection, shards: int) -> Check:
    queues = (*topology.QUEUES, *topology.shards(shards))
    exchanges = (*topology.EXCHANGES, *((topology.INTAKE_SHARDS,) if shards > 1 else ()))
    seen = {queue.name: probe(connection, queue) for queue in queues} | {
        f"the exchange {exchange.name}": probe(connection, exchange) for exchange in exchanges
    }
    missing = [name for name, found in seen.items() if found == "missing"]
    if missing:
        return Check(
            "topology",
            "broken",
            f"missing: {', '.join(missing)}",
            "Declare it as the administrator: python -m shared.bus.declare",
        )
    if "there" not in seen.values():
        return Check(
            "topology",
            "look",
            "the user of AMQP_URL may see none of it",
            "Ask as fellow_ops, or as the administrator.",
        )
    different, earlier = [], []
    # Redeclaring changes nothing, and reports differing arguments to a user who may configure.
    for queue in queues:
        try:
            if not declaration.declare_or_keep(connection, queue, binds=False):
                earlier.append(queue.name)
        except PreconditionFailed as error:
            different.append(str(error.reply_text))
        except AccessRefused:
            return Check(
                "topology",
                "fine",
                "all that its user may see is there (only the administrator sees the arguments)",
            )
    if different:
        return Check(
            "topology",
            "broken",
            "; ".join(different),
            "It is of another version: empty it, delete it, and run python -m shared.bus.declare",
        )
    if earlier and not server_version(connection).startswith("3."):
        return Check(
            "topology",
            "look",
            f"an earlier version declared {', '.join(earlier)}: a message in them that was looked "
            "at 20 times is retried early",
            "Unless a policy gives them a delivery limit: docs/deploying.md, The retry ladder on "
            "RabbitMQ 4",
        )
    return Check("topology", "fine", "all queues and exchanges are as declared")


def _shards(connection: Connection, expected: int) -> Iterator[Check]:
    """Check the shards of orders.intake: their counts, and that each has consumers."""
    names = declaration.parts(connection, topology.ORDERS_INTAKE)
    if len(names) == expected == 1:
        return
    with connection.channel() as channel:
        try:
            found = {name: queue_counts.of(channel, name, TIMEOUT) for name in names}
        except (queue_counts.NotKnownError, NotFound) as error:
            yield Check("shards", "look", str(error))
            return
    counts = ", ".join(
        f"{name}: {count.ready:,} ready, {count.consumers} consuming"
        for name, count in found.items()
    )
    idle = [name for name, count in found.items() if not count.consumers]
    if idle:
        advice = f"Start recorders, or restart those that run: no consumer on {', '.join(idle)}."
    elif len(names) > expected:
        advice = (
            f"INTAKE_SHARDS is {expected} here. If it was reduced, delete the others once they are "
            "empty (docs/deploying.md); else give this process the same value."
        )
    else:
        advice = ""
    yield Check("shards", "look" if advice else "fine", counts, advice)


def probe(
    connection: Connection, thing: topology.Queue | topology.Exchange
) -> Literal["there", "missing", "hidden"]:
    """Return whether a queue or exchange exists, as far as the connection's user may see.

    Since RabbitMQ 4.2.6 and 4.3.0 users only see what they have a permission on.
    """
    try:
        with connection.channel() as channel:
            if isinstance(thing, topology.Queue):
                channel.queue_declare(thing.name, passive=True)
            else:
                channel.exchange_declare(thing.name, thing.kind, passive=True)
    except NotFound:
        return "missing"
    except AccessRefused:
        return "hidden"
    return "there"


def _clock(management_url: str) -> Check:
    """Check the clock by an HTTP answer's Date (RFC 9110, 6.6.1), of any status; AMQP has none."""
    try:
        with direct.ask(management_url, seconds=TIMEOUT) as answer:
            date = answer.headers["Date"]
    except urllib.error.HTTPError as error:
        date = error.headers["Date"]
    except OSError as error:
        return Check(
            "broker clock", "look", f"{management_url}: {error}", "Check RABBITMQ_MANAGEMENT_URL."
        )
    # The Date is truncated to the second.
    skew = (parsedate_to_datetime(date) - datetime.now(UTC)).total_seconds() + 0.5
    return clocks("broker", skew)
