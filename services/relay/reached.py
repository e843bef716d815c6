"""The position in the outbox behind which the next batch is read."""

from collections import deque
from collections.abc import Iterable

from services.relay import rows

THOROUGH_SECONDS = 1.0
"""Interval of thorough reads, which find rows that were committed late."""
LATE_SECONDS = 5.0
"""A row committed within this time after a row with a higher sequence is found without delay."""
PASSING_SHARE = 0.1
"""The share of its time that a lane may spend on reading over relayed rows."""
ALL_SECONDS = 30.0
"""Interval of reads from the beginning of the table."""


class Reached:
    """Tracks how far the fresh rows were relayed, so that each read begins behind them.

    Deleted rows stay in the table and its index until they are vacuumed, which an old snapshot (a
    dump's, for hours) prevents. A read from the beginning would pass over all of them. Sequence
    numbers are assigned before their rows are committed, so a read begins where the relay was
    `LATE_SECONDS` ago.

    Rows that are committed later, or released by a killed relay, are found by a thorough read every
    `THOROUGH_SECONDS`. It begins at the floor: all transactions that had written or locked a row
    below it had ended before an earlier thorough read. A dump writes nothing and does not hold the
    floor back. A long writing transaction does; rows behind it are then read over again, for at
    most `PASSING_SHARE` of the time. A row that another relay locked after the mark and released by
    being killed is found by the read of all rows every `ALL_SECONDS`.
    """

    def __init__(self) -> None:
        self._marks: deque[tuple[float, int]] = deque()
        self._near = self._floor = self._last = self._epoch = 0
        self._mark: tuple[int, int] | None = (
            None  # the next transaction id at that time, and the position
        )
        self._thorough_at = self._all_at = 0.0
        self._left_alone: set[rows.Destination] = set()
        self._is_elsewhere = False

    def is_thorough(self, now: float) -> bool:
        """Whether the next read is to be thorough; usually by one lane at a time."""
        if now < self._thorough_at:
            return False
        self._thorough_at = now + THOROUGH_SECONDS
        return True

    def after(
        self, now: float, left_alone: Iterable[rows.Destination], *, is_thorough: bool = False
    ) -> int:
        """Return the sequence behind which to read.

        Args:
            now: by the monotonic clock.
            left_alone: destinations whose rows are not taken. When one is removed from it, rows
                that were passed over have to be read again.
            is_thorough: whether rows that were committed late have to be found.
        """
        alone = set(left_alone)
        if self._left_alone - alone or self._is_elsewhere:
            self._is_elsewhere = False
            self.forget()
        self._left_alone = alone
        if now - self._all_at >= ALL_SECONDS:
            self._all_at = now
            return 0
        while self._marks and self._marks[0][0] <= now - LATE_SECONDS:
            self._near = self._marks.popleft()[1]
        return self._floor if is_thorough else max(self._near, self._floor)

    def note(self, now: float, sequence: int) -> None:
        """Note that all visible rows up to a sequence were relayed, or are locked by others."""
        self._last = max(sequence, self._last)
        last_at, last = self._marks[-1] if self._marks else (0.0, self._near)
        if sequence > last and now - last_at >= LATE_SECONDS / 50:
            self._marks.append((now, sequence))

    def begin(self, oldest: int, following: int) -> tuple[int, int]:
        """Begin a thorough read; return a value for `end`.

        Args:
            oldest: the id of the oldest running transaction that has written.
            following: the next transaction id.
        """
        passing = 0
        if self._mark is None or self._mark[0] <= oldest:
            passing = self._mark[1] if self._mark else 0
            self._mark = following, self._last
        return self._epoch, passing

    def end(self, look: tuple[int, int], now: float, took: float, reached: int | None) -> None:
        """End a thorough read.

        Args:
            look: from `begin`.
            now: by the monotonic clock.
            took: its duration in seconds.
            reached: the last sequence it read; None if it read to the end.
        """
        epoch, passing = look
        self._thorough_at = max(self._thorough_at, now + took / PASSING_SHARE)
        if epoch == self._epoch:  # not reset meanwhile
            passed = passing if reached is None else min(passing, reached)
            self._floor = max(self._floor, passed)

    def forget(self) -> None:
        """Read from the beginning again: some rows were left in place."""
        self._marks.clear()
        self._near = self._floor = self._last = 0
        self._mark = None
        self._epoch += 1

    def change_server(self) -> None:
        """Reset at the next read; may be called in any thread."""
        self._is_elsewhere = True
