"""`fellow customer`: export and erasure of a customer's data."""

from datetime import UTC, datetime
from typing import Annotated

import typer
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from services.ops.audit.actions import unfit
from services.ops.broker.connection import BROKER_ERRORS
from services.ops.cli.acting import actor, note_view, sign_in
from services.ops.cli.terminal import (
    MISUSED,
    AsJson,
    Table,
    Yes,
    broker,
    confirm,
    database,
    engine,
    print_json,
    results,
    say,
    stop,
)
from services.ops.customers import customers
from services.ops.customers.customers import UnsearchedPlace
from shared.bus.broker.refusal import explain
from shared.db.session import message_of

app = typer.Typer(
    help="Customers, the recipients of orders: export and erase their data. A business is none: "
    "its owner closes the account (POST /api/v1/users/close/), whose data fellow account show has.",
    no_args_is_help=True,
)

Address = Annotated[
    str, typer.Argument(metavar="EMAIL", help="The customer's address, in any case.")
]


@app.command()
def export(address: Address) -> None:
    """Print all stored data of a customer as JSON, and where there may be more."""
    system = sign_in()
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
    """Erase a customer: orders stay without the personal data, and emails to them stop.

    The audit log keeps a proof without the address. The places are searched again for data that
    moved meanwhile; places that could not be searched are named, and are covered by running it
    again. A later order for the same address is kept.
    """
    if not dry_run and (wrong := unfit(reason)):
        stop(f"--reason {wrong}.", MISUSED)
    system = sign_in()
    db = engine(system)
    if not dry_run:
        confirm(f"Erase all personal data of {address}? There is no way back.", yes)
    done = "counted" if dry_run else "erased"
    with broker(system) as connection:
        try:
            if dry_run:
                with Session(db) as session:
                    outcome = customers.count(session, connection, address)
            else:
                outcome = customers.erase(db, connection, address, actor(system), reason)
        except (customers.NotAPersonError, ValueError) as error:
            stop(f"Nothing was done: {error}.", MISUSED)
        except SQLAlchemyError as error:
            stop(f"Not everything was {done}: {message_of(error)}. Run it again.")
        except BROKER_ERRORS as error:
            why = explain(error).sentence.rstrip(".")
            stop(f"Not everything was {done}: {why}. Run it again.")
    at = datetime.now(UTC)
    left = customers.unsearched_places(outcome, at, system.settings.backup_days)
    if as_json:
        print_json({"at": at, "places": outcome.places, "not_searched": left})
        return
    table = Table("place", "would be erased" if dry_run else "erased")
    for place, touched in sorted(outcome.places.items()):
        table.add_row(place, str(touched))
    if table.row_count:
        results().print(table)
    else:
        say("Nothing is held of this address.")
    _report_unsearched(left)


def _report_unsearched(left: list[UnsearchedPlace]) -> None:
    for place in left:
        until = f" (until {place.forgotten_by:%Y-%m-%d})" if place.forgotten_by else ""
        say(f"Not searched: {place.place}{until}: {place.why}.")
