"""The Dramatiq broker and actor, on a quorum queue."""

import os

import dramatiq
from dramatiq.brokers.rabbitmq import RabbitmqBroker

from bench.peers.recording import record as record_one

QUEUE = os.environ["PEER_QUEUE"]

broker = RabbitmqBroker(url=os.environ["AMQP_URL"], confirm_delivery=True)
dramatiq.set_broker(broker)


@dramatiq.actor(queue_name=QUEUE)
def record(event: str) -> None:
    record_one(event)
