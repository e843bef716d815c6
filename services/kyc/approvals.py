"""Several persons for one decision: who has decided, and how many count.

A row a person, whatever name and case they are written in and by whichever way they came in. It
counts until it ends (`KYC_APPROVAL_DAYS`), until its person takes it back or is no user of the
console any more on which it was decided, and for the application that it is about alone.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from services.kyc import SOURCE
from shared.bus import outbox
from shared.bus.contract.errors import Permanent
from shared.bus.contract.events import KycDecide, OpsKycDecisionRecorded
from shared.bus.contract.message import Received
from shared.config.loading import settings
from shared.db.models import KycApplication, KycDecision
from shared.db.session import database_time
from shared.ids import follow_up_id
from shared.security.service_accounts import OPERATOR, login

CONTRARY = {"approve": "revoke", "revoke": "approve"}


def needed(decision: KycDecide) -> int:
    """How many persons a decision takes; a rejection, which gives nobody anything, takes one."""
    return settings().kyc_approvals_required if decision.decision in CONTRARY else 1


def refuse_unnamed(received: Received[KycDecide]) -> None:
    """What nobody has put a name to is not carried out, in production unless it is set so.

    Raises:
        Permanent: the broker vouches for no name, or for one that is a service's.
    """
    if received.person is not None or received.user_id == login(OPERATOR):
        return
    config = settings()
    if config.kyc_unnamed_decisions == "refuse" or (
        config.environment == "production" and config.kyc_unnamed_decisions != "take"
    ):
        raise Permanent(
            f"nobody has put their name to it ({received.user_id or 'no user_id'}): sign in to the "
            "broker as a user of your own and set user_id to it, or decide on the ops console"
        )


def record(
    session: Session, application: KycApplication, received: Received[KycDecide]
) -> Sequence[KycDecision]:
    """Write down what a person has decided; the same again changes nothing.

    Args:
        session: the transaction, which holds the application.
        application: what it is about.
        received: the decision.

    Returns:
        The decisions that count, the oldest first; this one is among them.

    Raises:
        Permanent: the broker does not say which person it is, or see `take_effect_once`.
    """
    decision, person = received.data.decision, received.person
    if person is None:
        raise Permanent(
            f"it takes {needed(received.data)} operators, each by name, to {decision}: sign in to "
            "the broker as a user of your own and set user_id, or decide on the ops console"
        )
    now = database_time(session)
    counted = _counted(session, application, decision, now)
    if person in {one.person for one in counted}:
        return counted
    received.take_effect_once()
    values = {
        "decided_by": received.user_id,
        "reason": received.data.reason,
        "message_id": received.id,
        "needed": needed(received.data),
        "decided_at": now,
        "expires_at": now + timedelta(days=settings().kyc_approval_days),
        "withdrawn_at": None,
    }
    keys = {"application_id": application.id, "decision": decision, "person": person}
    before = session.get(KycDecision, tuple(keys.values()))
    if before is not None and before.message_id == received.id:
        return counted  # a replay of the journal: what has ended does not begin anew
    session.execute(
        insert(KycDecision)
        .values(**keys, **values)
        .on_conflict_do_update(index_elements=list(keys), set_=values)
    )
    counted = _counted(session, application, decision, now)
    _tell(session, application, received, [one.decided_by for one in counted])
    return counted


def take_back(session: Session, application: KycApplication, received: Received[KycDecide]) -> None:
    """End what the same person has decided to the contrary, which has not taken effect.

    What others have decided stays: nobody can stop a revocation alone.
    """
    contrary = CONTRARY.get(received.data.decision)
    if contrary is None or received.person is None:
        return
    now = database_time(session)
    for one in _counted(session, application, contrary, now):
        if one.person == received.person:
            received.take_effect_once()
            one.withdrawn_at = now
            left = _counted(session, application, contrary, now)
            _tell(session, application, received, [other.decided_by for other in left])


def _counted(
    session: Session, application: KycApplication, decision: str, now: datetime
) -> Sequence[KycDecision]:
    session.flush()
    return session.scalars(
        select(KycDecision)
        .where(KycDecision.application_id == application.id, KycDecision.decision == decision)
        .where(KycDecision.withdrawn_at.is_(None), KycDecision.expires_at > now)
        .where(~KycDecision.is_of_nobody())
        .order_by(KycDecision.decided_at, KycDecision.person)
        .execution_options(populate_existing=True)
    ).all()


def _tell(
    session: Session,
    application: KycApplication,
    received: Received[KycDecide],
    counted: list[str],
) -> None:
    """For the audit log alone: the business hears of what takes effect."""
    fact = OpsKycDecisionRecorded(
        by=received.user_id or "",
        address="",
        account_id=application.account_id,
        application_id=application.id,
        decision=received.data.decision,  # type: ignore[arg-type] # a rejection takes one
        reason=received.data.reason,
        counted=tuple(counted),
        needed=needed(received.data),
    )
    outbox.tell(
        session,
        fact,
        application.account_id,
        source=SOURCE,
        message_id=follow_up_id(received.id, fact.TYPE, application.id),
        traceparent=received.traceparent,
    )
