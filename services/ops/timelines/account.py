"""The trail of an account: KYC, secrets, orders, requests and emails."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from uuid import UUID

from kombu import Connection
from sqlalchemy import ColumnElement, false, func, literal, or_, select
from sqlalchemy.orm import Session

from services.ops.dead_letters import search
from services.ops.timelines import credentials, pending, requests
from services.ops.timelines.credentials import PublicKeyLife, SecretLife
from services.ops.timelines.pending import Waiting
from shared.db.deadline import TookTooLongError, at_most
from shared.db.models import (
    Account,
    EmailDelivery,
    KycApplication,
    Order,
    WebhookPolicy,
    bare,
)
from shared.ids import is_id
from shared.validation.email_addresses import compared

AT_MOST = 100
COUNT_SECONDS = 1.0
"""For each count of a business's orders, so that its page opens whatever their number."""
NO_APPLICATION = "none"
_NEWEST = (KycApplication.submitted_at.desc(), KycApplication.id.desc())


@dataclass(frozen=True, slots=True)
class Application:
    """A KYC application; see the table `kyc_applications`."""

    id: UUID
    business_registration_number: str
    business_address: str
    contact_person_details: str
    status: str
    reason: str
    submitted_at: datetime
    decided_at: datetime | None
    decided_by: str | None


@dataclass(frozen=True, slots=True)
class Email:
    """An email to the business."""

    at: datetime
    template: str
    recipient: str
    state: str
    response: str
    fact_id: UUID


@dataclass(frozen=True, slots=True)
class Business:
    """The facts about a business that are cheap to read, for questions before a command.

    Attributes:
        account_id: its id.
        company_name: its name.
        email: its address, in lower case; a placeholder once its account is closed.
        closed_at: when it closed its account; None while it is open.
        secrets: the valid ones and the newest others, newest first.
        secrets_total: the number of all.
        public_keys: present and former ones.
    """

    account_id: UUID
    company_name: str
    email: str
    closed_at: datetime | None
    secrets: Sequence[SecretLife]
    secrets_total: int
    public_keys: Sequence[PublicKeyLife]

    @property
    def staying(self) -> str:
        """What stays valid when its own secret is replaced, as a text; empty if nothing does."""
        return credentials.staying(self.secrets, self.public_keys)


@dataclass(frozen=True, slots=True)
class AccountTrail(Business):
    """All facts about an account.

    Attributes:
        created_at: when it registered.
        email_verified_at: when it proved its address.
        applications: newest first.
        emails: to the business, newest first, at most `AT_MOST`.
        orders: their number by status; None if the count takes too long.
        orders_today: how many were accepted in the last 24 hours; likewise.
        newest_order_at: when the newest one was accepted.
        refusals: its refused webhook requests of the last 24 hours, by error code; a lower bound
            where the request log kept only some.
        refusals_are_all: whether the request log kept all of them.
        rate: requests a second that a worker accepts from it; None for the default.
        allowed_networks: the networks that it may send from; empty for any.
        is_standard_only: whether it may sign by Standard Webhooks only.
        blocked_at: since when it is blocked; None if it is not.
        waiting: its waiting messages; None if the bus was not read.
        is_whole: see `pending.Pending`.
        looked_at: see `pending.Pending`.
    """

    created_at: datetime
    email_verified_at: datetime | None
    applications: tuple[Application, ...]
    emails: tuple[Email, ...]
    orders: dict[str, int] | None = field(hash=False)
    orders_today: int | None
    newest_order_at: datetime | None
    refusals: dict[str, int] = field(hash=False)
    refusals_are_all: bool
    rate: int | None
    allowed_networks: tuple[str, ...]
    is_standard_only: bool
    blocked_at: datetime | None
    waiting: tuple[Waiting, ...] | None
    is_whole: bool = True
    looked_at: datetime | None = None

    @property
    def kyc_status(self) -> str:
        """The status of the newest application, or `none`."""
        return self.applications[0].status if self.applications else NO_APPLICATION


def find(
    session: Session, text: str, *, sees_persons: bool = True, by_name: bool = True
) -> Sequence[UUID]:
    """Find accounts by an account id, an address, a registration number or a part of a name.

    It returns one more than `AT_MOST` if there are more.

    Args:
        session: may read accounts and KYC applications.
        text: one of the four.
        sees_persons: whether to search addresses and numbers too: a match confirms them.
        by_name: whether to search names too: a business may choose any.
    """
    text = text.strip()
    if not text:
        return []
    conditions: list[ColumnElement[bool]] = []
    if is_id(text):
        conditions.append(Account.id == UUID(text))
    else:
        if by_name:
            conditions.append(Account.company_name.icontains(text, autoescape=True))
        if sees_persons:
            number = bare(literal(text))
            numbered = select(KycApplication.account_id).where(
                bare(KycApplication.business_registration_number) == number, number != ""
            )
            # By ids: a subquery within the OR would keep PostgreSQL from using an index.
            found = session.scalars(numbered.distinct().limit(AT_MOST + 1)).all()
            conditions += [Account.email == compared(text), requests.one_of(Account.id, found)]
    query = (
        select(Account.id)
        .where(or_(false(), *conditions))
        .order_by(Account.company_name, Account.id)
    )
    return session.scalars(query.limit(AT_MOST + 1)).all()


