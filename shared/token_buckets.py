"""Token buckets in memory, for rate limits per worker.

They need no round trip. Libraries such as `limits` take several times as long per hit as all other
checks of the hot path.
"""

import math
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable

MAX_KEYS = 100_000


class TokenBuckets:
    """Token buckets by key, at most `MAX_KEYS`; evicts the least recently used.

    Args:
        rate: tokens per second added to each bucket.
        burst: capacity of a bucket, in tokens.
        clock: monotonic, in seconds.
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
            0 if there was one; else the seconds, rounded up, until there is one.
        """
        left = self.spend(key, self._rate, self._burst)
        return 0 if left >= 0 else wait_for(left, self._rate)

    def spend(self, key: Hashable, rate: float, burst: float) -> float:
        """Take a token from a bucket with its own rate and capacity.

        Returns:
            The remaining tokens; negative if there was none: the missing fraction.
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
        """Return a taken token to its bucket, up to its capacity."""
        if key in self._buckets:
            tokens, then = self._buckets[key]
            self._buckets[key] = (min(self._burst, tokens + 1), then)

    def is_empty(self, key: Hashable) -> int:
        """Return the seconds until `key` has a token, without taking one; 0 if it has one."""
        now = self._clock()
        tokens, then = self._buckets.get(key, (self._burst, now))
        tokens += (now - then) * self._rate
        return 0 if tokens >= 1 else max(1, math.ceil((1 - tokens) / self._rate))


def wait_for(left: float, rate: float) -> int:
    """Return the seconds, rounded up, until the missing tokens are available.

    Args:
        left: the negative result of `spend`.
        rate: tokens per second.
    """
    return max(1, math.ceil(-left / rate))
