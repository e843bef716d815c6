"""A customer's data in the tables."""

import time
from collections import Counter
from collections.abc import Collection
from typing import Any

from sqlalchemy import ColumnElement, Engine, Text, and_, cast, func, or_, select, text
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
"""Longer than the server's limit for idle transactions (`shared.db.session.IDLE_SECONDS`)."""
POLL_SECONDS = 0.05


def erase(session: Session, address: str) -> Counter[str]:
    """Erase a customer in the tables; returns the number of changed rows by place.

    The rows and the customer's orders stay locked until the transaction ends.

    Args:
        session: the transaction, which the audit fact must share.
        address: one spelling of the customer's address.

    Raises:
        sqlalchemy.exc.OperationalError: another transaction held a row for two seconds.
    """
    rows_ = session.execute(_ERASE_CUSTOMER, {"address": address})
    return +Counter({row.place: row.touched for row in rows_})


def orders(session: Session, addresses: Collection[str]) -> frozenset[str]:
    """Return the ids of customers' orders.

    Args:
        session: a session to read with.
        addresses: the customers' addresses, in lower case.
    """
    is_theirs = func.lower(Order.customer_email).in_(addresses)
    return frozenset(map(str, session.scalars(select(Order.id).where(is_theirs))))


def wait_for_writers(engine: Engine) -> bool:
    """Wait until all transactions have ended that have written something by now.

    A transaction gets an id at its first write (PostgreSQL, "Transactions and Identifiers");
    read-only ones, such as a backup, have none.

    Returns:
        Whether they have ended; False after `WRITERS_SECONDS`.
    """
    deadline = time.monotonic() + WRITERS_SECONDS
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        next_id = connection.scalar(text("SELECT pg_snapshot_xmax(pg_current_snapshot())::text"))
        have_ended = text(
            "SELECT pg_snapshot_xmin(pg_current_snapshot()) >= CAST(:next_id AS xid8)"
        )
        while time.monotonic() < deadline:
            if connection.scalar(have_ended, {"next_id": next_id}):
                return True
            time.sleep(POLL_SECONDS)
    return False


def read(session: Session, person: Person) -> dict[str, list[dict[str, Any]]]:
    """Return the rows with a customer's data, by table, each by column.

    Args:
        session: a session to read with.
        person: the customer.
    """
    is_theirs = func.lower(Order.customer_email).in_(person.spellings)
    their_orders = select(Order.id).where(is_theirs)
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
                OrderStatusHistory.order_id.in_(their_orders),
                _mentions(OrderStatusHistory.note, person),
                _says(OrderStatusHistory.tracking, person),
            ),
        ),
        "order_conflicts": _read(
            session,
            OrderConflict,
            or_(
                OrderConflict.order_id.in_(their_orders),
                _says(OrderConflict.event, person),
            ),
        ),
        "waiting_updates": _read(
            session,
            WaitingUpdate,
            or_(
                WaitingUpdate.order_id.in_(their_orders),
                _mentions(WaitingUpdate.order_number, person),
            ),
        ),
        # These rows have no customer yet; only the shop's texts can mention one.
        "awaited_orders": _read(
            session,
            AwaitedOrder,
            or_(
                _mentions(AwaitedOrder.cancel_reason, person),
                _says(AwaitedOrder.cancelled_before, person),
            ),
        ),
        "email_deliveries": _read(
            session,
            EmailDelivery,
            or_(
                (func.lower(EmailDelivery.recipient) == person.address)
                & EmailDelivery.template.startswith("order_", autoescape=True),
                # A server that forwards mail quotes the forwarding address.
                _mentions(EmailDelivery.response, person),
            ),
        ),
        "suppressions": _read(
            session,
            Suppression,
            or_(
                func.lower(Suppression.address) == person.address,
                _mentions(Suppression.response, person),
            ),
        ),
        "webhook_requests": _read(
            session,
            WebhookRequest,
            or_(
                WebhookRequest.order_id.in_(their_orders),
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
                func.order_named(OutboxMessage.type, OutboxMessage.body).in_(their_orders),
            )
            & ~or_(*(OutboxMessage.type.startswith(prefix) for prefix in OF_BUSINESSES)),
        ),
    }


def _mentions(column: Any, person: Person) -> ColumnElement[bool]:
    matches: ColumnElement[bool] = column.op("~*")(person.mention.pattern)
    return matches


def _says(document: Any, person: Person) -> ColumnElement[bool]:
    """Match JSON with a text that mentions the customer; its raw form may match by accident."""
    says: ColumnElement[bool] = func.mentions_customer(document, person.mention.pattern)
    # A fast filter: before the @, a deliverable address is ASCII.
    begins = person.address.partition("@")[0] + "@"
    return and_(func.strpos(func.lower(cast(document, Text)), begins) > 0, says)


_ERASE_CUSTOMER = text("SELECT place, touched FROM erase_customer(:address)")


def _read(
    session: Session, table: type[Base], condition: ColumnElement[bool]
) -> list[dict[str, Any]]:
    found = session.execute(select(*table.__table__.columns).where(condition)).mappings()
    return [{name: _shown(value) for name, value in row.items()} for row in found]


def _shown(value: Any) -> Any:
    if isinstance(value, bytes | memoryview):
        return bytes(value).decode(errors="backslashreplace")
    return value
