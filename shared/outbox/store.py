"""Writing to the outbox, inside the caller's transaction."""

from collections.abc import Sequence

from psycopg2.extras import execute_values
from sqlalchemy import text
from sqlalchemy.orm import Session

from shared.bus.message import Message

CHANNEL = "outbox"
"""The NOTIFY channel that wakes the relay."""

_INSERT = (
    "INSERT INTO outbox (message_id, exchange, routing_key, type, correlation_id, source, "
    "traceparent, time, body) VALUES %s"
)


def add(session: Session, messages: Sequence[Message]) -> None:
    """Leave messages for the relay; they are published if, and only if, the transaction commits.

    Args:
        session: the transaction that also writes the rows the messages tell of.
        messages: published in this order by one relay, in any order by several.
    """
    if not messages:
        return
    connection = session.connection().connection.driver_connection
    if connection is None:
        raise RuntimeError("the session has no connection")
    with connection.cursor() as cursor:
        # Rows are many and short here, and this is several times faster than executemany.
        execute_values(
            cursor,
            _INSERT,
            [
                (
                    message.message_id,
                    message.exchange,
                    message.routing_key,
                    message.type,
                    message.correlation_id,
                    message.source,
                    message.traceparent,
                    message.time,
                    message.body,
                )
                for message in messages
            ],
            page_size=1_000,
        )
    session.execute(text(f"NOTIFY {CHANNEL}"))
