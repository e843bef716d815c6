"""Listing and searching KYC applications, pending and decided."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Select, String, cast, func, or_, select, true, tuple_
from sqlalchemy.orm import Session, aliased

from services.ops.commands.kyc_persons import Recorded, recorded, sentence
from shared.db.models import Account, KycApplication, bare, kyc_state

NAMED = 6
"""Businesses with the same number that are listed by name."""


class Status(StrEnum):
    """The state of an application."""

    PENDING = "pending"
    INCOMPLETE = "incomplete"
    APPROVED = "approved"
    REJECTED = "rejected"
    REVOKED = "revoked"


class Sort(StrEnum):
    """The order of a list of applications."""

    OLDEST = "oldest"
    NEWEST = "newest"
    DECIDED = "decided"
    COMPANY = "company"


@dataclass(frozen=True, slots=True)
class Filter:
    """Selects and sorts applications.

    Attributes:
        status: the state.
        words: a part of the company name, email address or registration number, or an account id;
            empty for all.
        sort: by submission, by decision (newest first) or by company name.
        names_only: whether to search in the company name alone, so that a user who may not see the
            other fields cannot find them out letter by letter.
    """

    status: Status
    words: str = ""
    sort: Sort = Sort.OLDEST
    names_only: bool = False


@dataclass(frozen=True, slots=True)
class SameNumber:
    """Another business with the same registration number.

    Attributes:
        account_id: of the other business.
        company_name: its name.
        status: of its newest application with that number.
    """

    account_id: UUID
    company_name: str
    status: str


@dataclass(frozen=True, slots=True)
class Same:
    """The other businesses with the same registration number.

    Attributes:
        named: the newest of them.
        more: the number of further ones.
    """

    named: Sequence[SameNumber] = ()
    more: int = 0

    @property
    def in_words(self) -> str:
        """A readable list; empty if there are none."""
        names = [f"{one.company_name} ({one.status})" for one in self.named]
        return "; ".join([*names, f"and {self.more:,} more"] if self.more else names)


@dataclass(frozen=True, slots=True)
class Application:
    """An application and its business; see the tables `accounts` and `kyc_applications`.

    Its email is a placeholder once `closed_at` is set.
    """

    id: UUID
    account_id: UUID
    company_name: str
    email: str
    closed_at: datetime | None
    business_registration_number: str
    business_address: str
    contact_person_details: str
    status: str
    reason: str
    submitted_at: datetime
    decided_at: datetime | None
    decided_by: str | None
    recorded: Sequence[Recorded] = ()

    @property
    def state(self) -> str:
        """The state, as in `KycDecide.looked_at`."""
        return kyc_state(self.status, self.decided_at)

    @property
    def so_far(self) -> str:
        """Who has decided, and how many decisions are missing, in words."""
        return sentence(self.recorded)


_COLUMNS = (
    KycApplication.id,
    Account.id,
    Account.company_name,
    Account.email,
    Account.closed_at,
    KycApplication.business_registration_number,
    KycApplication.business_address,
    KycApplication.contact_person_details,
    KycApplication.status,
    KycApplication.reason,
    KycApplication.submitted_at,
    KycApplication.decided_at,
    KycApplication.decided_by,
)


def applications(
    session: Session, wanted: Filter, *, limit: int = 100, after: UUID | None = None
) -> Sequence[Application]:
    """Return a page of applications.

    Args:
        session: may read accounts and KYC applications.
        wanted: selects and sorts them.
        limit: the page's size.
        after: the id of the previous page's last application, whatever its state is now.
    """
    descends = wanted.sort in (Sort.NEWEST, Sort.DECIDED)
    place = [_PLACES[wanted.sort], KycApplication.id]
    query = _wanted(select(*_COLUMNS), wanted)
    if after is not None:
        last = (
            select(_PLACES[wanted.sort], KycApplication.id)
            .join(Account, Account.id == KycApplication.account_id)
            .where(KycApplication.id == after)
            .scalar_subquery()
        )
        query = query.where(tuple_(*place) < last if descends else tuple_(*place) > last)
    query = query.order_by(*(column.desc() if descends else column for column in place))
    found = [Application(*tuple(row)) for row in session.execute(query.limit(limit))]
    by = recorded(session, [application.id for application in found])
    return [replace(application, recorded=by.get(application.id, ())) for application in found]


def counts(session: Session, wanted: Filter) -> dict[Status, int]:
    """Count the applications by state.

    Args:
        session: may read accounts and KYC applications.
        wanted: selects them; its status is ignored.
    """
    query = select(KycApplication.status, func.count()).where(_is_unanswered())
    if wanted.words:
        query = _with(_of_accounts(query), wanted)
    rows = session.execute(query.group_by(KycApplication.status))
    return dict.fromkeys(Status, 0) | {Status(status): number for status, number in rows}


def same_number(session: Session, found: Sequence[Application]) -> Mapping[UUID, Same]:
    """Find other businesses with the same registration numbers, by application.

    Case, white space and punctuation are ignored. Only the newest `NAMED` businesses are listed: a
    number such as "none" may have thousands.

    Args:
        session: may read accounts and KYC applications.
        found: the applications.
    """
    ours, other, later = (aliased(KycApplication) for _ in range(3))
    number, ids = bare(ours.business_registration_number), [one.id for one in found]
    is_same = bare(other.business_registration_number) == number
    # Compares with `other`, whose number is equal: `ours` is out of scope at this depth.
    again = _later(later, other).where(
        bare(later.business_registration_number) == bare(other.business_registration_number)
    )
    others = (
        select(other.account_id, other.status, other.submitted_at, other.id)
        .where(is_same, other.account_id != ours.account_id, ~again.exists())
        .order_by(other.submitted_at.desc(), other.id.desc())
        .limit(NAMED)
        .lateral()
    )
    rows = session.execute(
        select(ours.id, Account.id, Account.company_name, others.c.status)
        .select_from(ours)
        .join(others, true())
        .join(Account, Account.id == others.c.account_id)
        .where(ours.id.in_(ids), number != "")
        .order_by(others.c.submitted_at.desc(), others.c.id.desc())
    )
    named: defaultdict[UUID, list[SameNumber]] = defaultdict(list)
    for id_, account_id, company_name, status in rows:
        named[id_].append(SameNumber(account_id, company_name, status))
    numbers = select(number.label("number")).where(ours.id.in_(named)).distinct().subquery()
    having = select(func.count(other.account_id.distinct())).where(
        bare(other.business_registration_number) == numbers.c.number
    )
    counted = select(numbers.c.number, having.scalar_subquery().label("businesses")).subquery()
    totals = (
        select(ours.id, counted.c.businesses)
        .select_from(ours)
        .join(counted, counted.c.number == number)
        .where(ours.id.in_(named))
    )
    total: dict[UUID, int] = {row.id: row.businesses for row in session.execute(totals)}
    # The count includes the application's own business.
    return {id_: Same(tuple(same), total[id_] - 1 - len(same)) for id_, same in named.items()}


def newest(session: Session, account_id: UUID) -> Application | None:
    """Return the application of a business that a decision is about; None if there is none.

    Args:
        session: may read accounts and KYC applications.
        account_id: the business.
    """
    return newest_where(session, KycApplication.account_id == account_id)


def newest_where(session: Session, condition: ColumnElement[bool]) -> Application | None:
    """Return the newest application that meets a condition; None if there is none.

    Args:
        session: may read accounts and KYC applications.
        condition: a condition on `Account` and `KycApplication`.
    """
    row = session.execute(
        select(*_COLUMNS)
        .join(Account, Account.id == KycApplication.account_id)
        .where(condition)
        .order_by(KycApplication.submitted_at.desc(), KycApplication.id.desc())
        .limit(1)
    ).first()
    if row is None:
        return None
    found = Application(*tuple(row))
    return replace(found, recorded=recorded(session, [found.id]).get(found.id, ()))


_PLACES: dict[Sort, Any] = {
    Sort.OLDEST: KycApplication.submitted_at,
    Sort.NEWEST: KycApplication.submitted_at,
    # An undecided application has no such time, and a comparison with NULL would end the list.
    Sort.DECIDED: func.coalesce(KycApplication.decided_at, KycApplication.submitted_at),
    Sort.COMPANY: func.lower(Account.company_name),
}


def _wanted(query: Any, wanted: Filter) -> Select[Any]:
    of_state = KycApplication.status == wanted.status.value
    return _with(_of_accounts(query).where(of_state, _is_unanswered()), wanted)


def _with(query: Select[Any], wanted: Filter) -> Select[Any]:
    if not wanted.words:
        return query
    texts = [Account.company_name]
    if not wanted.names_only:
        texts += [Account.email, KycApplication.business_registration_number]
    has = [text.icontains(wanted.words, autoescape=True) for text in texts]
    return query.where(or_(cast(Account.id, String) == wanted.words.lower(), *has))


def _of_accounts(query: Any) -> Any:
    return query.join_from(KycApplication, Account, Account.id == KycApplication.account_id)


def _is_unanswered() -> ColumnElement[bool]:
    """Exclude applications that were sent back, and answered with another application."""
    answer = _later(aliased(KycApplication), KycApplication)
    return or_(KycApplication.status != Status.INCOMPLETE.value, ~answer.exists())


def _later(later: type[KycApplication], than: type[KycApplication]) -> Select[Any]:
    return select(later.id).where(
        later.account_id == than.account_id,
        tuple_(later.submitted_at, later.id) > tuple_(than.submitted_at, than.id),
    )
