"""`fellow outbox`: messages that the relay cannot publish as they are."""

import subprocess
import sys
import tempfile
from os import environ
from pathlib import Path
from shlex import split
from typing import Annotated

import typer
from rich.table import Table
from sqlalchemy.orm import Session

from services.ops import parked_messages
from services.ops.cli.acting import actor, enter, note_view
from services.ops.cli.terminal import (
    FAILED,
    MISUSED,
    AsJson,
    Yes,
    confirm,
    database,
    database_trouble,
    engine,
    local,
    print_json,
    results,
    say,
    stop,
)

app = typer.Typer(help="Messages that the relay cannot publish as they are.", no_args_is_help=True)

Number = Annotated[
    int, typer.Argument(metavar="NUMBER", help="Of the row: see fellow outbox list.")
]
Numbers = Annotated[
    list[int] | None, typer.Argument(metavar="[NUMBER]...", help="Of the rows; or say --all.")
]
All = Annotated[bool, typer.Option("--all", help="All that are parked.")]


@app.command("list")
def list_parked(
    after: Annotated[int, typer.Option(min=0, help="Only rows of a higher number.")] = 0,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many.")] = 100,
    as_json: AsJson = False,
) -> None:
    """What is parked, in the order in which it was written."""
    system = enter()
    with database(system) as session:
        found = parked_messages.listed(session, after=after, limit=limit)
        total = parked_messages.count(session)
    if found:
        note_view(system, "fellow outbox list", [f"{len(found)} messages from {found[0].number}"])
    if as_json:
        print_json({"messages": found, "total": total})
        return
    table = Table("number", "type", "by", "tries", "next try", "reason", box=None, pad_edge=False)
    for one in found:
        tries, next_try = str(one.attempts), local(one.next_try_at)
        table.add_row(str(one.number), one.type, one.written_by, tries, next_try, one.reason)
    results().print(table)
    say(f"{len(found)} of {total} parked messages.")


@app.command()
def show(number: Number, as_json: AsJson = False) -> None:
    """One message: why it is parked, and its body."""
    system = enter()
    with database(system) as session:
        one = parked_messages.find(session, number)
    if one is None:
        stop(f"No message {number} is parked.")
    note_view(system, "fellow outbox show", [one.message_id])
    if as_json:
        print_json(one)
        return
    console = results(soft_wrap=True)
    console.print(f"{one.type} {one.message_id}, about {one.correlation_id or 'nothing'}")
    console.print(f"for exchange {one.exchange!r} with key {one.routing_key!r}")
    console.print(f"written by {one.written_by} {local(one.written_at)}")
    console.print(
        f"parked {local(one.parked_at)}, tried {one.attempts} times, "
        f"again {local(one.next_try_at)}:"
    )
    console.print(f"  {one.reason}\n\n{one.body}")


@app.command()
def retry(numbers: Numbers = None, every: All = False, yes: Yes = False) -> None:
    """Let the relay try messages now, and not when their time comes."""
    wanted = _wanted(numbers, every)
    confirm(f"Try {_in_words(wanted)} now?", yes)
    system = enter()
    with database_trouble(), Session(engine(system)) as session, session.begin():
        done = parked_messages.retry(session, wanted, actor(system))
    _report(done, "will be tried now", wanted)


@app.command()
def discard(
    because: Annotated[str, typer.Option(help="Why; kept in the audit log.")],
    numbers: Numbers = None,
    every: All = False,
    yes: Yes = False,
) -> None:
    """Throw messages away: whoever should have been told is not."""
    if not because.strip():
        stop("--because must say why.", MISUSED)
    wanted = _wanted(numbers, every)
    system = enter()
    up_to = None
    words = _in_words(wanted)
    if every:
        with database(system) as session:
            total, up_to = parked_messages.counted(session)
        words = f"all parked messages, {total:,}, the last of them {up_to},"
    confirm(f"Throw {words} away?", yes)
    with database_trouble(), Session(engine(system)) as session, session.begin():
        done = parked_messages.discard(session, wanted, actor(system), because, up_to=up_to)
    _report(done, "discarded", wanted)


@app.command()
def edit(
    number: Number,
    body: Annotated[
        Path | None,
        typer.Option(help="A file with the new body, - for standard input; else $EDITOR opens."),
    ] = None,
    about: Annotated[
        str | None, typer.Option(help="Another order or account that it is about.")
    ] = None,
    yes: Yes = False,
) -> None:
    """Give a message another body, if its consumers would understand that one, and try it now."""
    system = enter()
    with database(system) as session:
        one = parked_messages.find(session, number)
    if one is None:
        stop(f"No message {number} is parked.")
    note_view(system, "fellow outbox edit", [one.message_id])
    new = _new_body(one.body, body, unchanged_will_do=about is not None)
    confirm(f"Publish {one.type} {one.message_id} with this body?", yes)
    with database_trouble(), Session(engine(system)) as session, session.begin():
        try:
            found = parked_messages.edit(
                session, number, new, actor(system), correlation_id=about, digest=one.digest
            )
        except (parked_messages.NotMendedError, parked_messages.ChangedError) as error:
            stop(f"Nothing was done. {error}")
    if not found:
        stop(f"Message {number} is not parked any more.")
    say("It will be tried now, with the new body.")


def _wanted(numbers: list[int] | None, every: bool) -> list[int] | None:
    if bool(numbers) == every:
        stop("Name the numbers of rows, or say --all.", MISUSED)
    return None if every else numbers


def _in_words(wanted: list[int] | None) -> str:
    if wanted is None:
        return "all parked messages"
    return "this message" if len(wanted) == 1 else f"these {len(wanted)} messages"


def _report(done: int, what: str, wanted: list[int] | None) -> None:
    say(f"{done} {what}.")
    if wanted is not None and done < len(wanted):
        say(f"{len(wanted) - done} of those named are not parked.")
        raise typer.Exit(FAILED)


def _new_body(old: str, body: Path | None, *, unchanged_will_do: bool) -> bytes:
    if body is not None:
        return sys.stdin.buffer.read() if str(body) == "-" else body.read_bytes()
    if unchanged_will_do:
        return old.encode()
    editor = environ.get("VISUAL") or environ.get("EDITOR") or "vi"
    with tempfile.NamedTemporaryFile("w", suffix=".json", encoding="utf-8") as file:
        file.write(old)
        file.flush()
        try:
            subprocess.run([*split(editor), file.name], check=True)  # noqa: S603 - the user's own
        except (OSError, ValueError, subprocess.CalledProcessError) as error:
            stop(f"The editor {editor!r} did not do it: {error}. Set EDITOR, or say --body FILE.")
        new = Path(file.name).read_bytes()
    if new == old.encode():
        stop("Nothing was changed, and nothing done.")
    return new
