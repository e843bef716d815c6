"""`fellow suppressions`: whom a business's emails do not go to."""

from typing import Annotated

import typer
from rich.table import Table

from services.ops.cli.acting import actor, enter, note_view
from services.ops.cli.businesses.commands import Business, the_business
from services.ops.cli.terminal import (
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
from services.ops.customers import suppressions

app = typer.Typer(
    help="Customers who have left a business, and addresses that were refused for good.",
    no_args_is_help=True,
)


@app.command("list")
def show(business: Business, as_json: AsJson = False) -> None:
    """Whom a business's emails do not go to, newest first."""
    system = enter()
    account_id = the_business(system, business).account_id
    with database(system) as session:
        known = suppressions.of_business(session, account_id)
        found = known[: suppressions.AT_MOST]
        rows = [
            {
                "since": one.since,
                "cause": one.cause,
                "address": one.address,
                "order_id": one.order_id,
                "response": one.response,
            }
            for one in found
        ]
    note_view(system, "fellow suppressions list", [str(account_id)])
    if len(known) > len(found):
        say(f"These are the newest {len(found):,}: there are more.")
    if as_json:
        print_json(rows)
        return
    table = Table("since", "cause", "address", "order", "response", box=None, pad_edge=False)
    for one in found:
        table.add_row(
            local(one.since),
            one.cause,
            one.address or "(erased)",
            str(one.order_id) if one.order_id else "all",
            one.response,
        )
    if rows:
        results().print(table)
    else:
        say("None: everybody is mailed.")


@app.command()
def lift(
    business: Business,
    address: Annotated[str, typer.Argument(help="The address, in whatever case.")],
    reason: Annotated[str, typer.Option(help="Why; kept in the audit log.")] = "",
    yes: Yes = False,
) -> None:
    """Have an address mailed again that the mail server had refused.

    Whoever has left comes back by themselves alone.
    """
    system = enter()
    account_id = the_business(system, business).account_id
    with database(system) as session:
        found = suppressions.of_address(session, account_id, address)
        refused = [one.id for one in found if one.cause == "refused"]
    if not refused:
        stop(
            "The customer has left: only they can come back, by the link in an email."
            if found
            else "No email to this address is suppressed."
        )
    confirm(f"Mail {address} again for this business?", yes)
    with database_trouble():
        books = engine(system)
        for id_ in refused:
            suppressions.lift(books, account_id, id_, actor(system), reason)
    say("The address is mailed again.")
