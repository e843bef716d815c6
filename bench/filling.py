"""Filling a queue before a consumer is measured, through the product's own publisher."""

import asyncio
import time
from collections.abc import Iterable, Iterator, Sequence
from uuid import UUID

import uvloop

from bench.load import orders
from shared.bus.contract.message import Message
from shared.bus.publish.publisher import Publisher
from shared.intake import bodies

WINDOW = 2_000  # how many may wait for their confirm


def fill(amqp_url: str, messages: Iterable[Message]) -> None:
    """Publish messages and return when all are confirmed."""
    uvloop.run(_fill(amqp_url, iter(messages)))


def new_orders(accounts: Sequence[UUID], count: int) -> Iterator[Message]:
    """`order.created`, each of another order, of these accounts in turn."""
    for number in range(count):
        account = accounts[number % len(accounts)]
        yield bodies.read(orders.body(number), account, time.time(), None)[1]


async def _fill(amqp_url: str, messages: Iterator[Message]) -> None:
    publisher = Publisher(
        amqp_url, name="bench", max_outstanding=WINDOW, confirm_timeout=30, heartbeat=30
    )
    await publisher.start()
    while publisher.state != "connected":  # noqa: ASYNC110 - it has no event for that
        await asyncio.sleep(0.01)

    async def publish() -> None:
        for message in messages:
            await publisher.publish(message)

    await asyncio.gather(*(publish() for _ in range(WINDOW // 2)))
    await publisher.stop()
