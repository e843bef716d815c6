"""`fellow audit`: searching and verifying the audit log."""

import sys
from typing import Annotated

import typer

from services.ops.audit import log
from services.ops.cli.acting import note_view, sign_in
from services.ops.cli.terminal import (
    FAILED,
    MISUSED,
    AsJson,
    Table,
    database,
    find_system,
    local,
    parse_time,
    print_json,
    progress,
    results,
    say,
    stop,
)

app = typer.Typer(help="Who did what, when, from where.", no_args_is_help=True)


@app.command("list")
def list_entries(
    search: Annotated[str, typer.Option(help="A text anywhere in an entry.")] = "",
    type_: Annotated[str, typer.Option("--type", help="Such as kyc.approved or ops.*.")] = "",
    since: Annotated[str, typer.Option(help="The earliest time: 2026-11-23T14:00Z.")] = "",
    until: Annotated[str, typer.Option(help="The time to stop before.")] = "",
    limit: Annotated[int, typer.Option(min=1, help="How many, the newest.")] = 100,
    as_csv: Annotated[bool, typer.Option("--csv", help="For spreadsheets.")] = False,
    as_json: AsJson = False,
) -> None:
    """List entries of the audit log, newest first."""
    system = sign_in()
    with database(system) as session:
        found = log.search(
            session,
            words=search,
            type_=type_,
            since=parse_time("--since", since) if since else None,
            until=parse_time("--until", until) if until else None,
            limit=limit + 1,
        )
    has_more, found = len(found) > limit, found[:limit]
    note_view(system, "fellow audit list", log.rows_of(found))
    if as_json:
        print_json(found)
    elif as_csv:
        log.write_csv(found, sys.stdout)
    else:
        table = Table("", "when", "what", "who", "from", "about")
        for entry in found:
            number, when = str(entry.sequence), local(entry.happened_at)
            about = entry.correlation_id
            table.add_row(number, when, entry.type, entry.actor, entry.address, about)
        results().print(table)
    if has_more:
        say(f"These are the newest {limit:,}: there are more (--limit).")


@app.command()
def verify(
    head: Annotated[
        str, typer.Option(help="A head that an earlier check printed: 12345:6f1d...")
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Check that no row was changed, moved or removed. Exit code 1 if one was."""
    noted = None
    if head:
        sequence, _, hash_ = head.partition(":")
        if not sequence.isdecimal() or len(hash_) != 64:
            stop("--head must be SEQUENCE:HASH, as an earlier check printed it.", MISUSED)
        noted = (int(sequence), hash_.lower())
    with database(find_system()) as session, progress() as show:
        verdict = log.verify(session, noted=noted, progress=lambda rows: show(f"{rows} rows ..."))
    if as_json:
        print_json(verdict)
    else:
        for fault in verdict.faults:
            print(fault.text)
        say(f"{verdict.rows} rows, {len(verdict.faults)} faults. Note the head elsewhere:")
        print(f"{verdict.head[0]}:{verdict.head[1]}")
    if verdict.faults:
        raise typer.Exit(FAILED)
