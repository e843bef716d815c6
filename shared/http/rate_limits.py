"""Token buckets in memory: who may do how much.

Each worker counts for itself, so a limit holds per worker; that costs no round trip. `limits` and
its kin lock and look up per hit several times what the rest of the hot path's checks cost.
"""

import math
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable

MAX_KEYS = 100_000


class TokenBuckets:
    """A bucket a key, of the least recently used at most `MAX_KEYS`.

    Args:
        rate: tokens a second that flow into each bucket.
        burst: what a bucket holds when full.
        clock: seconds, monotonic.
    """

    def __init__(
        self, rate: float, burst: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._rate = rate
        self._burst = burst
        self._clock = clock
        self._buckets: OrderedDict[Hashable, tuple[float, float]] = OrderedDict()

    def take(self, key: Hashable) -> int:
        """Take a token.

        Returns:
            0 when there was one; else the seconds, rounded up, until there will be.
        """
        now = self._clock()
        tokens, then = self._buckets.pop(key, (self._burst, now))
        tokens = min(self._burst, tokens + (now - then) * self._rate)
        if tokens >= 1:
            self._buckets[key] = (tokens - 1, now)
            wait = 0
        else:
            self._buckets[key] = (tokens, now)
            wait = max(1, math.ceil((1 - tokens) / self._rate))
        if len(self._buckets) > MAX_KEYS:
            self._buckets.popitem(last=False)
        return wait

    def is_empty(self, key: Hashable) -> int:
        """The seconds until `key` has a token again, without taking one; 0 when it has."""
        now = self._clock()
        tokens, then = self._buckets.get(key, (self._burst, now))
        tokens += (now - then) * self._rate
        return 0 if tokens >= 1 else max(1, math.ceil((1 - tokens) / self._rate))
