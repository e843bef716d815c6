"""The outcome of a published message: its confirms, or an error.

A caller may wait for two confirms (the queue's and the journal's), and one journal message confirms
for many callers.
"""

import asyncio
from collections.abc import Sequence


class PublishError(Exception):
    """The message was not confirmed."""


class UnavailableError(PublishError):
    """There is no connection, it was lost, or the broker has stopped confirming."""


class BlockedError(PublishError):
    """The broker has a memory or disk alarm."""


class OverloadedError(PublishError):
    """The limit of outstanding messages is reached."""


class ConfirmTimeoutError(PublishError):
    """The confirm did not arrive in time; the message may be in its queue all the same."""


class NackedError(PublishError):
    """The broker sent `basic.nack`."""


class ReturnedError(PublishError):
    """No queue is bound for its exchange and routing key."""


class NoShardError(UnavailableError):
    """The message's shard does not exist. Later messages go to the first queue; so may a retry."""


class PendingConfirm:
    """A caller's wait for the confirms of one message.

    Attributes:
        future: awaited by the caller.
        left: the number of confirms that are missing; the journal's is one of them.
    """

    __slots__ = ("future", "left")

    def __init__(self, future: "asyncio.Future[None]", left: int) -> None:
        self.future = future
        self.left = left

    def confirmed(self) -> None:
        """Count a confirm."""
        self.left -= 1
        if not self.left and not self.future.done():
            self.future.set_result(None)

    def failed(self, error: PublishError) -> None:
        """Fail the wait."""
        if not self.future.done():
            self.future.set_exception(error)
            self.future.exception()  # retrieved, or asyncio logs a warning if the caller is gone


class Outstanding:
    """A published message without a confirm.

    Attributes:
        message_id: its id.
        waiting: the waits that its confirm counts for; of a journal message, those of all its
            events.
        deadline: by the monotonic clock.
        counts: its share of the outstanding messages: 1, or 0 for a journal message.
    """

    __slots__ = ("counts", "deadline", "message_id", "waiting")

    def __init__(
        self, message_id: str, waiting: Sequence[PendingConfirm], deadline: float, counts: int
    ) -> None:
        self.message_id = message_id
        self.waiting = waiting
        self.deadline = deadline
        self.counts = counts

    def failed(self, error: PublishError) -> None:
        """Fail all waits."""
        for one in self.waiting:
            one.failed(error)
