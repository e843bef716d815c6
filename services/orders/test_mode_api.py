"""The HTTP API of test mode: send an example order, and clear all test orders."""

from uuid import UUID

import msgspec
from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from services.orders.removal.sweeping import sweep
from shared.bus import outbox
from shared.bus.contract.events import CustomerDetails, OrderTestCreated
from shared.db.deadline import left
from shared.db.models import Account
from shared.http.route import Answer, Call, Route
from shared.http.standing import KYC_REQUIRED, is_approved, not_approved
from shared.ids import new_id

SOURCE = "services.ingress"  # as if a sender had sent it
MOST = 10_000
"""Test orders that one call clears."""
PAGE = 500
"""Test orders that one transaction removes; see `clear_test_orders` (migration 0060)."""
LAST_SECONDS = 2.0
"""What is left of a request's time for the database when no further page is begun."""
_CUSTOMER = CustomerDetails(name="Zoë Ade", email="zoe@shop.example", phone="+2348000000")


class Sent(msgspec.Struct, kw_only=True):
    """A test order is on its way: to `GET /orders/{order_id}/`, and by email to you alone."""

    order_id: UUID
    mailed_to: str


class Cleared(msgspec.Struct, kw_only=True):
    """The number of cleared test orders; with `more` something is left, for another call.

    What is left may be rows of cleared orders: until they have gone too, an order that is sent
    again waits, and copies of former updates are dropped.
    """

    orders: int
    more: bool


def send(session: Session, call: Call[None, None]) -> Answer:
    """Send a test order, which from the bus on is handled like a signed one."""
    if not is_approved(session, call.caller):
        raise not_approved()
    account = session.get_one(Account, call.caller)
    order = OrderTestCreated(
        order_id=new_id(),
        account_id=account.id,
        customer_details=_CUSTOMER,
        item_summary="2 x blue kettle",
        address="12 Marina Road, Lagos",
    )
    outbox.add_fact(
        session,
        order,
        order.order_id,
        source=SOURCE,
        message_id=order.order_id,
        # By the database's clock, as the updates of any signed request.
        time=session.scalars(select(func.clock_timestamp())).one(),
        traceparent=call.traceparent,
    )
    return Answer(202, Sent(order_id=order.order_id, mailed_to=account.email))


def clear(session: Session, call: Call[None, None]) -> Answer:
    """Delete the account's test orders, the oldest first, in short transactions.

    Orders go before their history: one that is interrupted leaves no order with a hole in it, and
    the recorder's job removes the rest.
    """
    gone, more = 0, True
    while more and gone < MOST and left() > LAST_SECONDS:
        page = select(func.clear_test_orders(call.caller, min(PAGE, MOST - gone)))
        gone += session.scalars(page).one()
        session.commit()
        # A page may be empty although there are more: another call took the same orders.
        more = bool(session.scalar(_IS_LEFT, {"account": call.caller}))
    swept = 1
    while swept and left() > LAST_SECONDS:
        swept = sweep(session, call.caller)
        session.commit()
    more = more or bool(session.scalar(_HAS_ROWS_LEFT, {"account": call.caller}))
    return Answer(200, Cleared(orders=gone, more=more))


_IS_LEFT = text("SELECT EXISTS (SELECT FROM orders WHERE is_test AND account_id = :account)")
_HAS_ROWS_LEFT = text(
    "SELECT EXISTS (SELECT FROM removed_orders WHERE account_id = :account AND is_cleared)"
)

ROUTES = (
    Route(
        method="POST",
        path="/webhooks/test-order/",
        handler=send,
        summary="Send a test order the whole way; its email comes to you alone",
        answers={202: Sent},
        errors=(KYC_REQUIRED,),
        bearer=True,
        tag="Test mode",
    ),
    Route(
        method="DELETE",
        path="/orders/test/",
        handler=clear,
        summary="Clear your test orders",
        answers={200: Cleared},
        bearer=True,
        tag="Test mode",
    ),
)
