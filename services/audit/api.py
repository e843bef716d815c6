"""HTTP API: the activity of an account from the audit log, and the announcement of a file."""

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
from sqlalchemy import select
from sqlalchemy.orm import Session

from services.audit import SOURCE
from shared.bus import outbox
from shared.bus.contract import events
from shared.bus.contract.events import Event, WebhookFileSent, of_account
from shared.db.models import Account, AuditEntry
from shared.http.errors import ApiError
from shared.http.listing import INVALID_CURSOR, Limit
from shared.http.route import Answer, Call, Route
from shared.http.standing import KYC_REQUIRED, is_approved, not_approved
from shared.ids import derived_id

Sha256 = Annotated[
    str, msgspec.Meta(pattern=r"^[0-9a-f]{64}(?![\s\S])", description="64 hexadecimal digits")
]
By = Literal["you", "somebody", "order_fellow", "schedule", "unknown"]
FIELDS: Mapping[type[Event], tuple[str, ...]] = {
    events.AccountVerified: (),
    events.AccountSignedIn: ("is_new_place",),
    events.AccountSignInFailed: (),
    events.AccountChanged: ("what", "value", "reason"),
    events.KycSubmitted: (),
    events.KycApproved: (),
    events.KycRejected: ("reason",),
    events.KycInformationRequested: ("reason",),
    events.KycRevoked: ("reason",),
    events.SecretIssued: ("is_test",),
    events.SecretShown: ("is_test",),
    events.SecretGiven: ("platform", "shop"),
    events.SecretRotated: ("cause", "is_test", "revoked_ids", "previous_valid_until"),
    events.SecretRevoked: ("reason",),
    events.SecretKeyAdded: ("public_key",),
    events.SecretKeyRemoved: ("public_key",),
    events.WebhookAllowlistChanged: ("allowed_networks",),
    WebhookFileSent: ("orders", "updates"),
}
"""Events that a business sees, each with the fields that it sees; never an operator's name."""
SHOWN = {event.TYPE: members for event, members in FIELDS.items()}
_OURS = {
    "kyc.approved",
    "kyc.rejected",
    "kyc.information_requested",
    "kyc.revoked",
}
_AMBIGUOUS = {"secret.issued", "secret.revoked"}
"""Events that do not show whether we or the business caused them."""


class Filter(msgspec.Struct, kw_only=True):
    """The position and the size of a page."""

    cursor: Annotated[str, msgspec.Meta(max_length=20)] | None = None
    limit: Limit = 50


class Happened(msgspec.Struct, kw_only=True):
    """An event of the account; `address` is the client's IP address, if known.

    `by`: `you` for a signed-in session of yours, `somebody` for a failed sign-in, `unknown` if it
    may be you or us.
    """

    at: datetime
    type: str
    by: By
    address: str | None
    details: dict[str, Any]


class Activity(msgspec.Struct, kw_only=True):
    """Events, newest first; `next` is the cursor of the next page, null on the last."""

    results: list[Happened]
    next: str | None


class OrdersFile(msgspec.Struct, kw_only=True):
    """A file of orders that you are about to send: its SHA-256 and its number of rows."""

    sha256: Sha256
    orders: Annotated[int, msgspec.Meta(ge=0)]
    updates: Annotated[int, msgspec.Meta(ge=0)] = 0


def index(session: Session, call: Call[None, Filter]) -> Answer:
    """List the activity of your account."""
    wanted = call.query
    query = select(AuditEntry.sequence, AuditEntry.happened_at, AuditEntry.type, AuditEntry.data)
    query = query.where(AuditEntry.correlation_id == str(call.caller), AuditEntry.type.in_(SHOWN))
    if wanted.cursor is not None:
        query = query.where(AuditEntry.sequence < _from_cursor(wanted.cursor))
    # By the sequence of the log, which has no ties.
    rows = session.execute(query.order_by(AuditEntry.sequence.desc()).limit(wanted.limit + 1)).all()
    page = rows[: wanted.limit]
    more = len(rows) > wanted.limit
    return Answer(
        200,
        Activity(
            results=[_happened(row.happened_at, row.type, row.data) for row in page],
            next=str(page[-1].sequence) if more else None,
        ),
    )


def announce(session: Session, call: Call[OrdersFile, None]) -> Answer:
    """Record that a file of orders is sent; its orders are sent like any other."""
    if not is_approved(session, call.caller):
        raise not_approved()
    account = session.get_one(Account, call.caller)
    fact = WebhookFileSent(
        **of_account(account),
        address=call.address,
        sha256=call.body.sha256,
        orders=call.body.orders,
        updates=call.body.updates,
    )
    # The id is the file's, so that a repeated announcement is recorded once.
    fact_id = derived_id(fact.TYPE, account.id, call.body.sha256)
    outbox.add_fact(session, fact, account.id, source=SOURCE, message_id=fact_id, once=True)
    return Answer(204)


def _happened(at: datetime, type_: str, data: str) -> Happened:
    fact = json.loads(data)
    address = fact.get("address")
    return Happened(
        at=at,
        type=type_,
        by=_by(type_, fact),
        address=address if isinstance(address, str) and address else None,
        details={name: fact[name] for name in SHOWN[type_] if fact.get(name)},
    )


def _by(type_: str, fact: Mapping[str, Any]) -> By:
    cause = fact.get("cause")
    if cause in ("scheduled", "expired_use"):
        return "schedule"
    if type_ in _AMBIGUOUS:
        return "unknown"
    if type_ in _OURS or fact.get("by") or cause == "operator":
        return "order_fellow"
    return "somebody" if type_ == events.AccountSignInFailed.TYPE else "you"


def _from_cursor(cursor: str) -> int:
    if not cursor.isascii() or not cursor.isdigit() or len(cursor) > 18:
        raise ApiError(*INVALID_CURSOR)
    return int(cursor)


ROUTES = (
    Route(
        method="GET",
        path="/activity/",
        handler=index,
        summary="List the activity of your account: sign-ins, KYC, secrets, addresses, files",
        query=Filter,
        answers={200: Activity},
        bearer=True,
        tag="Accounts",
    ),
    Route(
        method="POST",
        path="/webhooks/files/",
        handler=announce,
        summary="Announce a file of orders, so that your activity lists it",
        body=OrdersFile,
        answers={204: None},
        errors=(KYC_REQUIRED,),
        bearer=True,
        tag="Webhooks",
    ),
)
