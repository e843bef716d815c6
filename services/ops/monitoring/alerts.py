"""The troubles in some minutes of samples, most severe first, as readable messages. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from services.ops.monitoring.heartbeats import EXPECTED, FRESH, lacking
from services.ops.monitoring.order_flow import Refusals
from services.ops.monitoring.queue_stats import Figures, Sample, figures
from services.ops.times import duration, moment, since
from shared.bus.broker.standing import DOWN
from shared.bus.contract import topology
from shared.bus.outbox import COUNTED
from shared.telemetry.heartbeat import API, JOB, JOURNAL, WEBHOOKS

OLD = timedelta(minutes=2)
GROWING = timedelta(minutes=1)
OUTBOX_OLD = timedelta(seconds=30)
DOES_NOT_WORK, WAITS = " does not work", " waits"
"""Suffixes of the kind of a trouble with a part of a process."""
REFUSES = "refuses"
"""The kind of the trouble that mail servers refuse emails permanently."""
LEAST_REFUSED = 5
REFUSED_SHARE = 0.05
"""Of the newest emails. A smaller share is mistyped addresses."""
SNAPSHOT_IS_OLD = timedelta(seconds=60)
"""Each server has its own timeout, so a snapshot takes at most half of this, whatever is
unreachable."""
PROOF = "services.proof"
PROOF_IS_OFF = timedelta(days=1)
"""A standing proof without a heartbeat for this long was taken out of service."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """One condition that is wrong; what is sent about it is an alert (`services.ops.alerting`).

    Attributes:
        level: `down`: something does not work; `warning`: an operator should look into it.
        about: the queue or the service, or `broker`, `queues`, `database`, `mail`, `outbox`,
            `parked`, `ladder`, `proof`.
        text: a sentence.
        kind: a label of the condition; with `about` it identifies the trouble, whatever the figures
            in the sentence.
        figure: its size in messages, where it can grow. Growth far beyond the last alert's figure
            is alerted of again; see `alerting/due.py`.
    """

    level: Literal["down", "warning"]
    about: str
    text: str
    kind: str
    figure: int = 0

    @property
    def key(self) -> str:
        """Identifies the trouble from one snapshot to the next."""
        return f"{self.about}: {self.kind}"


def troubles(samples: Sequence[Sample]) -> list[Trouble]:
    """Return the current troubles, those that are down first.

    Args:
        samples: oldest first; at least one, but growth and ages need some minutes of them.
    """
    now = samples[-1]
    found = [
        *_servers(now),
        *_mail(now),
        *_refused(now),
        *_proof(now),
        *_services(now),
        *_parts(now),
    ]
    if now.broker_error is None:
        found += _ladder(now)
        for queue in figures(samples):
            found += _queue(samples, queue)
    return sorted(found, key=lambda trouble: trouble.level != "down")


def too_old(at: datetime, now: datetime) -> Trouble | None:
    """Return the trouble of a snapshot that is older than `SNAPSHOT_IS_OLD`, else None.

    Args:
        at: the time of the snapshot.
        now: the current time.
    """
    if now - at <= SNAPSHOT_IS_OLD:
        return None
    age = duration((now - at).total_seconds())
    text = f"The console has not been able to look for {age}: all that it shows is of {moment(at)}"
    return Trouble("down", "console", text, "blind")


def _servers(now: Sample) -> Iterator[Trouble]:
    if now.is_refused:
        yield Trouble(
            "warning", "queues", f"Not all queues can be looked at: {now.broker_error}", "unseen"
        )
    elif now.broker_error is not None:
        yield Trouble("down", "broker", f"The broker does not answer: {now.broker_error}", "away")
    if now.is_read_only:
        text = f"The database takes no writes: {now.database_error}"
        yield Trouble("down", "database", text, "read-only")
    elif now.database_error is not None:
        yield Trouble(
            "down", "database", f"The database does not answer: {now.database_error}", "away"
        )
    if now.alarm is not None:
        yield Trouble(
            "down",
            "broker",
            f"The broker takes no messages: {now.alarm}. Orders are kept in the outbox meanwhile.",
            "alarm",
        )
    if now.outbox_since is not None and now.at - now.outbox_since > OUTBOX_OLD:
        age = duration((now.at - now.outbox_since).total_seconds())
        yield Trouble(
            "warning",
            "outbox",
            f"{_counted(now.outbox or 0)} in the outbox, the oldest for {age}: "
            "does the relay run, and does the broker take what it publishes?",
            "old",
            now.outbox or 0,
        )
    if now.parked and now.parked_since is not None:
        age = duration((now.at - now.parked_since).total_seconds())
        yield Trouble(
            "warning",
            "parked",
            f"{_counted(now.parked)} of the outbox cannot be published, the first for "
            f"{age}: read why, then mend, try or discard",
            "parked",
            now.parked,
        )


def _services(now: Sample) -> Iterator[Trouble]:
    if now.beats is None:
        return
    last_seen: dict[str, datetime] = {}
    for beat in now.beats:
        last_seen[beat.service] = max(beat.seen_at, last_seen.get(beat.service, beat.seen_at))
    for service in EXPECTED:
        if service not in last_seen:
            yield Trouble("down", service, f"{service} was never heard of: start it", "silent")
        elif now.at - last_seen[service] > FRESH:
            age = duration((now.at - last_seen[service]).total_seconds())
            yield Trouble("down", service, f"{service} has not been heard of for {age}", "silent")


def _parts(now: Sample) -> Iterator[Trouble]:
    """Troubles that processes report: a connection that fails, a batch that they hold."""
    for beat in now.beats or ():
        if now.at - beat.seen_at > FRESH:
            continue
        for part, report in beat.queues.items():
            who = f"{beat.service} ({beat.instance})"
            kind = f"{part}{DOES_NOT_WORK}"
            if report.state in DOWN and part == WEBHOOKS:
                yield Trouble("down", beat.service, f"{who}: {report.reason}", kind)
            elif report.state in DOWN and (part in (JOURNAL, API) or part.startswith(JOB)):
                # Orders are accepted and delivered without these.
                yield Trouble("warning", beat.service, f"{who}: {report.reason}", kind)
            elif report.state in DOWN:
                text = f"{who} does not work on {part}: {report.reason}"
                yield Trouble("down", beat.service, text, kind)
            elif report.state == "holding" and report.lacks != "mail":
                yield Trouble(
                    "warning",
                    beat.service,
                    f"{who} waits with {part}: {report.reason}",
                    f"{part}{WAITS}",
                )


def _mail(now: Sample) -> Iterator[Trouble]:
    """No mail server accepts our mail: one trouble for all waiting queues."""
    held = lacking(now.beats or (), "mail", now.at)
    if held is None:
        return
    waiting = [now.messages(queue.name) for queue in topology.NOTIFIER]
    known = [count for count in waiting if count is not None]
    emails = _number(sum(known), "email") if known else "emails"
    verb = "waits" if known and sum(known) == 1 else "wait"
    yield Trouble(
        "down",
        "mail",
        f"No mail server takes our mail: {emails} {verb}{since(held.since)}. They are sent once "
        f"one does. {held.reason}",
        "away",
        sum(known),
    )


def _refused(now: Sample) -> Iterator[Trouble]:
    """Mail servers refuse emails permanently: nothing waits, and the recipients get nothing."""
    found = now.emails
    if found is None or found.first is None or found.last is None or not are_many(found):
        return
    age = duration(max(0.0, (now.at - found.last).total_seconds()))
    yield Trouble(
        "down" if 2 * found.refused > found.tried else "warning",
        "mail",
        f"Of the last {_number(found.tried, 'email')} {found.refused:,} were refused for good, the "
        f"first of those at {moment(found.first)}, the last {age} ago: whom they were for is "
        "not told. Most often the answer was "
        f"“{found.response}”. Once that is mended, replay their dead letters",
        REFUSES,
        found.refused,
    )


def are_many(found: Refusals, part: float = 1.0) -> bool:
    """Whether the refused emails reach the threshold, or `part` of it."""
    most = REFUSED_SHARE * part * found.tried
    return found.refused >= LEAST_REFUSED * part and found.refused > most


def _proof(now: Sample) -> Iterator[Trouble]:
    """The standing proof, where it runs, gets no order from its request to its email."""
    beats = [beat for beat in now.beats or () if beat.service == PROOF]
    newest = max(beats, key=lambda beat: beat.seen_at, default=None)
    if newest is None or now.at - newest.seen_at > PROOF_IS_OFF:
        return
    if now.at - newest.seen_at > FRESH:
        age = duration((now.at - newest.seen_at).total_seconds())
        yield Trouble(
            "down", "proof", f"Nothing is proved: {PROOF} is not heard of for {age}", "silent"
        )
        return
    for scheme, report in newest.queues.items():
        so_far = since(report.reached) or " yet"
        if report.state == "unproved":
            text = f"No order by {scheme} has gone the whole way{so_far}: {report.reason}"
            yield Trouble("down", "proof", text, scheme)
        elif report.state == "waiting":
            yield Trouble("warning", "proof", f"The standing proof waits: {report.reason}", "waits")
            return


def _ladder(now: Sample) -> Iterator[Trouble]:
    """Messages that failed and wait for the next attempt, by the broker's count."""
    on_it = {
        rung.name: count.ready
        for rung in topology.RETRY_DELAYS
        if (count := now.counts.get(rung.name)) is not None and count.ready
    }
    if on_it:
        where = ", ".join(f"{ready:,} in {name}" for name, ready in on_it.items())
        total = sum(on_it.values())
        text = f"{_number(total, 'message')} failed and will be tried again: {where}"
        yield Trouble("warning", "ladder", text, "waits", total)


