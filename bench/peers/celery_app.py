"""The Celery app: quorum queues, confirms, acknowledged late."""

import os

from celery import Celery
from kombu import Queue

QUEUE = os.environ["PEER_QUEUE"]

app = Celery("peer", broker=os.environ["AMQP_URL"])
app.conf.update(
    task_queues=[Queue(QUEUE, queue_arguments={"x-queue-type": "quorum"}, durable=True)],
    task_default_queue=QUEUE,
    task_default_exchange="",
    task_default_routing_key=QUEUE,
    task_acks_late=True,
    task_ignore_result=True,
    worker_prefetch_multiplier=64,
    worker_detect_quorum_queues=True,
    broker_transport_options={"confirm_publish": True},
    broker_pool_limit=64,
)


@app.task(name="record")
def record(event: str) -> None:
    from bench.peers.recording import record as record_one

    record_one(event)
