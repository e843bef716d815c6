"""Which rows a look at the outbox need not pass over again."""

from collections import deque
from collections.abc import Iterable

from services.relay import rows

THOROUGH_SECONDS = 1.0
"""Between two looks for what was committed late."""
LATE_SECONDS = 5.0
"""How long after another row may one of a lower number be committed, to be found at once."""
PASSING_SHARE = 0.1
"""Of its time that a lane may pass over what was relayed, to find what was committed later."""
ALL_SECONDS = 30.0
"""Between two looks at all rows, whoever wrote them, and with which numbers."""


class Reached:
    """How far the fresh rows are dealt with, so that each look begins behind them.

    What was relayed lies in the table, and in its index, until it is vacuumed; and as long as
    somebody holds an old snapshot, as a dump does for hours, it is not. A look from the start would
    pass over all of it. Numbers are given before they are committed, so a look begins where things
    were `LATE_SECONDS` ago.

    What is committed later, or let go by a relay that was killed, is found by a thorough look each
    `THOROUGH_SECONDS`. It begins at the floor, below which nobody can write any more: every
    transaction that had written or held a row there when the mark was made had ended before a look
    that began below. A dump writes nothing, so it does not hold the floor; who writes for long
    does, and is then passed over again and again, for `PASSING_SHARE` of the time. A row that
    another relay took after the mark, and let go by being killed, is found by the look at all, each
    `ALL_SECONDS`.
    """

    def __init__(self) -> None:
        self._marks: deque[tuple[float, int]] = deque()
        self._near = self._floor = self._last = self._epoch = 0
        self._mark: tuple[int, int] | None = None  # the next writer then, and how far it was
        self._thorough_at = self._all_at = 0.0
        self._left_alone: set[rows.Destination] = set()
        self._is_elsewhere = False

    def is_thorough(self, now: float) -> bool:
        """Whether the look that begins now is to be thorough: by one lane at a time, as a rule."""
        if now < self._thorough_at:
            return False
        self._thorough_at = now + THOROUGH_SECONDS
        return True

    def after(
        self, now: float, left_alone: Iterable[rows.Destination], *, is_thorough: bool = False
    ) -> int:
        """The sequence behind which to look.

        Args:
            now: on the monotonic clock.
            left_alone: destinations whose rows are not taken: what is not left alone any more may
                have rows that were passed over.
            is_thorough: whether it is to find what was committed late.
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
        """Note that all up to a sequence that could be seen is dealt with, or in others' hands."""
        self._last = max(sequence, self._last)
        last_at, last = self._marks[-1] if self._marks else (0.0, self._near)
        if sequence > last and now - last_at >= LATE_SECONDS / 50:
            self._marks.append((now, sequence))

    def begin(self, oldest: int, following: int) -> tuple[int, int]:
        """Begin a thorough look; returns what `end` is told of it.

        Args:
            oldest: the oldest transaction that writes and has not ended.
            following: the next that will begin.
        """
        passing = 0
        if self._mark is None or self._mark[0] <= oldest:
            passing = self._mark[1] if self._mark else 0
            self._mark = following, self._last
        return self._epoch, passing

    def end(self, look: tuple[int, int], now: float, took: float, reached: int | None) -> None:
        """A thorough look is over.

        Args:
            look: what `begin` gave.
            now: on the monotonic clock.
            took: how many seconds it was.
            reached: the sequence that it came to; None where it came to the end.
        """
        epoch, passing = look
        self._thorough_at = max(self._thorough_at, now + took / PASSING_SHARE)
        if epoch == self._epoch:  # nothing was forgotten meanwhile
            passed = passing if reached is None else min(passing, reached)
            self._floor = max(self._floor, passed)

    def forget(self) -> None:
        """Begin at the start again: some were left as they were."""
        self._marks.clear()
        self._near = self._floor = self._last = 0
        self._mark = None
        self._epoch += 1

    def change_server(self) -> None:
        """Forget at the next look; called in any thread."""
        self._is_elsewhere = True
