"""`fellow account`: a business's history, and blocking it."""

from typing import Annotated

import typer

from services.ops.broker.hold import NOT_WHOLE
from services.ops.cli.acting import note_view, sign_in
from services.ops.cli.businesses.commands import (
    Business,
    Wait,
    carry_out,
    confirm_about,
    find_business,
    how_many,
    named,
    with_reason,
)
from services.ops.cli.businesses.secrets import report_omitted, table_of
from services.ops.cli.businesses.trail import waiting_table
from services.ops.cli.terminal import (
    FAILED,
    AsJson,
    Table,
    Yes,
    broker,
    database,
    local,
    print_json,
    results,
    say,
    stop,
)
from services.ops.timelines import account
from services.ops.timelines.account import AccountTrail
from shared.bus.contract.events import AccountBlock

app = typer.Typer(help="Businesses.", no_args_is_help=True)


@app.command()
def block(
    business: Business,
    reason: Annotated[str, typer.Option(help="What the business is told.")],
    wait: Wait = 5.0,
    yes: Yes = False,
) -> None:
    """Block a business: nobody can sign in, its sessions and webhook secrets are refused."""
    _set_blocked(business, reason, wait, yes, blocked=True)


@app.command()
def unblock(
    business: Business,
    reason: Annotated[str, typer.Option(help="What the business is told.")] = "",
    wait: Wait = 5.0,
    yes: Yes = False,
) -> None:
    """Let a blocked business in again; its secrets work as before."""
    _set_blocked(business, reason, wait, yes, blocked=False)


def _set_blocked(business: str, reason: str, wait: float, yes: bool, *, blocked: bool) -> None:
    system = sign_in()
    found = find_business(system, business)
    fields = {"account_id": found.account_id, "blocked": blocked}
    command = with_reason(AccountBlock, fields, reason, found.email)
    confirm_about("Block" if blocked else "Unblock", found, "", yes)
    if carry_out(system, command, wait):
        say(f"{named(found)} is {'' if blocked else 'no longer '}blocked.")


@app.command()
def show(
    business: Annotated[
        str,
        typer.Argument(help="Account id, email, registration number or a part of the name."),
    ],
    bus: Annotated[
        bool, typer.Option(help="Search the retry ladder and the dead letters, too.")
    ] = True,
    as_json: AsJson = False,
) -> None:
    """A business's history: KYC, secrets, orders, emails, and what still waits."""
    system = sign_in()
    with database(system) as session:
        ids = account.find(session, business)
        if not ids:
            stop(f"No business matches {business}.")
        if len(ids) > 1:
            listed = account.lines(session, ids[: account.AT_MOST])
            note_view(system, "fellow account show", [str(id_) for id_ in ids])
            for line in listed:
                address = "closed" if line.closed_at else line.email
                results(soft_wrap=True).print(f"{line.account_id}  {address}  {line.company_name}")
            say(f"{how_many(len(ids))} match: name one by its id or email.")
            raise typer.Exit(FAILED)
        if bus:
            with broker(system) as connection:
                one = account.account_trail(session, ids[0], connection=connection)
        else:
            one = account.account_trail(session, ids[0])
    if one is None:
        stop(f"No business matches {business}.")
    note_view(system, "fellow account show", [str(one.account_id)])
    if as_json:
        print_json(one)
    else:
        _print(one)
    report_omitted(one)
    if len(one.emails) == account.AT_MOST:
        say(f"Of emails the newest {account.AT_MOST} are shown.")


def _print(found: AccountTrail) -> None:
    console = results()
    proved = local(found.email_verified_at) or "never"
    console.print(f"{named(found)} {found.account_id}")
    console.print(f"registered {local(found.created_at)}, address proved {proved}")
    if found.closed_at:
        console.print(f"closed its account {local(found.closed_at)}")
    if found.blocked_at:
        console.print(f"blocked since {local(found.blocked_at)}")
    rate = f"{found.rate} requests" if found.rate else "the default number of requests"
    networks = ", ".join(found.allowed_networks) or "anywhere"
    only = ", by Standard Webhooks only" if found.is_standard_only else ""
    console.print(f"may send {rate} a second to each worker, from {networks}{only}")
    by_status = sorted((found.orders or {}).items())
    orders = ", ".join(f"{count} {status}" for status, count in by_status) or "none"
    if found.orders is None:
        orders = "too many to be counted at once"
    today = "too many" if found.orders_today is None else found.orders_today
    console.print(f"orders: {orders}; {today} in the last 24 hours")
    if found.refusals:
        refused = ", ".join(f"{count} {code}" for code, count in found.refusals.items())
        least = "" if found.refusals_are_all else "at least "
        console.print(f"refused in the last 24 hours: {least}{refused}")
    elif not found.refusals_are_all:
        console.print("refused in the last 24 hours: some, of which the log has kept none")
    kyc = Table("submitted", "KYC", "number", "decided", "by", "reason")
    for application in found.applications:
        kyc.add_row(
            local(application.submitted_at),
            application.status,
            application.business_registration_number,
            local(application.decided_at),
            application.decided_by or "",
            application.reason,
        )
    emails = Table("sent", "email", "state", "answer")
    for email in found.emails:
        emails.add_row(local(email.at), email.template, email.state, email.response)
    for table in (kyc, table_of(found), emails):
        if table.row_count:
            console.print(table)
    if found.waiting:
        console.print(waiting_table(found.waiting))
    if not found.is_whole:
        say(NOT_WHOLE)
