"""Limits how many updates of unknown orders an account may have waiting for a retry.

An update may arrive before its order, so it is retried for four hours, see `consume.retry`. Its
sender may as well have invented the order's id, so an account's share of the delay queues is
bounded. An update beyond it is dropped without a dead letter, since people inspect those.
"""

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from msgspec import UNSET

from shared.bus.contract.errors import Retry
from shared.bus.contract.events import OrderPlaced, OrderUnaddressed
from shared.bus.contract.message import Received
from shared.token_buckets import TokenBuckets

LADDER_SECONDS = 4.5 * 3600
MOST_EARLY = 100
"""Updates of a shop's old orders that may wait. A bulk edit sends one for each order, which must
not take the places of other updates."""
YOUNG = timedelta(days=7)
"""An order that its shop created within this time is not old."""


class Unknown:
    """Decides which updates of unknown orders are retried.

    Each recorder counts separately, so a second one doubles an account's limit.

    Args:
        most: updates of an account that may wait, refilled within `LADDER_SECONDS`; of a shop's old
            orders `MOST_EARLY`.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._waiting = TokenBuckets(most / LADDER_SECONDS, most)
        early = min(most, MOST_EARLY)
        self._early = TokenBuckets(early / LADDER_SECONDS, early)
        # Since the last `keep`: the bucket, the account, and whether a token was taken.
        self._counted: list[tuple[TokenBuckets, UUID, bool]] = []

    def failure(self, message: Received[Any]) -> Retry | None:
        """Return the error that retries an update of an unknown order; None to drop it."""
        buckets, account_id = self._of(message), message.data.account_id
        if message.attempt == 0:
            if buckets.take(account_id):
                return None
            self._counted.append((buckets, account_id, True))
        number = f"{message.data.order_number}, which is " if message.data.order_number else ""
        return Retry(f"this account has no order {number}{message.data.order_id}")

    def settled(self, message: Received[Any]) -> None:
        """Free the place of a message that has waited and is not retried again."""
        if message.attempt:
            buckets, account_id = self._of(message), message.data.account_id
            buckets.give_back(account_id)
            self._counted.append((buckets, account_id, False))

    def undo(self) -> None:
        """Forget what was counted since the last `keep`: its transaction was rolled back."""
        for buckets, account_id, was_taken in reversed(self._counted):
            if was_taken:
                buckets.give_back(account_id)
            else:
                buckets.take(account_id)
        self._counted.clear()

    def keep(self) -> None:
        """Keep what was counted: its transaction was committed."""
        self._counted.clear()

    def _of(self, message: Received[Any]) -> TokenBuckets:
        if is_young(message):
            return self._waiting
        event = message.data
        # One with a status may be about a young order, if its shop does not send when it made it.
        is_weak = isinstance(event, OrderUnaddressed) or (
            isinstance(event, OrderPlaced) and not event.has_moved
        )
        return self._early if is_weak or _made_at(message) is not None else self._waiting


def is_young(message: Received[Any]) -> bool:
    """Return whether a shop's order was created within `YOUNG`; False if unknown."""
    made_at = _made_at(message)
    return made_at is not None and message.time - made_at < YOUNG


def _made_at(message: Received[Any]) -> datetime | None:
    return getattr(message.data, "made_at", UNSET) or None
