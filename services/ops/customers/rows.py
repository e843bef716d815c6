"""A customer's data in the tables."""

from collections import Counter
from typing import Any

from sqlalchemy import ColumnElement, Text, cast, func, or_, select, text
from sqlalchemy.orm import Session

from services.ops.customers.erasure import OF_BUSINESSES, Person
from shared.db.models import (
    Base,
    EmailDelivery,
    Order,
    OrderConflict,
    OrderStatusHistory,
    OutboxMessage,
    WebhookRequest,
)


def erase(session: Session, person: Person) -> Counter[str]:
    """Erase a person in the tables; what was touched, by place.

    Args:
        session: the transaction; the audit fact belongs into the same.
        person: who.
    """
    found = session.execute(
        text("SELECT place, touched FROM erase_customer(:address)"), {"address": person.address}
    )
    return Counter({place: touched for place, touched in found if touched})


def read(session: Session, person: Person) -> dict[str, list[dict[str, Any]]]:
    """The rows that a person is in, by table, each by column.

    Args:
        session: to read by.
        person: who.
    """
    is_theirs = func.lower(Order.customer_email) == person.address
    theirs = select(Order.id).where(is_theirs)
    order_texts = (Order.customer_name, Order.customer_phone, Order.item_summary, Order.address)
    return {
        "orders": _read(
            session, Order, or_(is_theirs, *(_mentions(c, person) for c in order_texts))
        ),
        "order_status_history": _read(
            session,
            OrderStatusHistory,
            or_(
                OrderStatusHistory.order_id.in_(theirs), _mentions(OrderStatusHistory.note, person)
            ),
        ),
        "order_conflicts": _read(
            session,
            OrderConflict,
            or_(
                OrderConflict.order_id.in_(theirs),
                _mentions(cast(OrderConflict.event, Text), person),
            ),
        ),
        "email_deliveries": _read(
            session,
            EmailDelivery,
            (func.lower(EmailDelivery.recipient) == person.address)
            & EmailDelivery.template.startswith("order_", autoescape=True),
        ),
        "webhook_requests": _read(
            session,
            WebhookRequest,
            or_(
                WebhookRequest.order_id.in_(theirs),
                func.strpos(func.lower(WebhookRequest.idempotency_key), person.address) > 0,
            ),
        ),
        "outbox": _read(
            session,
            OutboxMessage,
            _mentions(func.lower(func.encode(OutboxMessage.body, "escape")), person)
            & ~or_(*(OutboxMessage.type.startswith(prefix) for prefix in OF_BUSINESSES)),
        ),
    }


def _mentions(column: Any, person: Person) -> ColumnElement[bool]:
    matches: ColumnElement[bool] = column.op("~*")(person.mention.pattern)
    return matches


def _read(
    session: Session, table: type[Base], condition: ColumnElement[bool]
) -> list[dict[str, Any]]:
    found = session.execute(select(*table.__table__.columns).where(condition)).mappings()
    return [{name: _shown(value) for name, value in row.items()} for row in found]


def _shown(value: Any) -> Any:
    if isinstance(value, bytes | memoryview):
        return bytes(value).decode(errors="backslashreplace")
    return value
