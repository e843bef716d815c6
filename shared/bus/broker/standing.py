"""How a process stands with one thing that it needs of the broker. All that tells of it reads this.

The container's check, `/readyz`, the heartbeat, and through it console and doctor; the metric and
its alert; the log.
"""

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

import structlog

from shared.bus import metrics
from shared.bus.broker.refusal import LENGTH, explain

State = Literal["starting", "working", "holding", "away", "refused", "failing"]
"""`holding`: it has what it needs of the broker, and waits for something else with a batch in hand.
`refused`: the broker is there, and nothing changes until somebody changes something.
`failing`: it has what it needs of the broker, and its own work goes wrong."""
WELL = ("working", "holding")
DOWN = ("away", "refused", "failing")
REPEAT_SECONDS = 60.0
"""How often the log says again that it does not work; after so long it is an error in any case."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Told:
    """A state.

    Attributes:
        state: see there.
        reason: why it is so: a sentence, empty while all is well.
        lacks: what a batch is kept for, as `Hold` names it, or `database`; empty while none is.
        since: since when a batch is kept for it.
    """

    state: State
    reason: str = ""
    lacks: str = ""
    since: datetime | None = None

    @property
    def is_well(self) -> bool:
        """Whether work is done, or would be as soon as what it waits for is back."""
        return self.state in WELL


class Standing:
    """One queue that is consumed, or one connection that is published by.

    Args:
        part: its name.
    """

    def __init__(self, part: str) -> None:
        self.part = part
        self.told = Told("starting")
        self.where = ""
        """The address in use, `host:port`, or the last that was tried."""
        self._gauge = metrics.working.labels(part)
        self._gauge.set(0)
        self._failing_since: float | None = None
        self._logged: tuple[str, float] = ("", 0.0)

    def working(self, where: str = "") -> None:
        """It is admitted and at work.

        Args:
            where: the address of the broker, `host:port`; as before when not given.
        """
        self.where = where or self.where
        if self._failing_since is not None:
            log.info("working_again", part=self.part, address=self.where)
        self._failing_since = None
        self._set(Told("working"))

    def holding(self, reason: str, lacks: str = "") -> None:
        """It is at work, and has to wait with what it has in hand.

        Args:
            reason: a sentence.
            lacks: what it waits for; see `Told`.
        """
        if self.told.is_well:
            before = self.told
            goes_on = before.state == "holding" and before.lacks == lacks
            since = before.since if goes_on else datetime.now(UTC)
            self._set(Told("holding", reason, lacks, since))

    def released(self) -> None:
        """What it waited for is back, or its work goes well; else its state stays."""
        if self.told.state in ("holding", "failing"):
            self.working()

    def failing(self, error: BaseException) -> None:
        """Its work goes wrong, and not since something is away; a connection's own state stays.

        Args:
            error: by which it did.
        """
        if self.told.is_well or self.told.state == "failing":
            reason = " ".join(str(getattr(error, "orig", None) or error).split())[:LENGTH]
            self._set(Told("failing", reason))
            self._say("failing", "failing", error, reason, is_error=True)

    def failed(self, error: BaseException, where: str = "") -> None:
        """Its connection was lost, could not be opened, or was refused what it needs.

        Args:
            error: by which.
            where: the address of the broker, `host:port`; as before when not given.
        """
        self.where = where or self.where
        trouble = explain(error)
        self._set(Told("refused" if trouble.is_refusal else "away", trouble.sentence))
        event = "refused_by_broker" if trouble.is_refusal else "connection_lost"
        self._say(event, trouble.kind, error, trouble.sentence, is_error=trouble.is_refusal)

    def _say(
        self, event: str, kind: str, error: BaseException, reason: str, *, is_error: bool
    ) -> None:
        now = time.monotonic()
        if self._failing_since is None:
            self._failing_since = now
        before, at = self._logged
        if before == kind and now - at < REPEAT_SECONDS:
            return
        self._logged = (kind, now)
        lasts = now - self._failing_since >= REPEAT_SECONDS
        log.log(
            40 if is_error or lasts else 30,
            event,
            part=self.part,
            address=self.where,
            error=type(error).__name__,
            reason=reason,
        )

    def _set(self, told: Told) -> None:
        if self.told.lacks and self.told.lacks != told.lacks:
            metrics.lacking.labels(self.part, self.told.lacks).set(0)
        if told.lacks:
            metrics.lacking.labels(self.part, told.lacks).set(1)
        self.told = told
        self._gauge.set(1 if told.is_well else 0)
