"""`fellow suppressions`: the addresses that a business's emails are not sent to."""

from typing import Annotated

import typer

from services.ops.audit.actions import unfit
from services.ops.cli.acting import actor, note_view, sign_in
from services.ops.cli.businesses.commands import Business, confirm_about, find_business
from services.ops.cli.terminal import (
    MISUSED,
    AsJson,
    Table,
    Yes,
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
    help="Customers who unsubscribed from a business, and addresses that were refused for good.",
    no_args_is_help=True,
)


@app.command("list")
def show(business: Business, as_json: AsJson = False) -> None:
    """List the suppressed addresses of a business, newest first."""
    system = sign_in()
    account_id = find_business(system, business).account_id
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
    table = Table("since", "cause", "address", "order", "response")
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
        say("None: no address is suppressed.")


@app.command()
def lift(
    business: Business,
    address: Annotated[str, typer.Argument(help="The address, in any case.")],
    reason: Annotated[str, typer.Option(help="Why; kept in the audit log.")] = "",
    yes: Yes = False,
) -> None:
    """Lift the suppression of an address that the mail server had refused.

    Customers who unsubscribed can only come back themselves.
    """
    if reason and (wrong := unfit(reason)):
        stop(f"--reason {wrong}.", MISUSED)
    system = sign_in()
    whose = find_business(system, business)
    account_id = whose.account_id
    with database(system) as session:
        found = suppressions.of_address(session, account_id, address)
        refused = [one.id for one in found if one.cause == "refused"]
    if not refused:
        stop(
            "The customer has left: only they can come back, by the link in an email."
            if found
            else "No email to this address is suppressed."
        )
    confirm_about(f"Mail {address} again for", whose, "", yes)
    with database_trouble():
        db = engine(system)
        for id_ in refused:
            suppressions.lift(db, account_id, id_, actor(system), reason)
    say("The address is mailed again.")
