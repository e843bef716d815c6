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
        left = self.spend(key, self._rate, self._burst)
        return 0 if left >= 0 else wait_for(left, self._rate)

    def spend(self, key: Hashable, rate: float, burst: float) -> float:
        """Take a token of a bucket with a rate and a size of its own.

        Returns:
            The tokens that are left; negative when there was none to take: what is missing.
        """
        now = self._clock()
        tokens, then = self._buckets.pop(key, (burst, now))
        tokens = min(burst, tokens + (now - then) * rate)
        left = tokens - 1
        self._buckets[key] = (left if left >= 0 else tokens, now)
        if len(self._buckets) > MAX_KEYS:
            self._buckets.popitem(last=False)
        return left

    def give_back(self, key: Hashable) -> None:
        """Put a token back that was taken; a bucket that is full stays so."""
        if key in self._buckets:
            tokens, then = self._buckets[key]
            self._buckets[key] = (min(self._burst, tokens + 1), then)

    def is_empty(self, key: Hashable) -> int:
        """The seconds until `key` has a token again, without taking one; 0 when it has."""
        now = self._clock()
        tokens, then = self._buckets.get(key, (self._burst, now))
        tokens += (now - then) * self._rate
        return 0 if tokens >= 1 else max(1, math.ceil((1 - tokens) / self._rate))


def wait_for(left: float, rate: float) -> int:
    """The seconds, rounded up, until what is missing is there.

    Args:
        left: what `spend` returned, negative.
        rate: tokens a second.
    """
    return max(1, math.ceil(-left / rate))
