"""Whom a business's emails do not go to, and an address that is to be tried again."""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import Engine, select, text
from sqlalchemy.orm import Session

from services.ops.audit.actions import Actor, about
from shared.bus import outbox
from shared.bus.contract.events import OpsSuppressionLifted
from shared.db.models import Suppression
from shared.validation.email_addresses import compared

AT_MOST = 1_000


def of_business(session: Session, account_id: UUID) -> Sequence[Suppression]:
    """The newest of a business; one more than `AT_MOST` where there are more."""
    query = select(Suppression).where(Suppression.account_id == account_id)
    return session.scalars(query.order_by(Suppression.id.desc()).limit(AT_MOST + 1)).all()


def of_address(session: Session, account_id: UUID, address: str) -> Sequence[Suppression]:
    """Those of one address, as far as it is known still."""
    query = select(Suppression).where(
        Suppression.account_id == account_id, Suppression.address.is_not(None)
    )
    wanted = compared(address)
    return [one for one in session.scalars(query) if compared(one.address or "") == wanted]


def lift(engine: Engine, account_id: UUID, suppression_id: UUID, actor: Actor, reason: str) -> bool:
    """Have an address mailed again that was refused; returns whether it was not before.

    In one transaction with its audit fact. Who has left is not brought back by this.
    """
    fact = OpsSuppressionLifted(
        **actor.fields, account_id=account_id, suppression_id=suppression_id, reason=reason
    )
    with Session(engine) as session, session.begin():
        done = session.scalar(text("SELECT lift_suppression(:id)"), {"id": suppression_id})
        if done:
            outbox.add(session, [about(fact, account_id)])
    return bool(done)
