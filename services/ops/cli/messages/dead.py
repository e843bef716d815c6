"""`fellow dead`: listing dead letters; the actions on them are in `dead_actions.py`."""

from typing import Annotated, Any

import typer

from services.ops.broker.hold import MOST
from services.ops.cli.acting import note_view_if_possible, sign_in
from services.ops.cli.messages import dead_actions, dead_rehearsal
from services.ops.cli.messages.dead_options import (
    About,
    MessageId,
    Older,
    QueueName,
    Reason,
    Type,
    Younger,
    criteria,
    queue_names,
    work_queue,
)
from services.ops.cli.terminal import (
    BUSY,
    AsJson,
    Table,
    broker,
    database_trouble,
    find_system,
    local,
    print_json,
    results,
    say,
    stop,
)
from services.ops.dead_letters import retry_queue, search
from services.ops.dead_letters.letter import Letter
from services.ops.environment import Target
from shared.bus.contract import topology

app = typer.Typer(
    help="Dead letters: messages that no consumer could handle.", no_args_is_help=True
)
app.command()(dead_rehearsal.rehearse)
app.command()(dead_actions.replay)
app.command()(dead_actions.discard)
app.command()(dead_actions.edit)
app.command("retry-now")(dead_actions.retry)


@app.command("list")
def list_letters(
    queue: Annotated[
        str | None,
        typer.Argument(
            metavar="[QUEUE]",
            help="A work queue; without it all queues, by reason.",
            autocompletion=queue_names,
        ),
    ] = None,
    reason: Reason = "",
    type_: Type = "",
    about: About = "",
    older: Older = "",
    younger: Younger = "",
    start: Annotated[int, typer.Option(min=0, help="The position to begin at.")] = 0,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many.")] = 100,
    as_json: AsJson = False,
) -> None:
    """A queue's dead letters, oldest death first; without a queue, a summary by reason."""
    if queue is None:
        _summary(find_system(), as_json)
        return
    system = sign_in()
    wanted = criteria((), reason, type_, about, older, younger)
    with broker(system) as connection, database_trouble():
        page = search.browse(
            connection,
            work_queue(queue),
            wanted,
            start=start,
            limit=limit,
        )
    seen = [queue, f"{len(page.letters)} letters from {start}"]
    note_view_if_possible(system, "fellow dead list", seen)
    if as_json:
        print_json(
            {
                "letters": [_json(x) for x in page.letters],
                "total": page.total,
                "next": page.next,
                "alone": page.alone,
                "unseen": page.unseen,
            }
        )
        return
    table = Table("died", "id", "type", "tries", "reason")
    for letter in page.letters:
        tries = str(letter.attempts)
        died = local(letter.failed_at)
        table.add_row(died, letter.message_id, letter.type, tries, letter.reason)
    results().print(table)
    say(f"{len(page.letters)} of {page.total} dead letters.")
    if page.next is not None:
        say(f"Go on with --start {page.next}.")
    _report_missing(page.alone, page.unseen)


@app.command("waiting")
def list_waiting(
    queue: Annotated[
        str | None,
        typer.Argument(
            metavar="[QUEUE]", help="A work queue; all without it.", autocompletion=queue_names
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """The failed messages that wait on the retry ladder for their next attempt, by delay queue."""
    system = sign_in()
    wanted = None if queue is None else work_queue(queue).name
    with broker(system) as connection, database_trouble():
        ladder = retry_queue.waiting(connection)
    found = (ladder if wanted is None else ladder.of(wanted)).messages
    seen = [wanted or "all queues", f"{len(found)} messages"]
    note_view_if_possible(system, "fellow dead waiting", seen)
    if as_json:
        _report_missing(ladder.alone, ladder.unseen)
        print_json(found)
        return
    table = Table("rung", "failed", "next try", "for", "type", "tries", "reason", "about")
    for message in found:
        table.add_row(
            message.rung,
            message.failed_at,
            local(message.due),
            message.queue,
            message.type,
            str(message.attempts),
            message.reason,
            message.correlation_id,
        )
    results().print(table)
    say(f"{len(found)} wait on the retry ladder.")
    _report_missing(ladder.alone, ladder.unseen)


@app.command()
def show(queue: QueueName, message_id: MessageId, as_json: AsJson = False) -> None:
    """One letter: its body, its headers, why each attempt failed."""
    system = sign_in()
    with broker(system) as connection, database_trouble():
        letter = search.find(connection, work_queue(queue), message_id)
    if letter is None:
        stop(f"There is no dead letter {message_id} in {queue}.")
    note_view_if_possible(system, "fellow dead show", [queue, message_id])
    if as_json:
        print_json(_json(letter))
        return
    console = results(soft_wrap=True)
    console.print(f"{letter.type} {letter.message_id}, about {letter.correlation_id or 'nothing'}")
    console.print(f"died {local(letter.failed_at)} after {letter.attempts} attempts:")
    for reason in letter.reasons or (letter.reason,):
        console.print(f"  {reason}")
    for name, value in sorted(letter.incoming.headers.items()):
        console.print(f"{name}: {value}")
    console.print(f"\n{letter.text}")


def _summary(system: Target, as_json: bool) -> None:
    with broker(system) as connection, database_trouble():
        found = {queue.name: search.summarise(connection, queue) for queue in topology.WORK_QUEUES}
    if as_json:
        print_json(found)
        return
    table = Table("queue", "letters", "type", "died", "of")
    for name, summary in found.items():
        for group in summary.groups:
            since = local(group.oldest)
            table.add_row(name, str(group.count), group.type, since, group.kind)
    results().print(table)
    say(f"{sum(summary.total for summary in found.values())} dead letters.")
    summaries = found.values()
    _report_missing(all(one.alone for one in summaries), sum(one.unseen for one in summaries))


def _report_missing(alone: bool, unseen: int) -> None:
    """Report which letters may be missing from the output."""
    if not alone:
        say(BUSY)
    if unseen:
        say(f"{unseen} more were not looked at: one look takes {MOST:,} of a queue.")


def _json(letter: Letter) -> dict[str, Any]:
    return {
        "queue": letter.queue,
        "position": letter.position,
        "message_id": letter.message_id,
        "type": letter.type,
        "reason": letter.reason,
        "reasons": letter.reasons,
        "attempts": letter.attempts,
        "failed_at": letter.failed_at,
        "first_failed_at": letter.first_failed_at,
        "correlation_id": letter.correlation_id,
        "consumer": letter.consumer,
        "user": letter.user,
        "headers": {name: str(value) for name, value in letter.incoming.headers.items()},
        "body": letter.text,
    }