def _queue(samples: Sequence[Sample], queue: Figures) -> Iterator[Trouble]:
    if queue.silent:
        why = "have its nodes lost each other, or is the broker busy?"
        yield Trouble("down", queue.name, f"{queue.name} does not answer: {why}", "away")
        return
    if queue.ready is None:
        yield Trouble(
            "down", queue.name, f"{queue.name} is not there: declare the topology", "missing"
        )
        return
    if queue.consumers is None or not any(w.name == queue.name for w in topology.WORK_QUEUES):
        return
    grown = _growing_for(samples, queue.name)
    waiting = _number(queue.ready, "message") + (" waits" if queue.ready == 1 else " wait")
    is_waited_with = _is_waited_with(samples[-1], queue.name) or _is_tried(samples, queue.name)
    if not queue.consumers and not is_waited_with:
        how = f"has grown for {duration(grown.total_seconds())}: no consumer" if grown else ""
        text = how or "has no consumer" + (f": {waiting}" if queue.ready else "")
        yield Trouble(
            "down",
            queue.name,
            f"{queue.name} {text}{_of_shards(samples[-1], queue.name)}",
            "no consumer",
            queue.ready,
        )
    elif grown and queue.consumers:
        yield Trouble(
            "warning",
            queue.name,
            f"{queue.name} has grown for {duration(grown.total_seconds())}: {waiting}, "
            f"{_number(queue.consumers, 'consumer')} cannot keep up",
            "grows",
            queue.ready,
        )
    if queue.oldest_seconds is not None and queue.oldest_seconds > OLD.total_seconds():
        bound = "" if queue.oldest_bound == "about" else f"{queue.oldest_bound} "
        yield Trouble(
            "warning",
            queue.name,
            f"{queue.name}: its oldest message is {bound}{duration(queue.oldest_seconds)} old",
            "old",
        )
    if queue.dead:
        text = f"{_number(queue.dead, 'dead letter')} in {queue.name}"
        yield Trouble("warning", queue.name, text, "dead letters", queue.dead)


