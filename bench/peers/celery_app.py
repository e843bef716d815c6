"""The Celery app: quorum queues, confirms, acknowledged late."""

import os

from celery import Celery
from kombu import Queue

QUEUE = os.environ["PEER_QUEUE"]
MAIL_QUEUE = os.environ.get("PEER_MAIL_QUEUE", "")
"""Where a whole chain's emails wait; without it an order is recorded and no more."""

app = Celery("peer", broker=os.environ["AMQP_URL"])
app.conf.update(
    task_queues=[
        Queue(name, queue_arguments={"x-queue-type": "quorum"}, durable=True)
        for name in (QUEUE, MAIL_QUEUE)
        if name
    ],
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

    if record_one(event, tells=not MAIL_QUEUE) and MAIL_QUEUE:
        mail.apply_async((event,), queue=MAIL_QUEUE)


@app.task(name="mail")
def mail(event: str) -> None:
    from bench.peers.mailing import mail as mail_one

    mail_one(event)
