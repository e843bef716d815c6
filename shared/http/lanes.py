"""Thread pools for requests, with a bounded queue.

An executor's own queue is unbounded: under overload all requests wait ever longer, until their
clients have given up.
"""

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from shared.http.errors import overloaded
from shared.security import passwords

T = TypeVar("T")

MOST_SECONDS = 10.0
"""Longest wait: work that has waited longer is refused instead of started."""
SHARES = 8
"""Number of shares into which a crowded lane is divided; each caller may use one."""
WAITING_FOR_A_HASH = 16
"""Waiting requests per hashing thread: with 0.2 s per hash, and two per sign-in, about 6 s."""


class Lane:
    """A thread pool for one kind of work.

    One caller may use all places while at least half are free, and otherwise a share.

    Args:
        name: of the threads.
        threads: number of threads.
        waiting: number of further requests that may wait.

    Attributes:
        taken_by: places in use by caller, without those that have none.
    """

    def __init__(self, name: str, threads: int, waiting: int) -> None:
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix=name)
        self._places = threads + waiting
        self._share = max(threads, self._places // SHARES)
        self._taken = 0
        self.taken_by: Counter[str] = Counter()
        self._counting = threading.Lock()

    def require_room(self, caller: str = "") -> None:
        """Refuse work that finds no place, before anything is done or counted for it.

        Args:
            caller: such as an account or a network; empty for work without a caller, to which no
                share applies.

        Raises:
            ApiError: 503, if all places are taken, or half of them and the caller's share.
        """
        is_crowded = self._taken > self._places // 2
        has_share = bool(caller) and self.taken_by[caller] >= self._share
        if self._taken >= self._places or (is_crowded and has_share):
            raise overloaded()

    async def run(self, work: Callable[[], T], caller: str = "") -> T:
        """Run `work` in a thread and return its result.

        Args:
            work: a blocking function.
            caller: see `require_room`.

        Raises:
            ApiError: 503, see `require_room`; or it waited for `MOST_SECONDS`.
        """
        self.require_room(caller)
        latest = time.monotonic() + MOST_SECONDS

        def begin() -> T:
            if time.monotonic() > latest:
                raise overloaded()
            return work()

        with self._counting:
            self._taken += 1
            self.taken_by[caller] += 1
        release = partial(self._release, caller)
        try:
            done = self._executor.submit(begin)
        except RuntimeError:  # it was shut down
            release(None)
            raise
        # When the work ends, not when its request is cancelled: it occupies a thread until then.
        done.add_done_callback(release)
        return await asyncio.wrap_future(done)

    def shutdown(self) -> None:
        """Accept no more work; running work continues."""
        self._executor.shutdown(wait=False)

    def _release(self, caller: str, _: Future[T] | None) -> None:
        with self._counting:
            self._taken -= 1
            self.taken_by[caller] -= 1
            if not self.taken_by[caller]:
                del self.taken_by[caller]


@dataclass(frozen=True, slots=True)
class Lanes:
    """The thread pools of an app's handlers.

    Attributes:
        ordinary: for handlers without a password.
        passwords: for handlers that hash a password, which takes 0.2 s or more: a flood of them
            does not delay others.
    """

    ordinary: Lane
    passwords: Lane

    def shutdown(self) -> None:
        """Accept no more work; running work continues."""
        self.ordinary.shutdown()
        self.passwords.shutdown()


def for_passwords(name: str) -> Lane:
    """Return a lane with one thread per parallel hash, so that no thread waits for a slot.

    Args:
        name: of the threads.
    """
    threads = passwords.parallelism()
    return Lane(name, threads, threads * WAITING_FOR_A_HASH)
