"""The HTTP API of suppressions and email previews; exports the unsubscribe page."""

from datetime import datetime
from typing import Literal, cast
from uuid import UUID

import msgspec
from sqlalchemy import select
from sqlalchemy.orm import Session

from services.notifier import SOURCE
from services.notifier.previews import api as preview_api
from services.notifier.suppression.page import UnsubscribePage
from shared.bus import outbox
from shared.bus.contract.events import EmailSuppressionLifted, of_account
from shared.db.models import Account, Order, Suppression
from shared.http.errors import ApiError
from shared.http.listing import Limit
from shared.http.route import Answer, Call, Route
from shared.security.unsubscribe_tokens import PATH as UNSUBSCRIBE_PATH

__all__ = ["ROUTES", "UNSUBSCRIBE_PATH", "UnsubscribePage"]

Cause = Literal["unsubscribed", "refused"]


class SuppressionFilter(msgspec.Struct, kw_only=True):
    """Which suppressions, and where the page begins."""

    cause: Cause | None = None
    cursor: UUID | None = None
    limit: Limit = 50


class SuppressionView(msgspec.Struct, kw_only=True):
    """A customer who gets no more emails.

    `unsubscribed`: the customer has unsubscribed, from all your orders or from `order_id`; each new
    order is still confirmed. `refused`: the mail server refused the address permanently, with
    `smtp_code` and `response`, and nothing is sent there. `by_order_id` is the order of that email,
    `order_number` your number for it, if any. `address` is null once the customer was erased.
    """

    id: UUID
    cause: Cause
    address: str | None
    order_id: UUID | None
    by_order_id: UUID
    order_number: str | None
    since: datetime
    smtp_code: int | None
    response: str


class SuppressionPage(msgspec.Struct, kw_only=True):
    """Newest first; `next` is the cursor of the next page, null on the last."""

    results: list[SuppressionView]
    next: UUID | None


def index(session: Session, call: Call[None, SuppressionFilter]) -> Answer:
    """Return a page of the account's suppressions."""
    wanted = call.query
    query = (
        select(Suppression, Order.order_number)
        .outerjoin(Order, Order.id == Suppression.by_order_id)
        .where(Suppression.account_id == call.caller)
    )
    if wanted.cause is not None:
        query = query.where(Suppression.cause == wanted.cause)
    if wanted.cursor is not None:
        query = query.where(Suppression.id < wanted.cursor)
    # The ids are UUIDv7, which sort by time.
    found = session.execute(query.order_by(Suppression.id.desc()).limit(wanted.limit + 1)).all()
    page = found[: wanted.limit]
    return Answer(
        200,
        SuppressionPage(
            results=[_view(one, number) for one, number in page],
            next=page[-1].Suppression.id if len(found) > wanted.limit else None,
        ),
    )


def _view(one: Suppression, order_number: str | None) -> SuppressionView:
    return SuppressionView(
        id=one.id,
        cause=cast("Cause", one.cause),
        address=one.address,
        order_id=one.order_id,
        by_order_id=one.by_order_id,
        order_number=order_number,
        since=one.since,
        smtp_code=one.smtp_code,
        response=one.response,
    )


def lift(session: Session, call: Call[None, None]) -> Answer:
    """Delete the suppression of a refused address."""
    try:
        found = session.get(Suppression, UUID(call.path["suppression_id"]))
    except ValueError:
        found = None
    if found is None or found.account_id != call.caller:
        raise ApiError(*_NOT_FOUND)
    if found.cause != "refused":
        raise ApiError(*_LEFT)
    session.delete(found)
    account = session.get_one(Account, call.caller)
    fact = EmailSuppressionLifted(
        **of_account(account), address=call.address, suppression_id=found.id
    )
    outbox.add_fact(session, fact, account.id, source=SOURCE)
    return Answer(204)


_NOT_FOUND = (404, "suppression_not_found", "You have no suppression with this id.")
_LEFT = (
    409,
    "customer_unsubscribed",
    "The customer has left: only they can come back, by the link in any of your emails.",
)

ROUTES = (
    Route(
        method="GET",
        path="/suppressions/",
        handler=index,
        summary="Whom your emails do not go to, newest first",
        query=SuppressionFilter,
        answers={200: SuppressionPage},
        bearer=True,
        tag="Emails",
    ),
    Route(
        method="DELETE",
        path="/suppressions/{suppression_id}/",
        handler=lift,
        summary="Mail an address again that was refused",
        answers={204: None},
        errors=(_NOT_FOUND, _LEFT),
        bearer=True,
        tag="Emails",
    ),
    *preview_api.ROUTES,
)
