"""A stop ends, whatever else comes in the same moment: no cancellation is swallowed."""

import asyncio

import pytest

from services.ingress.credentials.feed import SecretFeed
from shared.bus.broker.pika_connection import Link

# A turn of the loop each: where between its cause and its waiter an event has come.
TURNS = range(6)
BOUND = 20.0  # seconds; far more than a stop takes


class Cache:
    """Stands in for what the feed keeps true; here only the feed's own waiting is of interest."""

    def __init__(self) -> None:
        self.polled = asyncio.Event()

    async def poll(self) -> None:
        self.polled.set()

    def __len__(self) -> int:
        return 0


async def after(turns: int) -> None:
    for _ in range(turns):
        await asyncio.sleep(0)


@pytest.mark.parametrize("turns", TURNS)
def test_a_feed_that_an_event_wakes(settings, turns):
    async def story():
        cache = Cache()
        feed = SecretFeed(cache, settings.amqp_url, heartbeat=30, poll_seconds=3600)
        await feed.start()
        await cache.polled.wait()
        await after(10)
        feed._wake.set()
        await after(turns)
        async with asyncio.timeout(BOUND):
            await feed.stop()

    asyncio.run(story())


@pytest.mark.parametrize("turns", TURNS)
def test_a_link_whose_setup_ends(settings, turns):
    async def story():
        begun, may_end = asyncio.Event(), asyncio.Event()

        async def setup(_):
            begun.set()
            await may_end.wait()

        link = Link(
            settings.amqp_url, name="tests", heartbeat=30, setup=setup, on_lost=lambda _: None
        )
        link.start()
        await begun.wait()
        may_end.set()
        await after(turns)
        async with asyncio.timeout(BOUND):
            await link.stop()

    asyncio.run(story())
