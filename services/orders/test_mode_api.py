"""The HTTP API of test mode: send an example order, and clear all test orders."""

from uuid import UUID

import msgspec
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from shared.bus import outbox
from shared.bus.contract.events import CustomerDetails, OrderTestCreated
from shared.db.models import Account
from shared.http.route import Answer, Call, Route
from shared.http.standing import KYC_REQUIRED, is_approved, not_approved
from shared.ids import new_id

SOURCE = "services.ingress"  # as if a sender had sent it
MOST = 10_000
"""Test orders that one call clears; see `clear_test_orders` (migration 0019)."""
_CUSTOMER = CustomerDetails(name="Zoë Ade", email="zoe@shop.example", phone="+2348000000")


class Sent(msgspec.Struct, kw_only=True):
    """A test order is on its way: to `GET /orders/{order_id}/`, and by email to you alone."""

    order_id: UUID
    mailed_to: str


class Cleared(msgspec.Struct, kw_only=True):
    """The number of cleared test orders; with `more` there are others, for another call."""

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
    outbox.tell(
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
    """Delete the account's test orders, the oldest first."""
    gone = session.scalars(select(func.clear_test_orders(call.caller))).one()
    return Answer(200, Cleared(orders=gone, more=gone >= MOST))


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
