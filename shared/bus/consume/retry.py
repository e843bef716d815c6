"""Decide whether a failed message is retried, and when: a pure function."""

import random
from dataclasses import dataclass

from shared.bus.contract.errors import Happened, Permanent
from shared.bus.contract.topology import RETRY_DELAYS, DelayQueue

MAX_ATTEMPTS = 8
"""Retries after 5 s, 30 s, 2 min, 10 min and four times an hour: over four hours in all."""

_LAST = len(RETRY_DELAYS) - 1
LADDER_SECONDS = sum(RETRY_DELAYS[min(n + 1, _LAST)].seconds for n in range(1, MAX_ATTEMPTS + 1))
"""How long a message is retried at most, with the longer delay each time."""

JITTER = 0.25
"""The share of messages that take the next longer delay queue, so that messages that failed
together do not all come back together: all messages of a queue have the same delay."""


@dataclass(frozen=True, slots=True)
class RetryAfter:
    """Retry by way of this delay queue."""

    rung: DelayQueue


@dataclass(frozen=True, slots=True)
class Dead:
    """Move it to the dead letter queue, for ops staff to decide on."""


def decide(error: Exception, attempt: int, rng: random.Random) -> RetryAfter | Dead:
    """Return what to do with a failed message.

    Args:
        error: why it failed.
        attempt: how often it has failed, this time included.
        rng: the source of the jitter.
    """
    if isinstance(error, Happened):
        # Immediately, before the same message can arrive without the note that it was done; and at
        # any attempt: it has not failed, and must not become a dead letter.
        return RetryAfter(RETRY_DELAYS[0])
    if isinstance(error, Permanent) or attempt > MAX_ATTEMPTS:
        return Dead()
    rung = min(attempt, _LAST)
    if rng.random() < JITTER:
        rung = min(rung + 1, _LAST)
    return RetryAfter(RETRY_DELAYS[rung])
