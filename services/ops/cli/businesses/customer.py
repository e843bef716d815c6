"""`fellow customer`: what is held of a person, and its end."""

from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.table import Table
from sqlalchemy.orm import Session

from services.ops.cli.acting import actor, enter, note_view
from services.ops.cli.terminal import (
    FAILED,
    MISUSED,
    AsJson,
    Yes,
    broker,
    confirm,
    database,
    database_trouble,
    engine,
    print_json,
    results,
    say,
    stop,
)
from services.ops.customers import customers
from services.ops.customers.customers import Elsewhere
from shared.bus.broker.confirmed import NotPublishedError

app = typer.Typer(
    help="Those whom orders are for: what is held of one, and its end. A business's own account is "
    "none of these: its owner closes it (POST /api/v1/users/close/), and fellow account show "
    "says what is held of it.",
    no_args_is_help=True,
)

Address = Annotated[
    str, typer.Argument(metavar="EMAIL", help="The customer's address, in whatever case.")
]


@app.command()
def export(address: Address) -> None:
    """Everything that is held of a customer, as JSON, and where there may be more."""
    system = enter()
    with database(system) as session, broker(system) as connection:
        try:
            held = customers.export(session, connection, address, system.settings.backup_days)
        except customers.NotAPersonError as error:
            stop(f"{error}.", MISUSED)
    note_view(system, "fellow customer export")
    print_json(held)


@app.command()
def erase(
    address: Address,
    reason: Annotated[
        str,
        typer.Option(help="Why, such as the number of the request; kept in the audit log."),
    ] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count.")] = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Erase a customer: orders stay without the person, and nothing more is mailed.

    A proof without the address stays in the audit log. What is under way meanwhile is looked for
    once more; what some process has in hand is named, and found by running it again. An order for
    the same address that comes afterwards is a new matter.
    """
    if not dry_run and not reason.strip():
        stop("--reason must say why.", MISUSED)
    system = enter()
    books = engine(system)
    if not dry_run:
        confirm(f"Erase all personal data of {address}? There is no way back.", yes)
    with broker(system) as connection, database_trouble():
        try:
            if dry_run:
                with Session(books) as session:
                    outcome = customers.count(session, connection, address)
            else:
                outcome = customers.erase(books, connection, address, actor(system), reason)
        except (customers.NotAPersonError, ValueError) as error:
            stop(f"Nothing was done: {error}.", MISUSED)
        except NotPublishedError as error:
            stop(f"Not everything was done: {error}. Run it again.", FAILED)
    at = datetime.now(UTC)
    left = customers.elsewhere(outcome, at, system.settings.backup_days)
    if as_json:
        print_json({"at": at, "places": outcome.places, "not_searched": left})
        return
    table = Table("place", "would be erased" if dry_run else "erased", box=None, pad_edge=False)
    for place, touched in sorted(outcome.places.items()):
        table.add_row(place, str(touched))
    if table.row_count:
        results().print(table)
    else:
        say("Nothing is held of this address.")
    _tell_where_else(left)


def _tell_where_else(left: list[Elsewhere]) -> None:
    for place in left:
        until = f" (until {place.forgotten_by:%Y-%m-%d})" if place.forgotten_by else ""
        say(f"Not searched: {place.place}{until}: {place.why}.")
