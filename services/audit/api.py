"""The HTTP side: what happened to an account, as the audit log has it; and a file announced."""

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
TOLD: Mapping[type[Event], tuple[str, ...]] = {
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
"""What a business is shown of its account, and of each what: no operator's name is among it."""
SHOWN = {event.TYPE: members for event, members in TOLD.items()}
_OURS = {
    "kyc.approved",
    "kyc.rejected",
    "kyc.information_requested",
    "kyc.revoked",
}
_UNSAID = {"secret.issued", "secret.revoked"}
"""Of an approval or an operator, or of whoever is signed in: the fact does not say."""


class Filter(msgspec.Struct, kw_only=True):
    """Where the page begins."""

    cursor: Annotated[str, msgspec.Meta(max_length=20)] | None = None
    limit: Limit = 50


class Happened(msgspec.Struct, kw_only=True):
    """One thing that happened: `address` is from where, where that is known.

    `by` is `you` for whoever is signed in as you, `somebody` for who tried to be, and `unknown`
    where it may be you or us.
    """

    at: datetime
    type: str
    by: By
    address: str | None
    details: dict[str, Any]


class Activity(msgspec.Struct, kw_only=True):
    """What happened, newest first; `next` is the cursor of the next page, null on the last."""

    results: list[Happened]
    next: str | None


class OrdersFile(msgspec.Struct, kw_only=True):
    """A file of orders that you are about to send: its SHA-256, and what is in it."""

    sha256: Sha256
    orders: Annotated[int, msgspec.Meta(ge=0)]
    updates: Annotated[int, msgspec.Meta(ge=0)] = 0


def index(session: Session, call: Call[None, Filter]) -> Answer:
    """What happened to your account."""
    wanted = call.query
    query = select(AuditEntry.sequence, AuditEntry.happened_at, AuditEntry.type, AuditEntry.data)
    query = query.where(AuditEntry.correlation_id == str(call.caller), AuditEntry.type.in_(SHOWN))
    if wanted.cursor is not None:
        query = query.where(AuditEntry.sequence < _from_cursor(wanted.cursor))
    # In the order in which it was written down, which has no ties.
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
    """Have it written down that a file of orders is sent; its orders go as all others do."""
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
    # The same file counts once, and so it is told once.
    fact_id = derived_id(fact.TYPE, account.id, call.body.sha256)
    outbox.tell(session, fact, account.id, source=SOURCE, message_id=fact_id, once=True)
    return Answer(204)


def _happened(at: datetime, type_: str, data: str) -> Happened:
    told = json.loads(data)
    address = told.get("address")
    return Happened(
        at=at,
        type=type_,
        by=_by(type_, told),
        address=address if isinstance(address, str) and address else None,
        details={name: told[name] for name in SHOWN[type_] if told.get(name)},
    )


def _by(type_: str, told: Mapping[str, Any]) -> By:
    cause = told.get("cause")
    if cause in ("scheduled", "expired_use"):
        return "schedule"
    if type_ in _UNSAID:
        return "unknown"
    if type_ in _OURS or told.get("by") or cause == "operator":
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
        summary="What happened to your account: sign-ins, KYC, secrets, addresses, files",
        query=Filter,
        answers={200: Activity},
        bearer=True,
        tag="Accounts",
    ),
    Route(
        method="POST",
        path="/webhooks/files/",
        handler=announce,
        summary="Say that you send a file of orders, so that it stands in your activity",
        body=OrdersFile,
        answers={204: None},
        errors=(KYC_REQUIRED,),
        bearer=True,
        tag="Webhooks",
    ),
)