def _of_shards(now: Sample, queue: str) -> str:
    """Name a queue's shards without a consumer, where other shards have one."""
    shards = {name: count for name, count in now.shards.items() if topology.whole(name) == queue}
    left = [name for name, count in shards.items() if not count.consumers]
    if len(left) == len(shards):
        return ""
    ready = sum(shards[name].ready for name in left)
    where = f"{ready:,} in {', '.join(left)}"
    return f" ({where}: were all recorders restarted since it was declared?)"


def _is_tried(samples: Sequence[Sample], queue: str) -> bool:
    """Whether a starting recorder may be trying a queue's shards one after another.

    Then other shards are without a consumer in the next sample.
    """
    now, *before = (
        {n: c for n, c in s.shards.items() if topology.whole(n) == queue}
        for s in reversed(samples[-2:])
    )
    idle = [name for name, count in now.items() if not count.consumers]
    if not before or len(idle) == len(now):
        return False
    return not any(name in before[0] and not before[0][name].consumers for name in idle)


def _is_waited_with(now: Sample, queue: str) -> bool:
    """Whether a process reports that it waits for a dependency before it consumes a queue.

    Its own report is a trouble already. While the database is unreachable there are no reports, and
    the database may be what the consumers wait for.
    """
    return now.beats is None or any(
        now.at - beat.seen_at <= FRESH
        and (report := beat.queues.get(queue)) is not None
        and report.state == "holding"
        for beat in now.beats
    )


def _growing_for(samples: Sequence[Sample], queue: str) -> timedelta:
    """For how long a queue has grown without getting shorter; zero if for less than `GROWING`."""
    now = samples[-1].counts.get(queue)
    if now is None:
        return timedelta(0)
    began, smallest = samples[-1].at, now.ready
    for sample in reversed(samples):
        count = sample.counts.get(queue)
        if count is None or count.ready > smallest:
            break
        if count.ready < smallest:
            began, smallest = sample.at, count.ready
    grown = samples[-1].at - began
    return grown if grown >= GROWING and now.ready > smallest else timedelta(0)


def _counted(rows: int) -> str:
    """The outbox counts its messages up to `COUNTED` only."""
    return _number(rows, "message") if rows <= COUNTED else f"over {COUNTED:,} messages"


def _number(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
