"""Decides which accounts' facts go into the notifier's bulk lane.

A queue is first in, first out, so one account's hundred thousand emails would delay those of all
others. The messages that an account sends beyond its share go into a second queue with separate
mail connections.
"""

import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable
from uuid import UUID

MAX_ACCOUNTS = 100_000


class Lanes:
    """A leaky bucket for each account, for the `MAX_ACCOUNTS` seen last.

    Each recorder counts separately, so a second one doubles the share. An account stays in the bulk
    lane until its bucket is empty, that is until it could have sent everything at `rate`. So the
    facts of an order that came in a burst stay in one lane and in order, unless its next update
    comes after that while the burst's emails still wait.

    Args:
        burst: messages that an account may send at the same time.
        rate: messages a second that an account may send indefinitely.
        clock: monotonic seconds.
    """

    def __init__(
        self, burst: float, rate: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._seconds = burst / rate
        self._rate = rate
        self._clock = clock
        # By account: when its bucket will be empty, and whether it overflowed since it last was.
        self._buckets: OrderedDict[UUID, tuple[float, bool]] = OrderedDict()
        self._before: dict[UUID, tuple[float, bool] | None] = {}  # since the last `keep`

    def beyond_their_share(self, accounts: Iterable[UUID]) -> frozenset[UUID]:
        """Count a batch; returns the accounts whose messages go into the bulk lane.

        Args:
            accounts: the account of each message, with repetitions.
        """
        now = self._clock()
        beyond = set()
        for account, count in Counter(accounts).items():
            before = self._buckets.pop(account, None)
            self._before.setdefault(account, before)
            empty_at, overflowed = before or (now, False)
            if empty_at <= now:
                empty_at, overflowed = now, False
            empty_at += count / self._rate
            overflowed = overflowed or empty_at - now > self._seconds
            self._buckets[account] = (empty_at, overflowed)
            if overflowed:
                beyond.add(account)
        while len(self._buckets) > MAX_ACCOUNTS:
            self._buckets.popitem(last=False)
        return frozenset(beyond)

    def undo(self) -> None:
        """Forget what was counted since the last `keep`: its transaction was rolled back."""
        for account, bucket in self._before.items():
            if bucket is None:
                self._buckets.pop(account, None)
            else:
                self._buckets[account] = bucket
        self._before.clear()

    def keep(self) -> None:
        """Keep what was counted: its transaction was committed."""
        self._before.clear()
