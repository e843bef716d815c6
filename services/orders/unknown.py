"""Updates of orders that are not known: each may have overtaken its order, so it comes back later.

It comes back for four hours (`shared.bus.consume.retry`), and its sender has made the order's id
up, for all that is known. So what an account has on the ladder has a bound; what is beyond ends at
once, and is no dead letter: those are everybody's, and people look through them.
"""

from datetime import timedelta
from typing import Any

from msgspec import UNSET

from shared.bus.contract.errors import Retry
from shared.bus.contract.events import OrderPlaced, OrderUnaddressed
from shared.bus.contract.message import Received
from shared.token_buckets import TokenBuckets

LADDER_SECONDS = 4.5 * 3600
MOST_EARLY = 100
"""Of an account's orders that are placed, how many may come back at once. Whoever touches all the
old orders of a shop sends one of each, which must not take the places of updates."""
YOUNG = timedelta(days=7)
"""What a shop made within it is no old order that somebody touches, and has an update's place."""


class Unknown:
    """Says what becomes of such an update.

    Each recorder counts for itself, so a second one doubles what an account may have waiting.

    Args:
        most: updates of an account that may come back at once; as many again within four and a half
            hours. Of what says no more than that an old order is placed it is `MOST_EARLY`.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._waiting = TokenBuckets(most / LADDER_SECONDS, most)
        early = min(most, MOST_EARLY)
        self._early = TokenBuckets(early / LADDER_SECONDS, early)

    def failure(self, message: Received[Any]) -> Retry | None:
        """The error for an update whose account has no such order; None where it is not to wait."""
        if message.attempt == 0 and self._of(message).take(message.data.account_id):
            return None
        number = f"{message.data.order_number}, which is " if message.data.order_number else ""
        return Retry(f"this account has no order {number}{message.data.order_id}")

    def came(self, message: Received[Any]) -> None:
        """Its order is there: one that has waited leaves its place to another."""
        if message.attempt:
            self._of(message).give_back(message.data.account_id)

    def _of(self, message: Received[Any]) -> TokenBuckets:
        said = message.data
        is_early = isinstance(said, OrderUnaddressed) or (
            isinstance(said, OrderPlaced) and not said.has_moved
        )
        return self._early if is_early and not is_young(message) else self._waiting


def is_young(message: Received[Any]) -> bool:
    """Whether a shop has made the order that it speaks of lately, as far as is known."""
    made_at = getattr(message.data, "made_at", UNSET)
    return made_at is not UNSET and message.time - made_at < YOUNG
