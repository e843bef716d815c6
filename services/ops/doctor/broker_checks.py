"""What the doctor looks at on the broker."""

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
from shared.bus.broker import addresses
from shared.bus.broker.kombu_connection import server_version
from shared.bus.broker.refusal import explain
from shared.bus.contract import topology
from shared.config.settings import Settings
from shared.http import direct


def broker(config: Settings) -> Iterator[Check]:
    """Whether it answers, has the topology, and agrees on the time."""
    try:
        connection = open_connection(config.amqp_url)
    except Exception as error:  # noqa: BLE001 - whatever it was is what is said
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
        yield _topology(connection)
    if len(nodes := addresses.of(config.amqp_url).round()) > 1:
        yield _nodes(nodes)
    if config.rabbitmq_management_url:
        yield _clock(config.rabbitmq_management_url)


def _nodes(urls: Sequence[str]) -> Check:
    """Whether each address lets us in: of those that do not, the others hide it."""
    away = []
    for url in urls:
        try:
            open_connection(url).release()
        except Exception as error:  # noqa: BLE001 - whatever it was is what is said
            away.append(f"{addresses.place(url)}: {explain(error).sentence}")
    found = f"{len(urls) - len(away)} of {len(urls)} addresses let us in"
    if not away:
        return Check("nodes", "fine", found)
    return Check(
        "nodes",
        "look",
        f"{found}; {'; '.join(away)}",
        "Start it again, or take it out of AMQP_URL: the more are away, the fewer may still fail.",
    )


def _topology(connection: Connection) -> Check:
    seen = {queue.name: look(connection, queue) for queue in topology.QUEUES} | {
        f"the exchange {exchange.name}": look(connection, exchange)
        for exchange in topology.EXCHANGES
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
            "the user of AMQP_URL may look at none of it",
            "Ask as fellow_ops, or as the administrator.",
        )
    different = []
    # What is there is not changed by being declared again; only who may do so learns more.
    for queue in topology.QUEUES:
        try:
            with connection.channel() as channel:
                channel.queue_declare(
                    queue.name, durable=True, auto_delete=False, arguments=queue.arguments
                )
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
    return Check("topology", "fine", "all queues and exchanges are as declared")


def look(
    connection: Connection, thing: topology.Queue | topology.Exchange
) -> Literal["there", "missing", "hidden"]:
    """Whether a thing is there, as far as the connection's user may see.

    Since RabbitMQ 4.2.6 and 4.3.0 that is only what there is a right on.
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
    """By the Date of an HTTP answer (RFC 9110, 6.6.1), whatever it says; AMQP has no clock."""
    try:
        with direct.ask(management_url, seconds=TIMEOUT) as answer:
            date = answer.headers["Date"]
    except urllib.error.HTTPError as error:
        date = error.headers["Date"]
    except OSError as error:
        return Check(
            "broker clock", "look", f"{management_url}: {error}", "Check RABBITMQ_MANAGEMENT_URL."
        )
    # It is cut off to the second.
    skew = (parsedate_to_datetime(date) - datetime.now(UTC)).total_seconds() + 0.5
    return clocks("broker", skew)
