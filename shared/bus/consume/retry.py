"""What becomes of a message that failed: a decision as a pure value."""

import random
from dataclasses import dataclass

from shared.bus.contract.errors import Happened, Permanent
from shared.bus.contract.topology import RETRY_LADDER, Rung

MAX_ATTEMPTS = 8
"""5 s, 30 s, 2 min, 10 min, then four times an hour: over four hours before it is given up."""

_LAST = len(RETRY_LADDER) - 1
LADDER_SECONDS = sum(RETRY_LADDER[min(n + 1, _LAST)].seconds for n in range(1, MAX_ATTEMPTS + 1))
"""How long a message is on the ladder at the most, by the longer rung each time."""

JITTER = 0.25
"""The share of messages that take the next longer rung, so that those that failed together do not
all come back together: a rung's delay is the queue's, and cannot be spread message by message."""


@dataclass(frozen=True, slots=True)
class RetryAfter:
    """Come back by this rung."""

    rung: Rung


@dataclass(frozen=True, slots=True)
class Dead:
    """Give it to people."""


def decide(error: Exception, attempt: int, rng: random.Random) -> RetryAfter | Dead:
    """What to do with a message.

    Args:
        error: why it failed.
        attempt: how many times it has failed now, this time included; 1 at the first.
        rng: where the jitter comes from.
    """
    if isinstance(error, Permanent) or attempt > MAX_ATTEMPTS:
        return Dead()
    if isinstance(error, Happened):
        # Before the same message can come by another way, which would not say so.
        return RetryAfter(RETRY_LADDER[0])
    rung = min(attempt, _LAST)
    if rng.random() < JITTER:
        rung = min(rung + 1, _LAST)
    return RetryAfter(RETRY_LADDER[rung])
