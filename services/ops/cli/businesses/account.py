"""`fellow account`: what happened to a business."""

from typing import Annotated

import msgspec
import typer
from rich.table import Table

from services.ops.broker.hold import NOT_WHOLE
from services.ops.cli.acting import enter, note_view
from services.ops.cli.businesses.commands import (
    Business,
    Wait,
    carry_out,
    how_many,
    sure,
    the_business,
)
from services.ops.cli.businesses.trail import waiting_table
from services.ops.cli.terminal import (
    FAILED,
    MISUSED,
    AsJson,
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
    """Block a business: nobody signs in, its sessions and webhook secrets are refused."""
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
    system = enter()
    found = the_business(system, business)
    try:
        command = msgspec.convert(
            {"account_id": found.account_id, "blocked": blocked, "reason": reason}, AccountBlock
        )
    except msgspec.ValidationError:
        stop("The reason may have up to 4,000 characters, without NUL.", MISUSED)
    sure("Block" if blocked else "Unblock", found.company_name, found.email, "", yes)
    if carry_out(system, command, wait):
        say(f"{found.company_name} <{found.email}> is {'' if blocked else 'no longer '}blocked.")


@app.command()
def show(
    business: Annotated[
        str,
        typer.Argument(help="Account id, email, registration number or a part of the name."),
    ],
    bus: Annotated[
        bool, typer.Option(help="Look for what waits on the retry ladder and among dead letters.")
    ] = True,
    as_json: AsJson = False,
) -> None:
    """What happened to a business: KYC, its secrets' lives, its orders, emails, what waits."""
    system = enter()
    with database(system) as session:
        ids = account.find(session, business)
        if not ids:
            stop(f"No business matches {business}.")
        if len(ids) > 1:
            listed = account.lines(session, ids[: account.AT_MOST])
            note_view(system, "fellow account show", [str(id_) for id_ in ids])
            for line in listed:
                results(soft_wrap=True).print(
                    f"{line.account_id}  {line.email}  {line.company_name}"
                )
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


def _print(found: AccountTrail) -> None:
    console = results()
    proved = local(found.email_verified_at) or "never"
    console.print(f"{found.company_name} <{found.email}> {found.account_id}")
    console.print(f"registered {local(found.created_at)}, address proved {proved}")
    by_status = sorted((found.orders or {}).items())
    orders = ", ".join(f"{count} {status}" for status, count in by_status) or "none"
    if found.orders is None:
        orders = "too many to be counted at once"
    today = "too many" if found.orders_today is None else found.orders_today
    console.print(f"orders: {orders}; {today} in the last 24 hours")
    if found.refusals:
        refused = ", ".join(f"{count} {code}" for code, count in found.refusals.items())
        console.print(f"refused in the last 24 hours: {refused}")
    kyc = Table("submitted", "KYC", "number", "decided", "by", "reason", box=None, pad_edge=False)
    for application in found.applications:
        kyc.add_row(
            local(application.submitted_at),
            application.status,
            application.business_registration_number,
            local(application.decided_at),
            application.decided_by or "",
            application.reason,
        )
    secrets = Table("issued", "secret", "id", "until", "revoked", box=None, pad_edge=False)
    for secret in found.secrets:
        secrets.add_row(
            local(secret.issued_at),
            " ".join(filter(None, (secret.state, secret.platform, secret.shop))),
            str(secret.id),
            local(secret.expires_at),
            local(secret.revoked_at),
        )
    emails = Table("sent", "email", "state", "answer", box=None, pad_edge=False)
    for email in found.emails:
        emails.add_row(local(email.at), email.template, email.state, email.response)
    for table in (kyc, secrets, emails):
        if table.row_count:
            console.print(table)
    if found.waiting:
        console.print(waiting_table(found.waiting))
    if not found.is_whole:
        say(NOT_WHOLE)
