"""FastStream: subscribers that hand each order to a thread, acknowledged after it.

With `PEER_MAIL_QUEUE` a whole chain: what is recorded is published for a second subscriber, who
mails.
"""

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
MAIL_QUEUE = os.environ.get("PEER_MAIL_QUEUE", "")


def _queue(name: str) -> RabbitQueue:
    return RabbitQueue(name, queue_type=QueueType.QUORUM, durable=True)


@broker.subscriber(_queue(os.environ["PEER_QUEUE"]), ack_policy=AckPolicy.REJECT_ON_ERROR)
async def record(event: dict[str, Any]) -> None:
    if await asyncio.to_thread(record_one, event, tells=not MAIL_QUEUE) and MAIL_QUEUE:
        await broker.publish(event, MAIL_QUEUE, persist=True)


if MAIL_QUEUE:
    from bench.peers.mailing import mail as mail_one

    @broker.subscriber(_queue(MAIL_QUEUE), ack_policy=AckPolicy.REJECT_ON_ERROR)
    async def mail(event: dict[str, Any]) -> None:
        await asyncio.to_thread(mail_one, event)


if __name__ == "__main__":
    asyncio.run(app.run())
