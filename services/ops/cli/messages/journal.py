"""`fellow journal`: the record of the last seven days, said again."""

from datetime import UTC, datetime
from typing import Annotated

import msgspec
import typer

from services.ops.audit import actions as audit
from services.ops.broker.hold import BusyError
from services.ops.cli.acting import actor, enter, vouch
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
"""Before it AMQP has no times."""

app = typer.Typer(help="The record of the last seven days.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    # Without it a group of one command would be that command.
    pass


@app.command()
def replay(
    since: Annotated[
        str,
        typer.Option(
            "--from",
            help="Since when they may not have been handled: 2026-11-23T14:00:00Z. What was "
            "written in the hours before is read too, since it may have waited then.",
        ),
    ],
    to_queue: Annotated[str, typer.Option(help="A work queue, such as orders.intake.")],
    until: Annotated[str, typer.Option("--to", help="When they happened at the latest.")] = "",
    types: Annotated[
        str,
        typer.Option(help="Such as order.created,order.*; without it all that the queue is for."),
    ] = "",
    done: Annotated[
        bool,
        typer.Option(
            "--done",
            help="Have them taken for handled, with no effect: after the database was restored "
            "from a backup that does not know of them. What still waits is left alone.",
        ),
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count.")] = False,
    yes: Yes = False,
) -> None:
    """Put messages of the journal into a queue again. What they did before is not done twice.

    Into orders.intake first whatever else the journal has of shops' orders that were not placed or
    had no address yet: without it those that were placed since would not be recorded.

    The audit log is told before the first of them, and how many they were at the end.
    """
    queue = next((queue for queue in topology.WORK_QUEUES if queue.name == to_queue), None)
    if queue is None:
        stop(
            f"--to-queue must be one of {', '.join(q.name for q in topology.WORK_QUEUES)}", MISUSED
        )
    wanted = [type_.strip() for type_ in types.split(",") if type_.strip()]
    first = parse_time("--from", since)
    # Without it all that there is: this host's clock may be behind theirs who have said it.
    last = parse_time("--to", until) if until else None
    system = enter()
    if not done and not dry_run:
        vouch(system, queue)
    books = None if dry_run else engine(system)
    if books is not None:
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
        if books is not None:
            told = msgspec.structs.replace(fact, messages=messages)
            audit.tell(books, [audit.about(told, queue.name)])

    # Whatever waited at that time was in nobody's books, and is in the journal from before.
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

        def tell(so_far: replaying.Summary) -> None:
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
                progress=tell,
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
            "again. Whether they were told is not known; they were left alone."
        )
    if summary.unread:
        say(
            f"{summary.unread} batches of the journal cannot be read: what is in them is not "
            "known, and was not replayed."
        )
    if summary.misnamed:
        say(
            f"{summary.misnamed} say a type that is not of the key they were published with, and "
            "were left out: whoever may publish the one may not say the other by it."
        )
    verb = "would go" if dry_run else "went"
    say(f"{sum(summary.counts.values())} messages {verb} to {queue.name}; read was {extent}.")
    if trouble:
        stop(trouble)
