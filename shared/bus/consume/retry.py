"""What becomes of a message that failed: a decision as a pure value."""

import random
from dataclasses import dataclass

from shared.bus.contract.errors import Happened, Permanent
from shared.bus.contract.topology import RETRY_LADDER, Rung

MAX_ATTEMPTS = 8
"""5 s, 30 s, 2 min, 10 min, then four times an hour: over four hours before it is given up."""

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
    last = len(RETRY_LADDER) - 1
    rung = min(attempt, last)
    if rng.random() < JITTER:
        rung = min(rung + 1, last)
    return RetryAfter(RETRY_LADDER[rung])
