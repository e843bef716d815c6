"""`python -m bench.peers.fill celery|dramatiq|faststream COUNT`: orders for a consumer peer.

Celery and Dramatiq have message forms of their own, so they publish for themselves.
"""

import json
import sys
from uuid import uuid4

from bench.load import orders


def _events(count: int) -> list[str]:
    account = str(uuid4())
    return [
        json.dumps(json.loads(orders.body(n)) | {"order_id": str(uuid4()), "account_id": account})
        for n in range(count)
    ]


def main(peer: str, count: int) -> None:
    if peer == "celery":
        from bench.peers.celery_app import record as task

        for event in _events(count):
            task.delay(event)
    elif peer == "dramatiq":
        from bench.peers.dramatiq_app import record as actor

        for event in _events(count):
            actor.send(event)
    else:
        import os

        import pika

        connection = pika.BlockingConnection(pika.URLParameters(os.environ["AMQP_URL"]))
        channel = connection.channel()
        queue = os.environ["PEER_QUEUE"]
        channel.queue_declare(queue, durable=True, arguments={"x-queue-type": "quorum"})
        for event in _events(count):
            channel.basic_publish("", queue, event.encode(), pika.BasicProperties(delivery_mode=2))
        connection.close()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
