"""The data that each trouble is seen by: without it a trouble is hidden, not over. Pure."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from services.ops.monitoring.alerts import (
    DOES_NOT_WORK,
    GROWING,
    OLD,
    PROOF,
    PROOF_IS_OFF,
    REFUSES,
    WAITS,
    are_many,
)
from services.ops.monitoring.heartbeats import EXPECTED, FRESH, Beat
from services.ops.monitoring.queue_stats import Sample, unbroken_since
from shared.bus.contract import topology

OVER = timedelta(seconds=30)
"""A trouble has ended once it was absent from all samples for this long; two samples further apart
are a gap."""
NEEDED: Mapping[str, timedelta] = {"grows": GROWING, "old": OLD}
"""By kind, how long a queue must be counted until the trouble can be seen again."""
MENDED = 0.5
"""The share of the threshold below which refusals have ended; a hysteresis against flapping."""
_RUNGS = frozenset(rung.name for rung in topology.RETRY_DELAYS)
_QUEUES = frozenset(queue.name for queue in topology.QUEUES)
_DEAD = {queue.name: queue.dead for queue in topology.WORK_QUEUES}


def is_over(samples: Sequence[Sample], seen_at: datetime, about: str, kind: str) -> bool:
    """Whether a trouble that is absent from the newest sample has ended.

    Args:
        samples: oldest first.
        seen_at: when it was last present.
        about: the trouble's.
        kind: the trouble's.
    """
    if is_hidden(samples[-1], about, kind):
        return False
    return samples[-1].at - max(seen_at, visible_since(samples, about, kind)) > OVER


def is_hidden(now: Sample, about: str, kind: str) -> bool:
    """Whether a sample lacks the data that would show the trouble.

    Args:
        now: the newest sample.
        about: the trouble's.
        kind: the trouble's.
    """
    if not _is_counted(now, about, kind):
        return True
    if about == "broker":
        return kind != "away" and now.broker_error is not None
    if about == "queues":
        return now.broker_error is not None and not now.is_refused
    if about == "mail":
        return not any(_works(beat) for beat in _fresh(now, "services.notifier"))
    if about == PROOF.removeprefix("services."):
        return kind != "silent" and not _fresh(now, PROOF) and not _is_gone(now, PROOF)
    for ending in (DOES_NOT_WORK, WAITS):
        if kind.endswith(ending):
            part = kind.removesuffix(ending)
            is_reported = any(_reports(beat, part) for beat in _fresh(now, about))
            return not is_reported and not _is_gone(now, about)
    return False


def visible_since(samples: Sequence[Sample], about: str, kind: str) -> datetime:
    """Return since when every sample would have shown the trouble, if it existed.

    Args:
        samples: oldest first.
        about: the trouble's.
        kind: the trouble's.
    """
    since = unbroken_since(samples, OVER, lambda sample: _is_counted(sample, about, kind))
    return since + NEEDED.get(kind, timedelta(0)) if about in _QUEUES else since


def _is_counted(now: Sample, about: str, kind: str) -> bool:
    """Whether the servers' answers in a sample contain the data that shows the trouble."""
    if _asks_database(about, kind) and not now.has_database:
        return False
    if about in ("outbox", "parked"):
        return now.outbox is not None
    if about == "mail" and kind == REFUSES:
        emails = now.emails
        if emails is None or not emails.tried:
            return False
        return are_many(emails) or not are_many(emails, MENDED)
    if about not in _QUEUES and about != "ladder":
        return True
    queues = _RUNGS if about == "ladder" else {about}
    is_held = False
    if kind == "dead letters":
        queues = {_DEAD.get(about, about)}
    if kind == "dead letters" or about == "ladder":
        # Only tools consume these, and their unacknowledged messages are not counted.
        is_held = any((count := now.counts.get(name)) and count.consumers for name in queues)
    return now.broker_error is None and queues.isdisjoint(now.silent) and not is_held


def _asks_database(about: str, kind: str) -> bool:
    """Whether the trouble is seen by the database; others are seen by the broker alone."""
    if about in _QUEUES:
        # By heartbeats: the missing dependency, and the newest handled message.
        return kind in ("no consumer", "old")
    if about == "database":
        return kind != "away"
    return about not in ("broker", "queues", "ladder")


def _fresh(now: Sample, service: str) -> list[Beat]:
    return [
        beat
        for beat in now.beats or ()
        if beat.service == service and now.at - beat.seen_at <= FRESH
    ]


def _works(beat: Beat) -> bool:
    """Whether a notifier can send, or would report why not."""
    queues = [beat.queues[q.name] for q in topology.NOTIFIER if q.name in beat.queues]
    return any(queue.state in ("working", "") for queue in queues)


def _reports(beat: Beat, part: str) -> bool:
    report = beat.queues.get(part)
    return report is None or report.state != "starting"


def _is_gone(now: Sample, service: str) -> bool:
    """Whether a service was taken out of service; an expected one never was."""
    newest = max((b.seen_at for b in now.beats or () if b.service == service), default=None)
    is_long_ago = newest is None or now.at - newest > PROOF_IS_OFF
    return service not in EXPECTED and is_long_ago
