"""Carrying out an operator's decision."""

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
    """Decide on the newest application of the business that the decision names.

    The same decision twice changes nothing and tells nobody twice. Where it takes several persons
    (`KYC_APPROVALS_REQUIRED`) it is written down until enough have decided the same.

    Raises:
        Permanent: no such business, no application, or a decision that does not fit its state.
    """
    decision = received.data
    approvals.refuse_unnamed(received)
    account = _account(session, decision)
    # The account first, as its closing does, which then comes before this or after it.
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
        # Out of the journal into a database of before: what it was about may not be there, and
        # the newest application is one that it was not about.
        raise Permanent(
            "a copy from the journal that does not say which application it approves: look at the "
            "one that is there, and approve that"
        )
    decided_by, reason = received.user_id or UNKNOWN_OPERATOR, decision.reason
    if approvals.needed(decision) > 1:
        counted = approvals.record(session, application, received)
        if len(counted) < approvals.needed(decision):
            return
        decided_by = ", ".join(one.decided_by for one in counted)
        reason = reason or next((one.reason for one in counted if one.reason), "")
    received.take_effect_once()
    now = database_time(session)  # before anything is changed, which it would flush
    try:
        with session.begin_nested():
            application.status = new
            application.reason = reason
            application.decided_at = now
            application.decided_by = decided_by
    except IntegrityError:  # what waited for an answer has one by now, which nobody has looked at
        raise Permanent(_ANOTHER) from None
    fact = _fact(session, account, application)
    outbox.tell(
        session,
        fact,
        account.id,
        source=SOURCE,
        # The same when the journal is replayed: the business is not told twice.
        message_id=follow_up_id(received.id, fact.TYPE, application.id),
        traceparent=received.traceparent,
    )


def _refuse_unseen(decision: KycDecide, application: KycApplication) -> None:
    """Two who look at one application: the second has not seen what the first has decided."""
    now = kyc_state(application.status, application.decided_at)
    if decision.looked_at in (None, now):
        return
    by = f", decided by {application.decided_by} meanwhile" if application.decided_by else ""
    raise Permanent(
        f"it was looked at as {decision.looked_at} and is {application.status}{by}: look at it "
        f"again, and {decision.decision} it if that is still meant"
    )


def _account(session: Session, decision: KycDecide) -> Account:
    """The one business that everything given points to."""
    query = select(Account)
    if decision.account_id is not None:
        query = query.where(Account.id == decision.account_id)
    if decision.email is not None:
        query = query.where(Account.email == decision.email.lower())
    if decision.account_id is None and decision.email is None:
        number = decision.business_registration_number
        other = aliased(KycApplication)
        # A number that a business has corrected since is not its number.
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
    # The database has just revoked them; whoever hears of it first need not ask.
    ended = revoked.with_approval(session, application.id)
    return KycRevoked(**common, reason=application.reason, secret_ids=ended)
