"""The state of one part of a process that needs the broker: a consumed queue, or a publisher.

The one source of the container's health check, `/readyz`, the heartbeat (and so console and
doctor), the metric with its alert, and the log.
"""

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

import structlog

from shared.bus import metrics
from shared.bus.broker.refusal import LENGTH, explain

State = Literal["starting", "working", "holding", "away", "refused", "failing"]
"""`holding`: consuming, and waiting for another dependency with a batch in hand.
`away`: the broker is unreachable. `refused`: it refuses us, until a person changes something.
`failing`: the broker is fine, and the part's own work fails."""
WELL = ("working", "holding")
DOWN = ("away", "refused", "failing")
REPEAT_SECONDS = 60.0
"""Interval of repeated log lines about a failure; one that lasts longer is logged as an ERROR."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class PartStatus:
    """A reported state.

    Attributes:
        state: the state.
        reason: a sentence; empty while all is well.
        lacks: the label of the dependency that a batch is held for: that of `Hold`, or `database`.
        since: when holding for it began.
    """

    state: State
    reason: str = ""
    lacks: str = ""
    since: datetime | None = None

    @property
    def is_well(self) -> bool:
        """Whether messages are handled, or will be once a dependency is back."""
        return self.state in WELL


class Standing:
    """The state of a consumed queue or of a publisher's connection.

    Args:
        part: its name.

    Attributes:
        status: the state as reported.
    """

    def __init__(self, part: str) -> None:
        self.part = part
        self.status = PartStatus("starting")
        self.where = ""
        """The broker address in use or last tried, `host:port`."""
        self._gauge = metrics.working.labels(part)
        self._gauge.set(0)
        self._failing_since: float | None = None
        self._stuck: PartStatus | None = None
        self._logged: tuple[str, float] = ("", 0.0)

    def working(self, where: str = "") -> None:
        """Report that it consumes or publishes.

        Args:
            where: the address of the broker, `host:port`; unchanged if empty.
        """
        self.where = where or self.where
        if self._failing_since is not None:
            log.info("working_again", part=self.part, address=self.where)
        self._failing_since = None
        self._set(PartStatus("working"))

    def holding(self, reason: str, lacks: str = "") -> None:
        """Report that a batch is held.

        Args:
            reason: a sentence.
            lacks: what it is held for; see `PartStatus`.
        """
        if self.status.is_well:
            before = self.status
            goes_on = before.state == "holding" and before.lacks == lacks
            since = before.since if goes_on else datetime.now(UTC)
            self._set(PartStatus("holding", reason, lacks, since))

    def stuck(self, reason: str) -> None:
        """Report that a batch has run for long; `moved` takes it back.

        Args:
            reason: a sentence.
        """
        if self.status.state == "working":
            self.holding(reason)
            self._stuck = self.status

    def moved(self) -> None:
        """Take back `stuck`, unless another state was reported since."""
        if self.status is self._stuck:
            self.working()

    def released(self) -> None:
        """Take back `holding` or `failing`; other states stay."""
        if self.status.state in ("holding", "failing"):
            self.working()

    def failing(self, error: BaseException) -> None:
        """Report that its own work fails; a connection that is lost or refused stays so.

        Args:
            error: the failure.
        """
        if self.status.is_well or self.status.state == "failing":
            reason = " ".join(str(getattr(error, "orig", None) or error).split())[:LENGTH]
            self._set(PartStatus("failing", reason))
            self._say("failing", "failing", error, reason, is_error=True)

    def failed(self, error: BaseException, where: str = "") -> None:
        """Report that its connection was lost, could not be opened, or was refused.

        Args:
            error: the failure.
            where: the address of the broker, `host:port`; unchanged if empty.
        """
        self.where = where or self.where
        trouble = explain(error)
        self._set(PartStatus("refused" if trouble.is_refusal else "away", trouble.sentence))
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

    def _set(self, status: PartStatus) -> None:
        if self.status.lacks and self.status.lacks != status.lacks:
            metrics.lacking.labels(self.part, self.status.lacks).set(0)
        if status.lacks:
            metrics.lacking.labels(self.part, status.lacks).set(1)
        self.status = status
        self._gauge.set(1 if status.is_well else 0)
