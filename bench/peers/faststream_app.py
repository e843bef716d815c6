"""FastStream: a subscriber that hands each order to a thread, acknowledged after it."""

import asyncio
import os
from typing import Any

from faststream import AckPolicy, FastStream
from faststream.rabbit import Channel, QueueType, RabbitBroker, RabbitQueue

from bench.peers.recording import record as record_one

broker = RabbitBroker(
    os.environ["AMQP_URL"], default_channel=Channel(prefetch_count=64), logger=None
)
app = FastStream(broker)
queue = RabbitQueue(os.environ["PEER_QUEUE"], queue_type=QueueType.QUORUM, durable=True)


@broker.subscriber(queue, ack_policy=AckPolicy.REJECT_ON_ERROR)
async def record(event: dict[str, Any]) -> None:
    await asyncio.to_thread(record_one, event)


if __name__ == "__main__":
    asyncio.run(app.run())
