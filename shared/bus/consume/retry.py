"""What becomes of a message that failed: a decision as a pure value."""

import random
from dataclasses import dataclass

from shared.bus.contract.topology import RETRY_LADDER, Rung

MAX_ATTEMPTS = 8
"""5 s, 30 s, 2 min, 10 min, then four times an hour: over four hours before it is given up."""

JITTER = 0.25
"""The share of messages that take the next longer rung, so that those that failed together do not
all come back together: a rung's delay is the queue's, and cannot be spread message by message."""


class Permanent(Exception):  # noqa: N818 - the outcome's name, as a handler reads it
    """No retry will help: straight to the dead queue, with this sentence in the headers."""


class Malformed(Permanent):
    """The message cannot be understood."""


class Retry(Exception):  # noqa: N818
    """Try again later. Any other exception means the same; this one is expected."""


class Happened(Retry):
    """It was done, outside the database, which could not be told before the process had to stop.

    It comes back at once, with a note of that, to be written down and not to be done again.
    """


class Hold(Exception):  # noqa: N818
    """Something that every message needs is away, such as the mail server.

    Raised, it holds the batch; as what became of single messages, those, and the others are done.
    What is held is kept and tried again until it works; no message is blamed.

    Args:
        sentence: why.
        lacks: what is away, in a word for those who are told of it, such as `mail`; empty where it
            is there and takes its time.
    """

    def __init__(self, sentence: str, lacks: str = "") -> None:
        super().__init__(sentence)
        self.lacks = lacks


class UnderWay(Hold):
    """As what became of a message: its effect outside the database has begun and is not known yet.

    It stays in hand and is asked about again, and others go on meanwhile.
    """


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
