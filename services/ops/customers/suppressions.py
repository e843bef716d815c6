"""Suppressed addresses of a business, and lifting a suppression."""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import Engine, func, select, text
from sqlalchemy.orm import Session

from services.ops.audit.actions import Actor, about
from shared.bus import outbox
from shared.bus.contract.events import OpsSuppressionLifted
from shared.db.models import Suppression
from shared.validation.email_addresses import compared, spellings

AT_MOST = 1_000


def of_business(session: Session, account_id: UUID) -> Sequence[Suppression]:
    """Return the newest suppressions of a business; one more than `AT_MOST` if there are more."""
    query = select(Suppression).where(Suppression.account_id == account_id)
    return session.scalars(query.order_by(Suppression.id.desc()).limit(AT_MOST + 1)).all()


def of_address(session: Session, account_id: UUID, address: str) -> Sequence[Suppression]:
    """Return the suppressions of an address; those with an erased address are not found."""
    query = select(Suppression).where(
        Suppression.account_id == account_id,
        func.lower(Suppression.address).in_(spellings(compared(address))),
    )
    return session.scalars(query).all()


def lift(engine: Engine, account_id: UUID, suppression_id: UUID, actor: Actor, reason: str) -> bool:
    """Lift the suppression of a refused address; returns whether it was still in effect.

    The audit fact is in the same transaction. A customer who unsubscribed stays suppressed.
    """
    fact = OpsSuppressionLifted(
        **actor.fields, account_id=account_id, suppression_id=suppression_id, reason=reason
    )
    with Session(engine) as session, session.begin():
        done = session.scalar(text("SELECT lift_suppression(:id)"), {"id": suppression_id})
        if done:
            outbox.add(session, [about(fact, account_id)])
    return bool(done)
