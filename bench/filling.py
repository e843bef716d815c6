"""Filling a queue with orders before a consumer is measured, through the product's publisher."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from uuid import UUID

import uvloop

from bench.load import orders
from services.ingress import order_bodies
from shared.bus.message import Message
from shared.bus.publisher import Publisher

WINDOW = 2_000  # how many may wait for their confirm


def fill(amqp_url: str, accounts: list[UUID], count: int, *, queue: str = "orders.intake") -> None:
    """Put `count` new orders of these accounts into a queue, confirmed."""
    uvloop.run(_fill(amqp_url, _messages(accounts, count, queue)))


def _messages(accounts: list[UUID], count: int, queue: str) -> Iterator[Message]:
    for number in range(count):
        account = accounts[number % len(accounts)]
        _, message = order_bodies.read(orders.body(number), account, None)
        # By the default exchange, past the journal: what the broker does then is not measured here.
        yield replace(message, exchange="", routing_key=queue)


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
