"""What becomes of a message that was published: its confirms, or the error that tells why not.

A caller may wait for more than one confirm, and a message of the journal confirms for many callers.
"""

import asyncio
from collections.abc import Sequence


class PublishError(Exception):
    """The message is not known to be safe on the bus."""


class UnavailableError(PublishError):
    """There is no connection, it was lost, or its broker has stopped confirming."""


class BlockedError(PublishError):
    """The broker has an alarm and takes nothing."""


class OverloadedError(PublishError):
    """As many messages are outstanding as may be."""


class ConfirmTimeoutError(PublishError):
    """No confirm in time. The message may be on the bus all the same."""


class NackedError(PublishError):
    """The broker refused it."""


class ReturnedError(PublishError):
    """No queue is bound to its exchange and key."""


class Waiting:
    """A caller who waits for a message to be safe.

    Attributes:
        future: what is awaited.
        left: how many confirms it takes: the journal has one of its own to give.
    """

    __slots__ = ("future", "left")

    def __init__(self, future: "asyncio.Future[None]", left: int) -> None:
        self.future = future
        self.left = left

    def confirmed(self) -> None:
        """One of the confirms came."""
        self.left -= 1
        if not self.left and not self.future.done():
            self.future.set_result(None)

    def failed(self, error: PublishError) -> None:
        """One of them will not come."""
        if not self.future.done():
            self.future.set_exception(error)
            self.future.exception()  # whoever stopped waiting must not cause a warning


class Outstanding:
    """A message that the broker has not confirmed yet, and who waits for it.

    Attributes:
        message_id: its id.
        waiting: who waits; for a message of the journal, all whose messages are in it.
        deadline: until when, on the monotonic clock.
        counts: 1, or 0 for a message of the journal, which nobody has asked to publish.
    """

    __slots__ = ("counts", "deadline", "message_id", "waiting")

    def __init__(
        self, message_id: str, waiting: Sequence[Waiting], deadline: float, counts: int
    ) -> None:
        self.message_id = message_id
        self.waiting = waiting
        self.deadline = deadline
        self.counts = counts

    def failed(self, error: PublishError) -> None:
        """It will not be confirmed."""
        for one in self.waiting:
            one.failed(error)
