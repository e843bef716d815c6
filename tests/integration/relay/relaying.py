"""What the tests of the relay share: rows to relay, relays in threads, what arrived."""

import asyncio
import threading
from collections import Counter
from contextlib import contextmanager

from kombu import Connection
from sqlalchemy import func, select, text

from services.relay.relay import Relay
from shared.bus import outbox
from shared.bus.contract import topology
from shared.bus.contract.message import message_for
from shared.db.models import OutboxMessage
from tests.integration.arrange import PATIENCE, join, order_created

QUEUE = topology.ORDERS_INTAKE.name


def messages(count):
    return [
        message_for(order_created(), source="tests", correlation_id="story") for _ in range(count)
    ]


def write(db, sent):
    outbox.add(db, sent)
    db.commit()


def waiting(engine):
    with engine.connect() as connection:
        return connection.execute(select(func.count()).select_from(OutboxMessage)).scalar()


def parked(engine):
    """The reasons of what is parked, by message id."""
    with engine.connect() as connection:
        found = connection.execute(
            text(
                "SELECT message_id, reason FROM outbox WHERE parked_at IS NOT NULL "
                "AND attempts > 0 AND next_try_at > now() AND reason <> ''"
            )
        )
        return {str(row.message_id): row.reason for row in found}


@contextmanager
def relaying(settings, count=1):
    """Relays in threads, each with a loop of its own; gives them."""
    stops, relays = [], []

    def run(ready):
        async def story():
            stopping = asyncio.Event()
            stops.append((asyncio.get_running_loop(), stopping))
            relays.append(Relay(settings))
            ready.set()
            await relays[-1].run(stopping)

        asyncio.run(story())

    threads = []
    for _ in range(count):
        ready = threading.Event()
        thread = threading.Thread(target=run, args=(ready,), daemon=True)
        thread.start()
        assert ready.wait(PATIENCE)
        threads.append(thread)
    try:
        yield relays
    finally:
        for loop, stopping in stops:
            loop.call_soon_threadsafe(stopping.set)
        join(threads)


def drain(amqp_url, count, queue=QUEUE):
    """The message ids in a queue, how often each."""
    ids = Counter()
    with Connection(amqp_url) as connection:
        channel = connection.default_channel
        for _ in range(count):
            found = channel.basic_get(queue, no_ack=True)
            if found is None:
                break
            ids[found.properties["message_id"]] += 1
    return ids
