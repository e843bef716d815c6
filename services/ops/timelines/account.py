"""What happened to an account: KYC, the lives of its secrets, what it sent, what it was told."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from uuid import UUID

from kombu import Connection
from sqlalchemy import func, or_, select
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
)
from shared.validation.email_addresses import compared

AT_MOST = 100
COUNT_SECONDS = 1.0
"""For each count of a business's orders: of millions, too, its page opens."""
NO_APPLICATION = "none"
_NEWEST = (KycApplication.submitted_at.desc(), KycApplication.id.desc())


@dataclass(frozen=True, slots=True)
class Application:
    """One KYC application, as far as ops staff need it; see the table `kyc_applications`."""

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
    """One email to the business."""

    at: datetime
    template: str
    recipient: str
    state: str
    response: str
    fact_id: UUID


@dataclass(frozen=True, slots=True)
class Business:
    """What is asked about a business before something is done to it, and nothing that takes long.

    Attributes:
        account_id: which.
        company_name: its name.
        email: its address, in small letters.
        secrets: newest first; those that work, and the newest of the others.
        secrets_total: how many there are.
        public_keys: what it signs by as well, and did.
    """

    account_id: UUID
    company_name: str
    email: str
    secrets: Sequence[SecretLife]
    secrets_total: int
    public_keys: Sequence[PublicKeyLife]

    @property
    def staying(self) -> str:
        """What goes on working when its own secret is replaced, in words; empty for nothing."""
        return credentials.staying(self.secrets, self.public_keys)


@dataclass(frozen=True, slots=True)
class AccountTrail(Business):
    """Everything known of one account.

    Attributes:
        created_at: when it registered.
        email_verified_at: when it proved its address.
        applications: newest first.
        emails: to the business, newest first, `AT_MOST`.
        orders: how many it has, by status; None where it has too many to be counted at once.
        orders_today: how many were accepted in the last 24 hours; the same.
        newest_order_at: when the newest one was accepted.
        refusals: its webhook requests of the last 24 hours that were refused, by error code.
        rate: requests a second that a worker takes of it; None for the default.
        allowed_networks: from where it may send; none means from anywhere.
        is_standard_only: whether it may sign by Standard Webhooks only.
        blocked_at: since when ops keep it out; None where they do not.
        waiting: what still waits for it; None when the bus was not looked at.
        is_whole: false when not all could be looked at; see `pending.Pending`.
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
    rate: int | None
    allowed_networks: tuple[str, ...]
    is_standard_only: bool
    blocked_at: datetime | None
    waiting: tuple[Waiting, ...] | None
    is_whole: bool = True
    looked_at: datetime | None = None

    @property
    def kyc_status(self) -> str:
        """Where it stands: `none`, or a status of an application."""
        return self.applications[0].status if self.applications else NO_APPLICATION


def find(session: Session, text: str, *, sees_persons: bool = True) -> Sequence[UUID]:
    """The accounts that an account id, address, registration number or part of a name stands for.

    One more than `AT_MOST` where there are more.

    Args:
        session: may read accounts and KYC applications.
        text: one of the four.
        sees_persons: else addresses and numbers are not looked for: what is found would confirm
            them to who may not see them.
    """
    text = text.strip()
    conditions = [Account.company_name.icontains(text, autoescape=True)]
    if sees_persons:
        numbered = select(KycApplication.account_id).where(
            KycApplication.business_registration_number == text
        )
        conditions += [Account.email == compared(text), Account.id.in_(numbered)]
    with suppress(ValueError):
        conditions = [Account.id == UUID(text)]
    query = select(Account.id).where(or_(*conditions)).order_by(Account.company_name, Account.id)
    return session.scalars(query.limit(AT_MOST + 1)).all() if text else []


@dataclass(frozen=True, slots=True)
class Line:
    """One business in a list.

    Attributes:
        account_id: its id.
        company_name: its name.
        email: its address, in small letters.
        created_at: when it registered.
        kyc_status: as of an `AccountTrail`.
    """

    account_id: UUID
    company_name: str
    email: str
    created_at: datetime
    kyc_status: str


def lines(session: Session, ids: Sequence[UUID]) -> list[Line]:
    """What a list shows of businesses, in the order in which they are named.

    Args:
        session: may read what accounts and kyc write.
        ids: which.
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
            func.coalesce(status, NO_APPLICATION),
        ).where(Account.id.in_(ids))
    )
    found = {row[0]: Line(*row) for row in rows}
    return [found[id_] for id_ in ids if id_ in found]


def business(session: Session, account_id: UUID) -> Business | None:
    """One account, as it is asked about; None when there is none.

    Args:
        session: may read accounts and secrets.
        account_id: which.
    """
    account = session.get(Account, account_id)
    if account is None:
        return None
    secrets, total = credentials.secrets(session, account_id)
    keys = credentials.public_keys(session, account_id)
    return Business(account.id, account.company_name, account.email, secrets, total, keys)


def account_trail(
    session: Session,
    account_id: UUID,
    *,
    connection: Connection | None = None,
    browse: pending.Browse = search.browse,
) -> AccountTrail | None:
    """The trail of one account; None when there is none.

    Args:
        session: may read what accounts, kyc, secrets, orders and the notifier write.
        account_id: which.
        connection: an open kombu connection, to look for what waits on the bus.
        browse: looks through dead letters there.
    """
    account = session.get(Account, account_id)
    if account is None:
        return None
    looked = pending.find(session, str(account_id), connection, browse)
    found = looked.messages
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
    # By no index: one with the status would cost each update that today touches none.
    with suppress(TookTooLongError), at_most(session, COUNT_SECONDS):
        orders = _orders(session, account_id)
    policy = session.get(WebhookPolicy, account_id)
    secrets, secrets_total = credentials.secrets(session, account_id)
    return AccountTrail(
        account_id=account.id,
        company_name=account.company_name,
        email=account.email,
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
        refusals=requests.refusals(session, account_id, since=today),
        rate=policy.rate_per_second if policy else None,
        allowed_networks=tuple(policy.allowed_networks) if policy else (),
        is_standard_only=policy is not None and policy.standard_webhooks_only,
        blocked_at=policy.blocked_at if policy else None,
        waiting=None if connection is None and not found else tuple(found),
        is_whole=looked.is_whole,
        looked_at=looked.looked_at,
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
