"""What the doctor looks at on the broker."""

import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from amqp.exceptions import AccessRefused, NotFound, PreconditionFailed
from kombu import Connection

from services.ops.broker import TIMEOUT, open_connection
from services.ops.check import Check, clocks
from shared.bus import topology
from shared.config import Settings


def broker(config: Settings) -> Iterator[Check]:
    """Whether it answers, has the topology, and agrees on the time."""
    try:
        connection = open_connection(config.amqp_url)
    except Exception as error:  # noqa: BLE001 - whatever it was is what is said
        where = Connection(config.amqp_url).as_uri()
        yield Check(
            "broker",
            "broken",
            f"{where} does not answer: {getattr(error, 'reply_text', '') or error}",
            "Is RabbitMQ running, and is AMQP_URL right: host, port, user, password, vhost?",
        )
        return
    with connection:
        said = connection.connection.server_properties
        yield Check("broker", "fine", f"{said.get('product')} {said.get('version')}")
        yield _topology(connection)
    if config.rabbitmq_management_url:
        yield _clock(config.rabbitmq_management_url)


def _topology(connection: Connection) -> Check:
    missing = [queue.name for queue in topology.QUEUES if not _has_queue(connection, queue)]
    missing += [
        f"the exchange {exchange.name}"
        for exchange in topology.EXCHANGES
        if not _has_exchange(connection, exchange)
    ]
    if missing:
        return Check(
            "topology",
            "broken",
            f"missing: {', '.join(missing)}",
            "Declare it as the administrator: python -m shared.bus.declare",
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
                "topology", "fine", "everything is there (only its owner can see the arguments)"
            )
    if different:
        return Check(
            "topology",
            "broken",
            "; ".join(different),
            "It is of another version: empty it, delete it, and run python -m shared.bus.declare",
        )
    return Check("topology", "fine", "everything is there, as it should be")


def _has_queue(connection: Connection, queue: topology.Queue) -> bool:
    try:
        with connection.channel() as channel:
            channel.queue_declare(queue.name, passive=True)
    except NotFound:
        return False
    return True


def _has_exchange(connection: Connection, exchange: topology.Exchange) -> bool:
    try:
        with connection.channel() as channel:
            channel.exchange_declare(exchange.name, exchange.kind, passive=True)
    except NotFound:
        return False
    return True


def _clock(management_url: str) -> Check:
    """By the Date of an HTTP answer (RFC 9110, 6.6.1), whatever it says; AMQP has no clock."""
    try:
        # The scheme is checked with the settings.
        with urllib.request.urlopen(management_url, timeout=TIMEOUT) as answer:  # noqa: S310
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
