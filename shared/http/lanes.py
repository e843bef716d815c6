"""Threads where the work of requests is done: so many at once, and a bound on what waits for them.

An executor's own queue has no bound: what comes faster than it is done waits ever longer, for
answers that nobody awaits any more, and so does all else that goes through it.
"""

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from shared.http.errors import overloaded
from shared.security import passwords

T = TypeVar("T")

MOST_SECONDS = 10.0
"""What has waited for so long is refused instead of begun: a slow machine has long queues too."""
WAITING_FOR_A_HASH = 16
"""For each thread that hashes: with 0.2 s a hash, and two for a sign-in, about six seconds."""


class Lane:
    """Threads for one kind of work.

    Args:
        name: of the threads.
        threads: how many work at once.
        waiting: how many more may wait.
    """

    def __init__(self, name: str, threads: int, waiting: int) -> None:
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix=name)
        self._places = threads + waiting
        self._taken = 0
        self._counting = threading.Lock()

    def require_room(self) -> None:
        """Refuse, before anything is done or counted, what would wait for too long.

        Raises:
            ApiError: 503, when every place is taken.
        """
        if self._taken >= self._places:
            raise overloaded()

    async def run(self, work: Callable[[], T]) -> T:
        """What `work` returns, or raises, in a thread.

        Raises:
            ApiError: 503, when every place is taken, or it would have waited for too long.
        """
        self.require_room()
        latest = time.monotonic() + MOST_SECONDS

        def begin() -> T:
            if time.monotonic() > latest:
                raise overloaded()
            return work()

        with self._counting:
            self._taken += 1
        try:
            done = self._executor.submit(begin)
        except RuntimeError:  # it was shut down
            self._let_go(None)
            raise
        # When it is over, and not when nobody waits for it any more: until then it has its thread.
        done.add_done_callback(self._let_go)
        return await asyncio.wrap_future(done)

    def shutdown(self) -> None:
        """Take no more; what runs goes on."""
        self._executor.shutdown(wait=False)

    def _let_go(self, _: Future[T] | None) -> None:
        with self._counting:
            self._taken -= 1


@dataclass(frozen=True, slots=True)
class Lanes:
    """Where the handlers of an app run.

    Attributes:
        ordinary: all but those with a password.
        passwords: those that hash a password or wait for one to be hashed, a fifth of a second or
            more each: a flood of them holds up no other.
    """

    ordinary: Lane
    passwords: Lane

    def shutdown(self) -> None:
        """Take no more; what runs goes on."""
        self.ordinary.shutdown()
        self.passwords.shutdown()


def for_passwords(name: str) -> Lane:
    """A lane for what hashes passwords: nobody waits in a thread, with a transaction open, for it.

    Args:
        name: of the threads.
    """
    at_once = passwords.turns()
    return Lane(name, at_once, at_once * WAITING_FOR_A_HASH)
