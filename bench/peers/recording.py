"""What a consumer peer does with an order: the same rows as Order Fellow's recorder, in one
transaction an order."""

import json
import os
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import create_engine, text

from shared.ids import new_id

_engine = create_engine(os.environ["DATABASE_URL"], pool_size=16)

_ORDER = text("""
    INSERT INTO orders (id, account_id, customer_name, customer_email, customer_phone, item_summary,
                        address, tracking_status, status_at, status_event_id, accepted_at)
    VALUES (:id, :account_id, :name, :email, :phone, :items, :address, :status, :at, :id, :at)
    ON CONFLICT DO NOTHING RETURNING id
""")
_HISTORY = text("""
    INSERT INTO order_status_history (event_id, order_id, tracking_status, note, at, applied)
    VALUES (:id, :id, :status, '', :at, true)
""")
_OUTBOX = text("""
    INSERT INTO outbox (message_id, exchange, routing_key, type, correlation_id, source, time, body)
    VALUES (:fact_id, 'events', 'order.recorded', 'order.recorded', :id, 'peer', :at, :body)
""")


def record(event: str | dict[str, Any], *, tells: bool = True) -> bool:
    """Record one order.

    Args:
        event: as JSON or read already.
        tells: whether the outbox gets its fact; a chain without a relay has none.

    Returns:
        False: it was there already.
    """
    order = json.loads(event) if isinstance(event, str) else event
    customer = order["customer_details"]
    row = {
        "id": order["order_id"],
        "account_id": order["account_id"],
        "name": customer["name"],
        "email": customer["email"],
        "phone": customer["phone"],
        "items": order["item_summary"],
        "address": order["address"],
        "status": order["tracking_status"],
        "at": datetime.now(UTC),
    }
    with _engine.begin() as connection:
        # The order's own key stands in for an inbox: a redelivery finds it taken.
        if connection.execute(_ORDER, row).first() is None:
            return False
        connection.execute(_HISTORY, row)
        if tells:
            fact = {"fact_id": new_id(), "body": json.dumps(order).encode()}
            connection.execute(_OUTBOX, row | fact)
    return True