@dataclass(frozen=True, slots=True)
class Line:
    """A business in a list.

    Attributes:
        account_id: its id.
        company_name: its name.
        email: its address, in lower case.
        created_at: when it registered.
        closed_at: when it closed its account; None while it is open.
        kyc_status: see `AccountTrail`.
    """

    account_id: UUID
    company_name: str
    email: str
    created_at: datetime
    closed_at: datetime | None
    kyc_status: str


def lines(session: Session, ids: Sequence[UUID]) -> list[Line]:
    """Return the lines of businesses, in the order of their ids.

    Args:
        session: may read the tables of accounts and kyc.
        ids: of the accounts.
    """
    status = (
        select(KycApplication.status)
        .where(KycApplication.account_id == Account.id)
        .order_by(*_NEWEST)
        .limit(1)
        .scalar_subquery()
    )
    rows = session.execute(
        select(
            Account.id,
            Account.company_name,
            Account.email,
            Account.created_at,
            Account.closed_at,
            func.coalesce(status, NO_APPLICATION),
        ).where(Account.id.in_(ids))
    )
    found = {row[0]: Line(*row) for row in rows}
    return [found[id_] for id_ in ids if id_ in found]


def business(session: Session, account_id: UUID) -> Business | None:
    """Return the facts for a question about an account; None if there is none.

    Args:
        session: may read accounts and secrets.
        account_id: its id.
    """
    account = session.get(Account, account_id)
    if account is None:
        return None
    secrets, total = credentials.secrets(session, account_id)
    keys = credentials.public_keys(session, account_id)
    return Business(
        account.id, account.company_name, account.email, account.closed_at, secrets, total, keys
    )


def account_trail(
    session: Session,
    account_id: UUID,
    *,
    connection: Connection | None = None,
    browse: pending.Browse = search.browse,
) -> AccountTrail | None:
    """Return the trail of an account; None if there is none.

    Args:
        session: may read the tables of accounts, kyc, secrets, orders and the notifier.
        account_id: its id.
        connection: an open kombu connection, to search the bus for waiting messages.
        browse: searches dead letters there.
    """
    account = session.get(Account, account_id)
    if account is None:
        return None
    searched = pending.find(session, [str(account_id)], connection, browse)
    found = searched.messages
    today = datetime.now(UTC) - timedelta(days=1)
    recent = select(func.count()).where(
        Order.account_id == account_id, Order.accepted_at > today, Order.is_live
    )
    newest = select(func.max(Order.accepted_at)).where(
        Order.account_id == account_id, Order.is_live
    )
    orders, orders_today, newest_at = None, None, None
    with suppress(TookTooLongError), at_most(session, COUNT_SECONDS):
        newest_at = session.scalar(newest)
        orders_today = session.scalar(recent) or 0
    # Without an index: one on the status would slow down every update.
    with suppress(TookTooLongError), at_most(session, COUNT_SECONDS):
        orders = _orders(session, account_id)
    policy = session.get(WebhookPolicy, account_id)
    refusals, refusals_are_all = requests.refusals(session, account_id, since=today)
    secrets, secrets_total = credentials.secrets(session, account_id)
    return AccountTrail(
        account_id=account.id,
        company_name=account.company_name,
        email=account.email,
        closed_at=account.closed_at,
        created_at=account.created_at,
        email_verified_at=account.email_verified_at,
        applications=_applications(session, account_id),
        secrets=secrets,
        secrets_total=secrets_total,
        public_keys=credentials.public_keys(session, account_id),
        emails=_emails(session, account_id),
        orders=orders,
        orders_today=orders_today,
        newest_order_at=newest_at,
        refusals=refusals,
        refusals_are_all=refusals_are_all,
        rate=policy.rate_per_second if policy else None,
        allowed_networks=tuple(policy.allowed_networks) if policy else (),
        is_standard_only=policy is not None and policy.standard_webhooks_only,
        blocked_at=policy.blocked_at if policy else None,
        waiting=None if connection is None and not found else tuple(found),
        is_whole=searched.is_whole,
        looked_at=searched.looked_at,
    )


def _orders(session: Session, account_id: UUID) -> dict[str, int]:
    rows = session.execute(
        select(Order.tracking_status, func.count())
        .where(Order.account_id == account_id, Order.is_live)
        .group_by(Order.tracking_status)
    )
    return {row[0]: row[1] for row in rows}


def _applications(session: Session, account_id: UUID) -> tuple[Application, ...]:
    columns = [getattr(KycApplication, name) for name in Application.__slots__]
    query = select(*columns).where(KycApplication.account_id == account_id)
    return tuple(Application(*row) for row in session.execute(query.order_by(*_NEWEST)))


def _emails(session: Session, account_id: UUID) -> tuple[Email, ...]:
    columns = [getattr(EmailDelivery, name) for name in Email.__slots__]
    query = select(*columns).where(EmailDelivery.subject_id == str(account_id))
    rows = session.execute(query.order_by(EmailDelivery.at.desc()).limit(AT_MOST))
    return tuple(Email(*row) for row in rows)
