"""Writing to the outbox, inside the caller's transaction."""

from collections.abc import Sequence

from sqlalchemy import insert, text
from sqlalchemy.orm import Session

from shared.bus.message import Message
from shared.db.models import OutboxMessage

CHANNEL = "outbox"
"""The NOTIFY channel that wakes the relay."""


def add(session: Session, messages: Sequence[Message]) -> None:
    """Leave messages for the relay; they are published if, and only if, the transaction commits.

    Args:
        session: the transaction that also writes the rows the messages tell of.
        messages: published in this order by one relay, in any order by several.
    """
    if not messages:
        return
    session.execute(
        insert(OutboxMessage),
        [
            {
                "message_id": message.message_id,
                "exchange": message.exchange,
                "routing_key": message.routing_key,
                "type": message.type,
                "correlation_id": message.correlation_id,
                "source": message.source,
                "traceparent": message.traceparent,
                "time": message.time,
                "body": message.body,
            }
            for message in messages
        ],
    )
    session.execute(text(f"NOTIFY {CHANNEL}"))
