"""Facts that warn a business about messages without an effect: one email of a kind a day."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal
from uuid import UUID

from msgspec import UNSET
from sqlalchemy import text
from sqlalchemy.orm import Session

from services.orders import SOURCE
from shared.bus.contract.events import (
    OrderCancelled,
    OrderCreated,
    OrderNotTaken,
    OrderStatusChanged,
    OrderUnaddressed,
    of_account,
)
from shared.bus.contract.message import Message, message_for
from shared.db import arrays
from shared.ids import derived_id, is_of_shop

Problem = Literal["update_given_up", "key_reused", "no_email_address"]


@dataclass(frozen=True, slots=True)
class NotTaken:
    """A message without an effect.

    Attributes:
        what: the reason.
        event: its data.
        event_id: its id.
    """

    what: Problem
    event: OrderCreated | OrderStatusChanged | OrderCancelled | OrderUnaddressed
    event_id: UUID


def facts(session: Session, not_taken: Sequence[NotTaken]) -> list[Message]:
    """Return facts, for each account and kind about the first message.

    Their ids are the same for a day (UTC), so the notifier sends one email.
    """
    first = {(one.event.account_id, one.what): one for one in reversed(not_taken)}
    if not first:
        return []
    ids = {account_id for account_id, _ in first}
    rows = session.execute(_ACCOUNTS, {"ids": arrays.uuids(ids)})
    accounts = {row.id: row for row in rows}
    now = datetime.now(UTC)
    return [
        message_for(
            OrderNotTaken(
                **of_account(account),
                what=one.what,
                order_id=one.event.order_id,
                event_id=one.event_id,
                order_number=one.event.order_number,
                of_shop=is_of_shop(account.id, one.event.order_id, one.event.order_number) or UNSET,
            ),
            source=SOURCE,
            correlation_id=account.id,
            message_id=derived_id(OrderNotTaken.TYPE, one.what, account.id, f"{now:%Y-%m-%d}"),
            time=now,
        )
        for one in first.values()
        if (account := accounts.get(one.event.account_id)) is not None
    ]


_ACCOUNTS = text(
    "SELECT id, company_name, email FROM accounts WHERE id = ANY(CAST(:ids AS uuid[]))"
)
