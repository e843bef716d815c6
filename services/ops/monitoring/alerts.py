"""What is wrong, in words, first what hurts most. A pure function over some minutes of samples."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from services.ops.monitoring.heartbeats import EXPECTED, FRESH, lacking
from services.ops.monitoring.queue_stats import Figures, Sample, figures
from services.ops.times import duration, moment, since
from shared.bus.broker.standing import DOWN
from shared.bus.contract import topology
from shared.bus.outbox import COUNTED

OLD = timedelta(minutes=2)
GROWING = timedelta(minutes=1)
OUTBOX_OLD = timedelta(seconds=30)
DOES_NOT_WORK, WAITS = " does not work", " waits"
"""What the kind of a trouble with a part of a process ends in."""
LOOK_IS_OLD = timedelta(seconds=60)
"""A look ends within half of that, whatever is away: each server has its time."""
PROOF = "services.proof"
PROOF_IS_OFF = timedelta(days=1)
"""A standing proof that was not heard of for so long was taken out of service."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """One thing that is wrong.

    Attributes:
        level: `down`: something does not work; `warning`: somebody should look.
        about: the queue or the service, or `broker`, `queues`, `database`, `mail`, `outbox`,
            `parked`, `ladder`, `proof`.
        text: a sentence.
        kind: what is wrong with that, in a word or two; with `about` it tells one trouble from
            another, whatever figures the sentence has.
        figure: how much it is, where it can grow: messages. One that grows far beyond what people
            were told of is told of anew; see `alerting/due.py`.
    """

    level: Literal["down", "warning"]
    about: str
    text: str
    kind: str
    figure: int = 0

    @property
    def key(self) -> str:
        """By what it is the same trouble as a moment ago."""
        return f"{self.about}: {self.kind}"


def troubles(samples: Sequence[Sample]) -> list[Trouble]:
    """What is wrong now.

    Args:
        samples: oldest first; one will do, but growth and ages need some minutes of them.
    """
    now = samples[-1]
    found = [*_servers(now), *_mail(now), *_proof(now), *_services(now), *_parts(now)]
    if now.broker_error is None:
        found += _ladder(now)
        for queue in figures(samples):
            found += _queue(samples, queue)
    return sorted(found, key=lambda trouble: trouble.level != "down")


def too_old(at: datetime, now: datetime) -> Trouble | None:
    """That a look is of so long ago that nobody knows what is so now.

    Args:
        at: when it was.
        now: the time.
    """
    if now - at <= LOOK_IS_OLD:
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
    heard: dict[str, datetime] = {}
    for beat in now.beats:
        heard[beat.service] = max(beat.seen_at, heard.get(beat.service, beat.seen_at))
    for service in EXPECTED:
        if service not in heard:
            yield Trouble("down", service, f"{service} was never heard of: start it", "silent")
        elif now.at - heard[service] > FRESH:
            age = duration((now.at - heard[service]).total_seconds())
            yield Trouble("down", service, f"{service} has not been heard of for {age}", "silent")


def _parts(now: Sample) -> Iterator[Trouble]:
    """What processes say of themselves: what they cannot get at, a batch that they keep."""
    for beat in now.beats or ():
        if now.at - beat.seen_at > FRESH:
            continue
        for part, said in beat.queues.items():
            who = f"{beat.service} ({beat.instance})"
            if said.state in DOWN:
                text = f"{who} does not work on {part}: {said.reason}"
                yield Trouble("down", beat.service, text, f"{part}{DOES_NOT_WORK}")
            elif said.state == "holding" and said.lacks != "mail":
                yield Trouble(
                    "warning",
                    beat.service,
                    f"{who} waits with {part}: {said.reason}",
                    f"{part}{WAITS}",
                )


def _mail(now: Sample) -> Iterator[Trouble]:
    """That no mail server takes our mail: one line for it, whoever waits."""
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


def _proof(now: Sample) -> Iterator[Trouble]:
    """That no order goes the whole way any more, where a proof of it stands."""
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
    for scheme, said in newest.queues.items():
        so_far = since(said.reached) or " yet"
        if said.state == "unproved":
            text = f"No order by {scheme} has gone the whole way{so_far}: {said.reason}"
            yield Trouble("down", "proof", text, scheme)
        elif said.state == "waiting":
            yield Trouble("warning", "proof", f"The standing proof waits: {said.reason}", "waits")
            return


def _ladder(now: Sample) -> Iterator[Trouble]:
    """What failed and waits for its next attempt: the broker's own count."""
    on_it = {
        rung.name: count.ready
        for rung in topology.RETRY_LADDER
        if (count := now.counts.get(rung.name)) is not None and count.ready
    }
    if on_it:
        where = ", ".join(f"{ready:,} in {name}" for name, ready in on_it.items())
        together = sum(on_it.values())
        text = f"{_number(together, 'message')} failed and will be tried again: {where}"
        yield Trouble("warning", "ladder", text, "waits", together)


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
    if not queue.consumers and not _is_waited_with(samples[-1], queue.name):
        how = f"has grown for {duration(grown.total_seconds())}: no consumer" if grown else ""
        text = how or "has no consumer" + (f": {waiting}" if queue.ready else "")
        yield Trouble("down", queue.name, f"{queue.name} {text}", "no consumer", queue.ready)
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


def _is_waited_with(now: Sample, queue: str) -> bool:
    """Whether a process has said that it waits for something before it consumes a queue.

    It begins to consume once that is there, and says itself what it is. While the database is away
    nobody can say so: then it may be what they wait for.
    """
    return now.beats is None or any(
        now.at - beat.seen_at <= FRESH
        and (said := beat.queues.get(queue)) is not None
        and said.state == "holding"
        for beat in now.beats
    )


def _growing_for(samples: Sequence[Sample], queue: str) -> timedelta:
    """For how long a queue has not got shorter and is longer now; nothing below `GROWING`."""
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
    """Messages of the outbox, which are counted to a bound."""
    return _number(rows, "message") if rows <= COUNTED else f"over {COUNTED:,} messages"


def _number(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
