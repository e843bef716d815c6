"""The HTTP side: whom a business's emails do not go to, how they look, and the page to leave by."""

from datetime import datetime
from typing import Literal
from uuid import UUID

import msgspec
from sqlalchemy import select
from sqlalchemy.orm import Session

from services.notifier import SOURCE
from services.notifier.previews import api as preview_api
from services.notifier.suppression.page import UnsubscribePage
from shared.bus import outbox
from shared.bus.contract.events import EmailSuppressionLifted, of_account
from shared.db.models import Account, Suppression
from shared.http.errors import ApiError
from shared.http.listing import Limit
from shared.http.route import Answer, Call, Route
from shared.security.unsubscribe_tokens import PATH as UNSUBSCRIBE_PATH

__all__ = ["ROUTES", "UNSUBSCRIBE_PATH", "UnsubscribePage"]

Cause = Literal["unsubscribed", "refused"]


class SuppressionFilter(msgspec.Struct, kw_only=True):
    """Which of them, and where the page begins."""

    cause: Cause | None = None
    cursor: UUID | None = None
    limit: Limit = 50


class SuppressionView(msgspec.Struct, kw_only=True):
    """A customer whom no more emails go to.

    `unsubscribed`: they have left, all your orders or the one that `order_id` names; each new order
    is still confirmed to them. `refused`: the mail server refused the address for good, with
    `smtp_code` and the words of `response`, and nothing goes there. `address` is null once the
    customer was erased.
    """

    id: UUID
    cause: Cause
    address: str | None
    order_id: UUID | None
    since: datetime
    smtp_code: int | None
    response: str


class SuppressionPage(msgspec.Struct, kw_only=True):
    """Newest first; `next` is the cursor of the next page, null on the last."""

    results: list[SuppressionView]
    next: UUID | None


def index(session: Session, call: Call[None, SuppressionFilter]) -> Answer:
    """Whom your emails do not go to."""
    wanted = call.query
    query = select(Suppression).where(Suppression.account_id == call.caller)
    if wanted.cause is not None:
        query = query.where(Suppression.cause == wanted.cause)
    if wanted.cursor is not None:
        query = query.where(Suppression.id < wanted.cursor)
    # The ids are UUIDv7: in the order of time.
    found = session.scalars(query.order_by(Suppression.id.desc()).limit(wanted.limit + 1)).all()
    page = found[: wanted.limit]
    return Answer(
        200,
        SuppressionPage(
            results=[msgspec.convert(one, SuppressionView, from_attributes=True) for one in page],
            next=page[-1].id if len(found) > wanted.limit else None,
        ),
    )


def lift(session: Session, call: Call[None, None]) -> Answer:
    """Mail an address again that was refused."""
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
    outbox.tell(session, fact, account.id, source=SOURCE)
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
