"""By what each trouble is seen: while that is gone it is hidden, and not over. Pure."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from services.ops.monitoring.alerts import (
    DOES_NOT_WORK,
    GROWING,
    OLD,
    PROOF,
    PROOF_IS_OFF,
    WAITS,
)
from services.ops.monitoring.heartbeats import EXPECTED, FRESH, Beat
from services.ops.monitoring.queue_stats import Sample, unbroken_since
from shared.bus.contract import topology

OVER = timedelta(seconds=30)
"""For how long a trouble is not seen that has ended; after that time without one, looks are not
one after another any more."""
NEEDED: Mapping[str, timedelta] = {"grows": GROWING, "old": OLD}
"""By kind, for how long a queue must have been counted until it can be seen again of it."""
_RUNGS = frozenset(rung.name for rung in topology.RETRY_LADDER)
_QUEUES = frozenset(queue.name for queue in topology.QUEUES)
_DEAD = {queue.name: queue.dead for queue in topology.WORK_QUEUES}


def is_over(samples: Sequence[Sample], seen_at: datetime, about: str, kind: str) -> bool:
    """Whether a trouble that is not among what is wrong now has ended.

    Args:
        samples: oldest first.
        seen_at: when it was last among it.
        about: as of the trouble.
        kind: as of the trouble.
    """
    if is_hidden(samples[-1], about, kind):
        return False
    return samples[-1].at - max(seen_at, visible_since(samples, about, kind)) > OVER


def is_hidden(now: Sample, about: str, kind: str) -> bool:
    """Whether nobody can say any more if a trouble is still there.

    Args:
        now: the newest sample.
        about: as of the trouble.
        kind: as of the trouble.
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
            is_told = any(_tells(beat, part) for beat in _fresh(now, about))
            return not is_told and not _is_gone(now, about)
    return False


def visible_since(samples: Sequence[Sample], about: str, kind: str) -> datetime:
    """Since when a trouble would have been seen at every look, were it there.

    Args:
        samples: oldest first.
        about: as of the trouble.
        kind: as of the trouble.
    """
    since = unbroken_since(samples, OVER, lambda sample: _is_counted(sample, about, kind))
    return since + NEEDED.get(kind, timedelta(0)) if about in _QUEUES else since


def _is_counted(now: Sample, about: str, kind: str) -> bool:
    """Whether the servers have told in a sample what a trouble is seen by."""
    if _asks_database(about, kind) and not now.has_database:
        return False
    if about in ("outbox", "parked"):
        return now.outbox is not None
    if about not in _QUEUES and about != "ladder":
        return True
    queues = _RUNGS if about == "ladder" else {about}
    is_held = False
    if kind == "dead letters":
        queues = {_DEAD.get(about, about)}
    if kind == "dead letters" or about == "ladder":
        # Nobody consumes these but a tool, and what it has in hand is counted by nobody.
        is_held = any((count := now.counts.get(name)) and count.consumers for name in queues)
    return now.broker_error is None and queues.isdisjoint(now.silent) and not is_held


def _asks_database(about: str, kind: str) -> bool:
    """Whether it takes the database to see a trouble; the broker tells of the others by itself."""
    if about in _QUEUES:
        # By heartbeats: what is waited for, and how far a consumer has come.
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
    """Whether a notifier has what it needs to send, or would say what it lacks."""
    said = [beat.queues[q.name] for q in topology.NOTIFIER if q.name in beat.queues]
    return any(queue.state in ("working", "") for queue in said)


def _tells(beat: Beat, part: str) -> bool:
    said = beat.queues.get(part)
    return said is None or said.state != "starting"


def _is_gone(now: Sample, service: str) -> bool:
    """Whether a service is not there for good: what must be there is never."""
    newest = max((b.seen_at for b in now.beats or () if b.service == service), default=None)
    is_long_ago = newest is None or now.at - newest > PROOF_IS_OFF
    return service not in EXPECTED and is_long_ago
