"""Updates of orders that are not known: each may have overtaken its order, so it comes back later.

It comes back for four hours (`shared.bus.consume.retry`), and its sender has made the order's id
up, for all that is known. So what an account has on the ladder has a bound.
"""

import time
from collections.abc import Callable
from typing import Any

from shared.bus.consume.retry import MAX_ATTEMPTS
from shared.bus.contract.errors import Permanent, Retry
from shared.bus.contract.message import Received
from shared.token_buckets import TokenBuckets

LADDER_SECONDS = 4.5 * 3600


class Unknown:
    """Says what becomes of such an update.

    Each recorder counts for itself, so a second one doubles what an account may have waiting.

    Args:
        most: updates of an account that may come back at once; as many again within four and a half
            hours.
        clock: seconds, monotonic.
    """

    def __init__(self, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._waiting = TokenBuckets(most / LADDER_SECONDS, most, clock)

    def is_given_up(self, message: Received[Any], failure: Exception) -> bool:
        """Whether it does not come back."""
        return isinstance(failure, Permanent) or message.attempt >= MAX_ATTEMPTS

    def failure(self, message: Received[Any]) -> Retry | Permanent:
        """The error for an update whose account has no such order."""
        number = f"{message.data.order_number}, which is " if message.data.order_number else ""
        sentence = f"this account has no order {number}{message.data.order_id}"
        is_first = message.attempt == 0
        if is_first and self._waiting.take(message.data.account_id):
            return Permanent(
                f"{sentence}, and more than {self._most} other updates of its that wait for theirs"
            )
        return Retry(sentence)
