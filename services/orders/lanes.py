"""Which lane the facts about an account's orders take to the notifier.

One queue is first in, first out, so one account's hundred thousand emails would delay everybody's.
What an account sends beyond its share goes into a lane of its own kind, with mail connections of
its own; everybody else's never waits behind it.
"""

import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable
from uuid import UUID

MAX_ACCOUNTS = 100_000


class Lanes:
    """A leaky bucket for each account, of the most recently seen at most `MAX_ACCOUNTS`.

    Each recorder counts for itself, so a second one doubles the share. An account stays in the bulk
    lane until its bucket has run empty: until it could have sent everything at `rate`. So an order
    that came with a flood is told of in one lane, in order, unless its next step comes after that
    and the flood's emails still wait.

    Args:
        burst: messages that an account may send at once.
        rate: messages a second that an account may send for ever.
        clock: seconds, monotonic.
    """

    def __init__(
        self, burst: float, rate: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._seconds = burst / rate
        self._rate = rate
        self._clock = clock
        # When an account's bucket will be empty, and whether it overflowed since it last was.
        self._buckets: OrderedDict[UUID, tuple[float, bool]] = OrderedDict()

    def beyond_their_share(self, accounts: Iterable[UUID]) -> frozenset[UUID]:
        """Count a batch; returns the accounts whose messages in it go into the bulk lane.

        Args:
            accounts: the account of each message.
        """
        now = self._clock()
        beyond = set()
        for account, count in Counter(accounts).items():
            empty_at, overflowed = self._buckets.pop(account, (now, False))
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
