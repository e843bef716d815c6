"""`fellow journal`: replaying the record of the last seven days."""

from datetime import UTC, datetime
from typing import Annotated

import msgspec
import typer

from services.ops.audit import actions as audit
from services.ops.broker.hold import BusyError
from services.ops.cli.acting import actor, require_believed_user, sign_in
from services.ops.cli.terminal import (
    MISUSED,
    Yes,
    broker,
    confirm,
    database_trouble,
    engine,
    parse_time,
    progress,
    say,
    stop,
)
from services.ops.journal import reading, replaying
from services.ops.times import moment
from shared.bus.contract import topology
from shared.bus.contract.events import OpsJournalReplayed

EPOCH = datetime.fromtimestamp(0, UTC)
"""AMQP has no earlier times."""

app = typer.Typer(help="The record of the last seven days.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    # Without a callback Typer would make a single command the group itself.
    pass


@app.command()
def replay(
    since: Annotated[
        str,
        typer.Option(
            "--from",
            help="The first time that may not have been handled: 2026-11-23T14:00:00Z. Messages of "
            "the hours before are read too, since they may have waited then.",
        ),
    ],
    to_queue: Annotated[str, typer.Option(help="A work queue, such as orders.intake.")],
    until: Annotated[str, typer.Option("--to", help="The latest time of the events.")] = "",
    types: Annotated[
        str,
        typer.Option(help="Such as order.created,order.*; default: all that the queue takes."),
    ] = "",
    done: Annotated[
        bool,
        typer.Option(
            "--done",
            help="Mark them as handled, without effect: after the database was restored from a "
            "backup that does not know of them. Messages that still wait are left alone.",
        ),
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count.")] = False,
    yes: Yes = False,
) -> None:
    """Put messages of the journal into a queue again. Effects that they had are not repeated.

    orders.intake also gets all earlier messages of shops' orders that were not placed or had no
    address yet: without them, orders placed since would not be recorded.

    The audit log records the replay before the first message, and their number at the end.
    """
    queue = next((queue for queue in topology.WORK_QUEUES if queue.name == to_queue), None)
    if queue is None:
        stop(
            f"--to-queue must be one of {', '.join(q.name for q in topology.WORK_QUEUES)}", MISUSED
        )
    wanted = [type_.strip() for type_ in types.split(",") if type_.strip()]
    first = parse_time("--from", since)
    # No limit by default: the clock of this host may be behind that of a publisher.
    last = parse_time("--to", until) if until else None
    system = sign_in()
    if not done and not dry_run:
        require_believed_user(system, queue)
    db = None if dry_run else engine(system)
    if db is not None:
        what = f"what the journal has{' of ' + types if wanted else ''} since {moment(first)}"
        taken = "be taken for handled, with no effect" if done else "be handled again"
        confirm(f"Put {what} into {queue.name}, to {taken}?", yes)
    who = actor(system)
    fact = OpsJournalReplayed(
        **who.fields,
        queue=queue.name,
        since=first,
        until=last or datetime.now(UTC),
        how="done" if done else "again",
        types=wanted,
    )

    def note(messages: int | None = None) -> None:
        if db is not None:
            counted = msgspec.structs.replace(fact, messages=messages)
            audit.commit_facts(db, [audit.about(counted, queue.name)])

    # A message that waited at that time is in no table, and in the journal from before.
    begin = max(first, EPOCH + replaying.WAITED) - replaying.WAITED
    awaiting = replaying.AWAITING if queue == topology.ORDERS_INTAKE and not done else ()
    say(f"What waited at {moment(first)} may be older: the journal is read from {moment(begin)}.")
    extent = reading.Extent()
    summary, trouble = replaying.Summary(), ""
    with (
        database_trouble(),
        broker(system) as source,
        broker(system) as writing,
        progress() as show,
    ):
        show("Reading the journal ...")

        def report(so_far: replaying.Summary) -> None:
            nonlocal summary
            summary = so_far
            show(f"{sum(so_far.counts.values())} messages; read was {extent} ...")

        try:
            summary = replaying.replay(
                writing,
                queue,
                reading.read(source, begin, last, extent, earlier=awaiting),
                types=wanted,
                how="done" if done else "again",
                dry_run=dry_run,
                progress=report,
                begins=note,
            )
        except (replaying.TooManyWaitError, BusyError) as error:
            stop(
                f"Nothing was done: {error}. Stop its services, let other tools end, run it again."
            )
        except reading.NotReadToTheEndError as error:
            trouble = f"The journal was not read to its end: {error}. Run it again."
    with database_trouble():
        if summary.counts:
            note(sum(summary.counts.values()))
    for type_, count in sorted(summary.counts.items()):
        print(f"{count:>9} {type_}")
    if summary.left:
        say(f"{summary.left} still wait for their turn and were left alone.")
    if summary.in_doubt:
        say(
            f"{summary.in_doubt} are in doubt: sent, never confirmed, and in the outbox to be sent "
            "again. It is unknown whether they arrived; they were left alone."
        )
    if summary.unread:
        say(
            f"{summary.unread} batches of the journal cannot be read: their messages are unknown, "
            "and were not replayed."
        )
    if summary.misnamed:
        say(
            f"{summary.misnamed} have a type that does not match the key they were published with, "
            "and were left out: the right to publish with that key does not cover that type."
        )
    verb = "would go" if dry_run else "went"
    say(f"{sum(summary.counts.values())} messages {verb} to {queue.name}; read was {extent}.")
    if trouble:
        stop(trouble)
