"""`fellow dead rehearse`: what a replay would do."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from services.ops.cli.acting import actor, note_view, sign_in
from services.ops.cli.messages.bodies import read
from services.ops.cli.messages.dead_options import MessageId, QueueName, work_queue
from services.ops.cli.terminal import (
    FAILED,
    AsJson,
    broker,
    database_trouble,
    engine,
    print_json,
    results,
    say,
    stop,
)
from services.ops.dead_letters import rehearsal
from services.ops.dead_letters.editing import NotEditableError
from services.ops.dead_letters.in_flight import TooManyRehearsalsError
from services.ops.dead_letters.rehearsal import Rehearsal
from shared.db.footprint import Changes


def rehearse(
    queue: QueueName,
    message_id: MessageId,
    body: Annotated[
        Path | None, typer.Option(help="A file with another body, - for standard input.")
    ] = None,
    type_: Annotated[str, typer.Option("--type", help="Another type for it.")] = "",
    as_json: AsJson = False,
) -> None:
    """Show what a replay of a letter would write, publish and mail, without doing it.

    Exit code 1 if it would not be handled.
    """
    system = sign_in()
    chosen, db = work_queue(queue), engine(system)
    new = None if body is None else read(body, yes=True)
    with broker(system) as connection, database_trouble():
        try:
            found = rehearsal.rehearse(
                connection, db, chosen, message_id, actor(system), body=new, type=type_
            )
        except (TooManyRehearsalsError, NotEditableError) as error:
            stop(f"Nothing was tried. {error}")
    if found is None:
        stop(f"There is no dead letter {message_id} in {queue}.")
    note_view(system, "fellow dead rehearse", [queue, message_id, *found.ids])
    if as_json:
        print_json(_json(found))
    else:
        _print(found, results(soft_wrap=True))
    if found.report.outcome not in ("done", "known"):
        raise typer.Exit(FAILED)


def _print(found: Rehearsal, console: Console) -> None:
    console.print(found.report.sentence)
    for change in found.report.changes:
        console.print(f"\n{change.table}: {_numbers(change)}")
        for row in change.rows:
            if row.before is None:
                values = {n: v for n, v in row.values.items() if v not in (None, "", [], {})}
                console.print("  new:")
            else:
                values = {n: f"{v} -> {row.values[n]}" for n, v in row.before.items()}
                console.print("  changed:")
            for name, value in values.items():
                console.print(f"    {name}: {value}")
    for fact in found.facts:
        console.print(f"\n{fact.message.type} to {', '.join(fact.queues) or 'no queue'}:")
        console.print(f"  {fact.message.body.decode()}")
    for email in found.emails:
        console.print(f"\nTo: {email.name} <{email.recipient}>\nSubject: {email.subject}")
        console.print(f"But {email.refusal}" if email.refusal else f"\n{email.text}")
    for queue in found.unanswered:
        say(f"The notifier did not say what it would mail from {queue}: does it run?")
    say("Nothing of this has happened.")


def _numbers(change: Changes) -> str:
    counts = {"new": change.inserted, "changed": change.updated, "removed": change.deleted}
    return ", ".join(f"{count} {word}" for word, count in counts.items() if count)


def _json(found: Rehearsal) -> dict[str, Any]:
    return {
        "outcome": found.report.outcome,
        "sentence": found.report.sentence,
        "changes": found.report.changes,
        "facts": [
            {
                "type": fact.message.type,
                "message_id": fact.message.message_id,
                "queues": fact.queues,
                "body": fact.message.body.decode(),
            }
            for fact in found.facts
        ],
        "emails": found.emails,
        "unanswered": found.unanswered,
    }
