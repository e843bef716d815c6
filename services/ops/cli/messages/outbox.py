"""`fellow outbox`: parked messages, which the relay cannot publish."""

from contextlib import nullcontext
from typing import Annotated

import typer
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from services.ops import parked_messages
from services.ops.audit.actions import unfit
from services.ops.cli.acting import actor, note_view, sign_in
from services.ops.cli.messages.bodies import NewBody, edited, read
from services.ops.cli.terminal import (
    FAILED,
    MISUSED,
    AsJson,
    Table,
    Yes,
    confirm,
    database,
    database_trouble,
    engine,
    local,
    print_json,
    progress,
    results,
    say,
    stop,
)

app = typer.Typer(help="Parked messages, which the relay cannot publish.", no_args_is_help=True)

Number = Annotated[
    int, typer.Argument(metavar="NUMBER", help="The row's number, from fellow outbox list.")
]
Numbers = Annotated[
    list[int] | None, typer.Argument(metavar="[NUMBER]...", help="Row numbers; or give --all.")
]
All = Annotated[bool, typer.Option("--all", help="All that are parked.")]


@app.command("list")
def list_parked(
    after: Annotated[int, typer.Option(min=0, help="Only rows with a higher number.")] = 0,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many.")] = 100,
    as_json: AsJson = False,
) -> None:
    """List the parked messages in the order of writing."""
    system = sign_in()
    with database(system) as session:
        found = parked_messages.listed(session, after=after, limit=limit)
        total = parked_messages.count(session)
    if found:
        note_view(system, "fellow outbox list", [f"{len(found)} messages from {found[0].number}"])
    if as_json:
        print_json({"messages": found, "total": total})
        return
    table = Table("number", "type", "by", "tries", "next try", "reason")
    for one in found:
        tries, next_try = str(one.attempts), local(one.next_try_at)
        table.add_row(str(one.number), one.type, one.written_by, tries, next_try, one.reason)
    results().print(table)
    say(f"{len(found)} of {total} parked messages.")


@app.command()
def show(number: Number, as_json: AsJson = False) -> None:
    """Show one message: why it is parked, and its body."""
    system = sign_in()
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
    mended = f", mended by {one.mended_by}" if one.mended_by else ""
    console.print(f"written by {one.written_by} {local(one.written_at)}{mended}")
    console.print(
        f"parked {local(one.parked_at)}, tried {one.attempts} times, "
        f"again {local(one.next_try_at)}:"
    )
    console.print(f"  {one.reason}\n\n{one.body}")


@app.command()
def retry(numbers: Numbers = None, every: All = False, yes: Yes = False) -> None:
    """Let the relay try messages now, instead of at their next time."""
    wanted = _wanted(numbers, every)
    system = sign_in()
    db = engine(system)
    words, up_to = _describe(db, wanted)
    confirm(f"Try {words} now?", yes)
    if wanted is None:
        with database_trouble(), progress() as show:
            done = parked_messages.retry_all(
                db, actor(system), up_to, lambda so_far: show(f"{so_far} will be tried now")
            )
    else:
        with database_trouble(), Session(db) as session, session.begin():
            done = parked_messages.retry(session, wanted, actor(system))
    _report(done, "will be tried now", wanted)


@app.command()
def discard(
    because: Annotated[str, typer.Option(help="Why; kept in the audit log.")],
    numbers: Numbers = None,
    every: All = False,
    yes: Yes = False,
) -> None:
    """Discard messages: their recipients never get them."""
    if wrong := unfit(because):
        stop(f"--because {wrong}.", MISUSED)
    wanted = _wanted(numbers, every)
    system = sign_in()
    db = engine(system)
    words, up_to = _describe(db, wanted)
    confirm(f"Throw {words} away?", yes)
    if wanted is None:
        with database_trouble(), progress() as show:
            done = parked_messages.discard_all(
                db, actor(system), because, up_to, lambda so_far: show(f"{so_far} discarded")
            )
    else:
        with database_trouble(), Session(db) as session, session.begin():
            done = parked_messages.discard(session, wanted, actor(system), because)
    _report(done, "discarded", wanted)


@app.command()
def edit(
    number: Number,
    body: NewBody = None,
    about: Annotated[
        str | None, typer.Option(help="Another order or account that it is about.")
    ] = None,
    yes: Yes = False,
) -> None:
    """Replace a message's body, if its consumers would understand that, and try it now."""
    system = sign_in()
    given = None if body is None else read(body, yes)
    with database(system) as session:
        one = parked_messages.find(session, number)
    if one is None:
        stop(f"No message {number} is parked.")
    note_view(system, "fellow outbox edit", [one.message_id])
    if given is None and about is not None:
        given = one.body.encode()

    def is_wrong(new: bytes) -> str:
        try:
            parked_messages.validate(one, new, one.correlation_id if about is None else about)
        except parked_messages.NotMendedError as error:
            return str(error)
        return ""

    with nullcontext(given) if given is not None else edited(one.body, is_wrong) as new:
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


def _describe(db: Engine, wanted: list[int] | None) -> tuple[str, int]:
    """Describe the messages for a question; also returns the highest row number counted."""
    if wanted is None:
        with database_trouble(), Session(db) as session:
            total, up_to = parked_messages.counted(session)
        return f"all parked messages, {total:,}, the last of them {up_to},", up_to
    return "this message" if len(wanted) == 1 else f"these {len(wanted)} messages", 0


def _report(done: int, what: str, wanted: list[int] | None) -> None:
    say(f"{done} {what}.")
    if wanted is not None and done < len(wanted):
        say(f"{len(wanted) - done} of those named are not parked.")
        raise typer.Exit(FAILED)
