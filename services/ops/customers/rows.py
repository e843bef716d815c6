"""A customer's data in the tables."""

import time
from collections import Counter
from collections.abc import Collection
from typing import Any

from sqlalchemy import ColumnElement, Engine, Text, TextClause, and_, cast, func, or_, select, text
from sqlalchemy.orm import Session

from services.ops.customers.erasure import OF_BUSINESSES, Person
from shared.db.models import (
    AwaitedOrder,
    Base,
    EmailDelivery,
    Order,
    OrderConflict,
    OrderStatusHistory,
    OutboxMessage,
    Suppression,
    WaitingUpdate,
    WebhookRequest,
)

WRITERS_SECONDS = 35.0
"""Longer than the server lets a transaction wait (`shared.db.session.IDLE_SECONDS`)."""
LOOK_SECONDS = 0.05


def erase(session: Session, person: Person) -> Counter[str]:
    """Erase a person in the tables; what was touched, by place.

    Args:
        session: the transaction; the audit fact belongs into the same.
        person: who.
    """
    touched = Counter[str]()
    for address in person.spellings:
        touched.update(_touched(session, _ERASE_CUSTOMER, address))
    touched.update(_touched(session, _ERASE_ADDRESS, person.address))
    return +touched


def orders(session: Session, addresses: Collection[str]) -> frozenset[str]:
    """The ids of the orders for customers.

    Args:
        session: to read by.
        addresses: the customers', in small letters.
    """
    theirs = select(Order.id).where(func.lower(Order.customer_email).in_(addresses))
    return frozenset(map(str, session.scalars(theirs)))


def wait_for_writers(engine: Engine) -> bool:
    """Wait until every transaction has ended that has written something by now.

    A transaction has a number from its first write on (PostgreSQL, "Transactions and Identifiers");
    one that only reads, such as a backup, has none.

    Returns:
        Whether they have; one that goes on for `WRITERS_SECONDS` is not waited for any longer.
    """
    deadline = time.monotonic() + WRITERS_SECONDS
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        next_one = connection.scalar(text("SELECT pg_snapshot_xmax(pg_current_snapshot())::text"))
        have_ended = text(
            "SELECT pg_snapshot_xmin(pg_current_snapshot()) >= CAST(:next_one AS xid8)"
        )
        while time.monotonic() < deadline:
            if connection.scalar(have_ended, {"next_one": next_one}):
                return True
            time.sleep(LOOK_SECONDS)
    return False


def read(session: Session, person: Person) -> dict[str, list[dict[str, Any]]]:
    """The rows that a person is in, by table, each by column.

    Args:
        session: to read by.
        person: who.
    """
    is_theirs = func.lower(Order.customer_email).in_(person.spellings)
    theirs = select(Order.id).where(is_theirs)
    order_texts = (
        Order.customer_name,
        Order.customer_phone,
        Order.item_summary,
        Order.address,
        Order.order_number,
    )
    return {
        "orders": _read(
            session,
            Order,
            or_(
                is_theirs,
                *(_mentions(column, person) for column in order_texts),
                *(_says(column, person) for column in (Order.sent_metadata, Order.tracking)),
            ),
        ),
        "order_status_history": _read(
            session,
            OrderStatusHistory,
            or_(
                OrderStatusHistory.order_id.in_(theirs),
                _mentions(OrderStatusHistory.note, person),
                _says(OrderStatusHistory.tracking, person),
            ),
        ),
        "order_conflicts": _read(
            session,
            OrderConflict,
            or_(
                OrderConflict.order_id.in_(theirs),
                _says(OrderConflict.event, person),
            ),
        ),
        "waiting_updates": _read(
            session,
            WaitingUpdate,
            or_(WaitingUpdate.order_id.in_(theirs), _mentions(WaitingUpdate.order_number, person)),
        ),
        # Whose they are is not known, but by what the shop wrote.
        "awaited_orders": _read(
            session, AwaitedOrder, _mentions(AwaitedOrder.cancel_reason, person)
        ),
        "email_deliveries": _read(
            session,
            EmailDelivery,
            (func.lower(EmailDelivery.recipient) == person.address)
            & EmailDelivery.template.startswith("order_", autoescape=True),
        ),
        "suppressions": _read(
            session, Suppression, func.lower(Suppression.address) == person.address
        ),
        "webhook_requests": _read(
            session,
            WebhookRequest,
            or_(
                WebhookRequest.order_id.in_(theirs),
                func.strpos(func.lower(WebhookRequest.idempotency_key), person.address) > 0,
                _mentions(WebhookRequest.order_number, person),
            ),
        ),
        "outbox": _read(
            session,
            OutboxMessage,
            or_(
                func.body_without_customer(OutboxMessage.body, person.mention.pattern)
                != OutboxMessage.body,
                func.order_named(OutboxMessage.type, OutboxMessage.body).in_(theirs),
            )
            & ~or_(*(OutboxMessage.type.startswith(prefix) for prefix in OF_BUSINESSES)),
        ),
    }


def _mentions(column: Any, person: Person) -> ColumnElement[bool]:
    matches: ColumnElement[bool] = column.op("~*")(person.mention.pattern)
    return matches


def _says(document: Any, person: Person) -> ColumnElement[bool]:
    """Whether a text in it mentions the person; as JSON writes it, it may read like another's."""
    says: ColumnElement[bool] = func.mentions_customer(document, person.mention.pattern)
    # Quick, and right for most: before the @ an address that can be mailed is ASCII.
    begins = person.address.partition("@")[0] + "@"
    return and_(func.strpos(func.lower(cast(document, Text)), begins) > 0, says)


def _touched(session: Session, erase: TextClause, address: str) -> dict[str, int]:
    return {row.place: row.touched for row in session.execute(erase, {"address": address})}


_ERASE_CUSTOMER = text("SELECT place, touched FROM erase_customer(:address)")
_ERASE_ADDRESS = text("SELECT place, touched FROM erase_suppressed_address(:address)")


def _read(
    session: Session, table: type[Base], condition: ColumnElement[bool]
) -> list[dict[str, Any]]:
    found = session.execute(select(*table.__table__.columns).where(condition)).mappings()
    return [{name: _shown(value) for name, value in row.items()} for row in found]


def _shown(value: Any) -> Any:
    if isinstance(value, bytes | memoryview):
        return bytes(value).decode(errors="backslashreplace")
    return value
