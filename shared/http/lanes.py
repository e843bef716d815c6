"""Threads where the work of requests is done: so many at once, and a bound on what waits for them.

An executor's own queue has no bound: what comes faster than it is done waits ever longer, for
answers that nobody awaits any more, and so does all else that goes through it.
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
"""What has waited for so long is refused instead of begun: a slow machine has long queues too."""
SHARES = 8
"""So many callers have a part of a lane of their own, whatever the others do."""
WAITING_FOR_A_HASH = 16
"""For each thread that hashes: with 0.2 s a hash, and two for a sign-in, about six seconds."""


class Lane:
    """Threads for one kind of work.

    One caller takes as much as there is while half of it is free, and beyond that a share.

    Args:
        name: of the threads.
        threads: how many work at once.
        waiting: how many more may wait.

    Attributes:
        taken_by: how many places each caller has, of those that have any.
    """

    def __init__(self, name: str, threads: int, waiting: int) -> None:
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix=name)
        self._places = threads + waiting
        self._share = max(threads, self._places // SHARES)
        self._taken = 0
        self.taken_by: Counter[str] = Counter()
        self._counting = threading.Lock()

    def require_room(self, caller: str = "") -> None:
        """Refuse, before anything is done or counted, what would wait for too long.

        Args:
            caller: whose work it is, such as an account or a network; empty for nobody's in
                particular, which has no share.

        Raises:
            ApiError: 503, when every place is taken, or half of them and the caller's share.
        """
        is_crowded = self._taken > self._places // 2
        has_share = bool(caller) and self.taken_by[caller] >= self._share
        if self._taken >= self._places or (is_crowded and has_share):
            raise overloaded()

    async def run(self, work: Callable[[], T], caller: str = "") -> T:
        """What `work` returns, or raises, in a thread.

        Args:
            work: what is to be done.
            caller: see `require_room`.

        Raises:
            ApiError: as `require_room`; or it would have waited for too long.
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
        let_go = partial(self._let_go, caller)
        try:
            done = self._executor.submit(begin)
        except RuntimeError:  # it was shut down
            let_go(None)
            raise
        # When it is over, and not when nobody waits for it any more: until then it has its thread.
        done.add_done_callback(let_go)
        return await asyncio.wrap_future(done)

    def shutdown(self) -> None:
        """Take no more; what runs goes on."""
        self._executor.shutdown(wait=False)

    def _let_go(self, caller: str, _: Future[T] | None) -> None:
        with self._counting:
            self._taken -= 1
            self.taken_by[caller] -= 1
            if not self.taken_by[caller]:
                del self.taken_by[caller]


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
