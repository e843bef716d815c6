"""Decisions that several operators must make (`KYC_APPROVALS_REQUIRED`).

One row for each operator and decision, by a normalised name. It counts for its application until
it expires (`KYC_APPROVAL_DAYS`), the operator withdraws it, or the operator's console user is
removed.
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

CONTRARY = {"approve": "revoke", "revoke": "approve"}


def needed(decision: KycDecide) -> int:
    """Return how many operators must agree; one where the decision grants nothing."""
    return settings().kyc_approvals_required if decision.decision in CONTRARY else 1


def refuse_unnamed(received: Received[KycDecide]) -> None:
    """Refuse a decision without an authenticated operator, by `KYC_UNNAMED_DECISIONS`.

    Raises:
        Permanent: the message has no `user_id`, or it is not a person's broker user.
    """
    if received.person is not None:
        return
    config = settings()
    if config.kyc_unnamed_decisions == "refuse" or (
        config.environment == "production" and config.kyc_unnamed_decisions != "take"
    ):
        raise Permanent(
            f"it has no operator's name ({received.user_id or 'no user_id'}): sign in to the "
            "broker as a user of your own (OPERATOR_PASSWORDS) and set the property user_id to its "
            "name, or decide on the ops console"
        )


def record(
    session: Session, application: KycApplication, received: Received[KycDecide]
) -> Sequence[KycDecision]:
    """Store an operator's decision; a repeated one changes nothing.

    Args:
        session: the transaction, which has locked the application.
        application: the application.
        received: the decision.

    Returns:
        The decisions that count, oldest first, including this one.

    Raises:
        Permanent: the message has no operator's name, or it has taken effect before.
    """
    decision, person = received.data.decision, received.person
    if person is None:
        raise Permanent(
            f"it takes {needed(received.data)} operators, each by name, to {decision}: sign in to "
            "the broker as a user of your own and set user_id, or decide on the ops console"
        )
    now = database_time(session)
    counted = _counted(session, application, decision, now)
    if person in {each.person for each in counted}:
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
        return counted  # a replay of the journal: an expired decision does not count again
    session.execute(
        insert(KycDecision)
        .values(**keys, **values)
        .on_conflict_do_update(index_elements=list(keys), set_=values)
    )
    counted = _counted(session, application, decision, now)
    _publish(session, application, received, counted)
    return counted


def take_back(session: Session, application: KycApplication, received: Received[KycDecide]) -> None:
    """Withdraw the operator's own contrary decision, if it has not taken effect.

    Decisions of other operators stay: one operator cannot stop a revocation.
    """
    contrary = CONTRARY.get(received.data.decision)
    if contrary is None or received.person is None:
        return
    now = database_time(session)
    for stored in _counted(session, application, contrary, now):
        if stored.person == received.person:
            received.take_effect_once()
            stored.withdrawn_at = now
            left = _counted(session, application, contrary, now)
            _publish(session, application, received, left)


def _counted(
    session: Session, application: KycApplication, decision: str, now: datetime
) -> Sequence[KycDecision]:
    session.flush()
    return session.scalars(
        select(KycDecision)
        .where(KycDecision.application_id == application.id, KycDecision.decision == decision)
        .where(KycDecision.withdrawn_at.is_(None), KycDecision.expires_at > now)
        .where(~KycDecision.is_of_removed_user())
        .order_by(KycDecision.decided_at, KycDecision.person)
        .execution_options(populate_existing=True)
    ).all()


def _publish(
    session: Session,
    application: KycApplication,
    received: Received[KycDecide],
    counted: Sequence[KycDecision],
) -> None:
    """Publish for the audit log; the business is notified only when a decision takes effect."""
    fact = OpsKycDecisionRecorded(
        by=received.user_id or "",
        address="",
        account_id=application.account_id,
        application_id=application.id,
        decision=received.data.decision,  # type: ignore[arg-type] # a rejection takes one
        reason=received.data.reason,
        counted=tuple(each.decided_by for each in counted),
        needed=needed(received.data),
    )
    outbox.add_fact(
        session,
        fact,
        application.account_id,
        source=SOURCE,
        message_id=follow_up_id(received.id, fact.TYPE, application.id),
        traceparent=received.traceparent,
    )
