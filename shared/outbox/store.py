"""Writing to the outbox, inside the caller's transaction."""

from collections.abc import Sequence

from sqlalchemy import text
from sqlalchemy.orm import Session

from shared.bus.message import Message
from shared.db import arrays

CHANNEL = "outbox"
"""The NOTIFY channel that wakes the relay."""

_INSERT = text("""
    INSERT INTO outbox (message_id, exchange, routing_key, type, correlation_id, source,
                        traceparent, time, body)
    SELECT * FROM unnest(CAST(:message_id AS uuid[]), CAST(:exchange AS text[]),
                         CAST(:routing_key AS text[]), CAST(:type AS text[]),
                         CAST(:correlation_id AS text[]), CAST(:source AS text[]),
                         CAST(:traceparent AS text[]), CAST(:time AS timestamptz[]),
                         CAST(:body AS bytea[]))
""")
_NOTIFY = text(f"NOTIFY {CHANNEL}")


def add(session: Session, messages: Sequence[Message]) -> None:
    """Leave messages for the relay; they are published if, and only if, the transaction commits.

    Args:
        session: the transaction that also writes the rows the messages tell of.
        messages: published in this order by one relay, in any order by several.
    """
    if not messages:
        return
    session.execute(
        _INSERT,
        {
            "message_id": arrays.uuids(m.message_id for m in messages),
            "exchange": arrays.texts(m.exchange for m in messages),
            "routing_key": arrays.texts(m.routing_key for m in messages),
            "type": arrays.texts(m.type for m in messages),
            "correlation_id": arrays.texts(m.correlation_id for m in messages),
            "source": arrays.texts(m.source for m in messages),
            "traceparent": arrays.texts(m.traceparent for m in messages),
            "time": arrays.times(m.time for m in messages),
            "body": arrays.blobs(m.body for m in messages),
        },
    )
    session.execute(_NOTIFY)
