"""A relay as most would write it: one row, one confirm, one transaction."""

import os

import pika
from sqlalchemy import create_engine, text

_TAKE = text("SELECT sequence, exchange, routing_key, message_id, body FROM outbox "
             "ORDER BY sequence LIMIT 1 FOR UPDATE SKIP LOCKED")  # fmt: skip
_REMOVE = text("DELETE FROM outbox WHERE sequence = :sequence")


def main() -> None:
    engine = create_engine(os.environ["DATABASE_URL"])
    channel = pika.BlockingConnection(pika.URLParameters(os.environ["AMQP_URL"])).channel()
    channel.confirm_delivery()
    while True:
        with engine.begin() as connection:
            row = connection.execute(_TAKE).first()
            if row is None:
                return
            properties = pika.BasicProperties(
                content_type="application/json", delivery_mode=2, message_id=str(row.message_id)
            )
            channel.basic_publish(row.exchange, row.routing_key, bytes(row.body), properties)
            connection.execute(_REMOVE, {"sequence": row.sequence})


if __name__ == "__main__":
    main()
