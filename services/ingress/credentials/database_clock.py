"""The database's time in a worker, independent of the worker's wall clock.

Secrets expire by the database's clock. It is read with each query, and extrapolated between queries
by the monotonic clock, which no correction of the wall clock moves.
"""

import time

DRIFT = 0.001
"""How far the two clocks may drift apart, in seconds a second: ten times that of real clocks."""


class DatabaseClock:
    """Bounds of the database's time, from the readings so far."""

    def __init__(self) -> None:
        self._at: float | None = None
        self._earliest = self._latest = 0.0
        self._offset = time.time() - time.monotonic()

    def read(self, stated: float, before: float, after: float) -> None:
        """Narrow the bounds by a reading; one outside of them replaces them: the clock was set.

        Args:
            stated: the database's time, in seconds since 1970.
            before: the time of the query, on the monotonic clock.
            after: the time of its answer, on the same clock.
        """
        earliest, latest = stated, stated + (after - before) * (1 + DRIFT)
        if self._at is not None:
            known = self.bounds(after)
            if known[0] <= latest and earliest <= known[1]:
                earliest, latest = max(earliest, known[0]), min(latest, known[1])
        self._at, self._earliest, self._latest = after, earliest, latest
        monotonic = time.monotonic()
        self._offset = time.time() - monotonic
        earliest, latest = self.bounds(monotonic)
        if not earliest <= monotonic + self._offset <= latest:
            self._offset = (earliest + latest) / 2 - monotonic

    def bounds(self, at: float) -> tuple[float, float]:
        """Return the earliest and latest possible time at `at` on the monotonic clock."""
        passed = at - (self._at or 0.0)
        drift = abs(passed) * DRIFT
        return self._earliest + passed - drift, self._latest + passed + drift

    def now(self) -> float:
        """Return seconds since 1970: the latest possible time, so that no secret works too long.

        Before the first reading, when no secret is cached either, it is the worker's wall clock.
        """
        if self._at is None:
            return time.time()
        return self.bounds(time.monotonic())[1]

    def stamp(self) -> float:
        """Return seconds since 1970, for stamps that are compared with those of other workers.

        It is the wall clock, which the workers of a host share to the microsecond, as long as it is
        within the bounds; otherwise the middle of the bounds.
        """
        return time.monotonic() + self._offset
