"""The database's time in a worker, whatever the worker's own clock says.

A secret ends at a time that the database keeps. Read beside each query and carried on by the
monotonic clock, which no correction moves, that time is known between two queries too.
"""

import time

DRIFT = 0.001
"""How far the two clocks may run apart, in seconds a second; real ones stay a tenth below."""


class DatabaseClock:
    """What is known of the database's time: never more than the bounds of the last readings."""

    def __init__(self) -> None:
        self._at: float | None = None
        self._earliest = self._latest = 0.0
        self._offset = time.time() - time.monotonic()

    def read(self, stated: float, before: float, after: float) -> None:
        """Take in a reading; with those before it narrows the bounds, unless the clock was set.

        Args:
            stated: what the database said, in seconds since 1970.
            before: when it was asked, on the monotonic clock.
            after: when its answer was there, on the same.
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
        """The earliest and the latest that it may be at a time on the monotonic clock."""
        passed = at - (self._at or 0.0)
        drift = abs(passed) * DRIFT
        return self._earliest + passed - drift, self._latest + passed + drift

    def now(self) -> float:
        """Seconds since 1970: the latest it may be, so that nothing lives too long.

        The worker's own clock before the first reading, when no secret is there yet either.
        """
        if self._at is None:
            return time.time()
        return self.bounds(time.monotonic())[1]

    def stamp(self) -> float:
        """Seconds since 1970, for what is compared with the stamps of other workers.

        The worker's own clock as long as a reading allows for it, since a host's workers share it
        to the microsecond; else the middle of what is possible.
        """
        return time.monotonic() + self._offset
