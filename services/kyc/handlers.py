"""Applies an operator's decision on an application."""

from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session, aliased

from services.kyc import SOURCE, approvals, states
from shared.bus import outbox
from shared.bus.contract.errors import Permanent
from shared.bus.contract.events import (
    Event,
    KycApproved,
    KycDecide,
    KycInformationRequested,
    KycRejected,
    KycRevoked,
    of_account,
)
from shared.bus.contract.message import Received
from shared.db import revoked
from shared.db.models import Account, KycApplication, kyc_state
from shared.db.session import database_time
from shared.ids import follow_up_id

UNKNOWN_OPERATOR = "an unnamed operator"
_ANOTHER = "the business has sent another application since: look at that one"


def decide(session: Session, received: Received[KycDecide]) -> None:
    """Apply a decision to the newest application of a business.

    A repeated decision changes nothing and publishes nothing. If several operators must agree
    (`KYC_APPROVALS_REQUIRED`), the decision is stored until enough have made the same one.

    Raises:
        Permanent: no such business or application, or the decision does not fit its state.
    """
    decision = received.data
    approvals.refuse_unnamed(received)
    account = _account(session, decision)
    # Lock the account first, as closing it does.
    is_open = session.scalar(select(func.hold_open_account(account.id)))
    application = session.scalar(
        select(KycApplication)
        .where(KycApplication.account_id == account.id)
        .order_by(KycApplication.submitted_at.desc(), KycApplication.id.desc())
        .limit(1)
        .with_for_update()
    )
    if application is None:
        raise Permanent("this business has not submitted KYC")
    if decision.application_id not in (None, application.id):
        raise Permanent(_ANOTHER)
    if (
        decision.business_registration_number is not None
        and application.business_registration_number != decision.business_registration_number
    ):
        raise Permanent("that registration number is not on the business's newest application")
    try:
        new = states.after(decision.decision, application.status)  # type: ignore[arg-type]
    except states.NotPossible as error:
        received.take_effect_once()
        raise Permanent(str(error)) from None
    if new in states.OPEN and not is_open:
        raise Permanent("the business has closed its account")
    is_asked_more = decision.decision == "ask" and decision.reason != application.reason
    if new == application.status and not is_asked_more:
        approvals.take_back(session, application, received)
        return
    if not received.replay:
        _refuse_unseen(decision, application)
    if received.replay and decision.decision == "approve" and decision.application_id is None:
        # Replayed into a restored database: the application that it meant may be missing, and the
        # newest one may be a different one.
        raise Permanent(
            "a copy from the journal that does not say which application it approves: look at the "
            "one that is there, and approve that"
        )
    decided_by, reason = received.user_id or UNKNOWN_OPERATOR, decision.reason
    if approvals.needed(decision) > 1:
        counted = approvals.record(session, application, received)
        if len(counted) < approvals.needed(decision):
            return
        decided_by = ", ".join(each.decided_by for each in counted)
        reason = reason or next((each.reason for each in counted if each.reason), "")
    received.take_effect_once()
    now = database_time(session)  # before any change, which this query would flush
    try:
        with session.begin_nested():
            application.status = new
            application.reason = reason
            application.decided_at = now
            application.decided_by = decided_by
    except IntegrityError:  # a newer application has been submitted, which was not inspected
        raise Permanent(_ANOTHER) from None
    fact = _fact(session, account, application)
    outbox.add_fact(
        session,
        fact,
        account.id,
        source=SOURCE,
        # A stable id, so that a replay of the journal does not notify the business again.
        message_id=follow_up_id(received.id, fact.TYPE, application.id),
        traceparent=received.traceparent,
    )


def _refuse_unseen(decision: KycDecide, application: KycApplication) -> None:
    """Refuse a decision made on an outdated view: another operator has decided in the meantime."""
    now = kyc_state(application.status, application.decided_at)
    if decision.looked_at in (None, now):
        return
    by = f", decided by {application.decided_by} meanwhile" if application.decided_by else ""
    raise Permanent(
        f"it was looked at as {decision.looked_at} and is {application.status}{by}: look at it "
        f"again, and {decision.decision} it if that is still meant"
    )


def _account(session: Session, decision: KycDecide) -> Account:
    """Return the business that matches every given identifier."""
    query = select(Account)
    if decision.account_id is not None:
        query = query.where(Account.id == decision.account_id)
    if decision.email is not None:
        query = query.where(Account.email == decision.email.lower())
    if decision.account_id is None and decision.email is None:
        number = decision.business_registration_number
        other = aliased(KycApplication)
        # Only the newest application counts: the number may have been corrected.
        later = select(other.id).where(
            other.account_id == KycApplication.account_id,
            other.submitted_at > KycApplication.submitted_at,
        )
        query = query.where(
            Account.id.in_(
                select(KycApplication.account_id).where(
                    KycApplication.business_registration_number == number, ~later.exists()
                )
            )
        )
    accounts = session.scalars(query.limit(2)).all()
    if not accounts:
        raise Permanent("no business matches: check the id, email or registration number")
    if len(accounts) > 1:
        raise Permanent("several businesses gave this registration number: name one by email")
    return accounts[0]


def _fact(session: Session, account: Account, application: KycApplication) -> Event:
    common = of_account(account) | {
        "application_id": application.id,
        "decided_by": application.decided_by or UNKNOWN_OPERATOR,
    }
    if application.status == "approved":
        return KycApproved(**common)
    if application.status == "rejected":
        return KycRejected(**common, reason=application.reason)
    if application.status == "incomplete":
        return KycInformationRequested(**common, reason=application.reason)
    # The database has just revoked these; consumers need not query them.
    ended = revoked.with_approval(session, application.id)
    return KycRevoked(**common, reason=application.reason, secret_ids=ended)
