"""`fellow kyc`: what waits for a decision, and deciding."""

from contextlib import suppress
from typing import Annotated
from uuid import UUID

import msgspec
import typer
from rich.table import Table
from sqlalchemy.exc import DBAPIError

from services.ops.cli.businesses.commands import Business, Wait, conclude, sure
from services.ops.cli.terminal import (
    FAILED,
    MISUSED,
    AsJson,
    Yes,
    actor,
    broker,
    confirm,
    database,
    find_system,
    local,
    note_view,
    print_json,
    results,
    say,
    signed_in_as,
    stop,
)
from services.ops.commands import decisions, kyc_applications, outcomes
from services.ops.commands.giving import give
from services.ops.commands.kyc_applications import Filter, Same, Sort, Status
from services.ops.commands.kyc_persons import DECIDES
from services.ops.environment import Surroundings
from shared.bus.contract import topology
from shared.bus.contract.events import KycDecide
from shared.db.session import make_engine
from shared.security.service_accounts import is_services

app = typer.Typer(help="Decide on KYC applications.", no_args_is_help=True)

Why = Annotated[str, typer.Option(help="What the business is told.")]
Who = Annotated[
    str,
    typer.Option(
        "--as",
        help="Your own user of the broker; its password is asked for, or in FELLOW_PASSWORD.",
    ),
]


@app.command("list")
def list_applications(
    status: Annotated[Status, typer.Option(help="Those in this state.")] = Status.PENDING,
    search: Annotated[
        str,
        typer.Option(help="What company, email address or registration number have in them."),
    ] = "",
    sort: Annotated[Sort, typer.Option(help="In which order.")] = Sort.OLDEST,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many.")] = 100,
    after: Annotated[
        UUID | None, typer.Option(help="The application that the list before ended with.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Applications, oldest first."""
    system = find_system()
    wanted = Filter(status, search.strip(), sort)
    with database(system) as session:
        found = kyc_applications.applications(session, wanted, limit=limit, after=after)
        total = kyc_applications.counts(session, wanted)[status]
        same = kyc_applications.same_number(session, found)
    note_view(system, "fellow kyc list", [str(one.account_id) for one in found])
    if as_json:
        print_json(found)
        return
    columns = ["submitted", "company", "email", "registration number"]
    several = any(application.recorded for application in found)
    more = (["used by others too"] if same else []) + (["so far"] if several else [])
    table = Table(*columns, *more, box=None, pad_edge=False)
    for application in found:
        table.add_row(
            local(application.submitted_at),
            application.company_name,
            application.email,
            application.business_registration_number,
            *([same.get(application.id, Same()).in_words] if same else []),
            *([application.so_far] if several else []),
        )
    results().print(table)
    say(f"{len(found)} of {total} {status.value}.")
    if len(found) == limit and len(found) < total:
        say(f"More: --after {found[-1].id}")
    takes = system.settings.kyc_approvals_required
    if takes > 1 and status.value in DECIDES:
        say(f"To {DECIDES[status.value]} takes {takes} operators of different names.")


@app.command()
def approve(
    business: Business, reason: Why = "", wait: Wait = 5.0, who: Who = "", yes: Yes = False
) -> None:
    """Approve the business's newest application: it gets a webhook secret."""
    _decide("approve", business, reason, wait, who, yes)


@app.command()
def reject(
    business: Business, reason: Why, wait: Wait = 5.0, who: Who = "", yes: Yes = False
) -> None:
    """Reject it; the business is told why and may submit again."""
    _decide("reject", business, reason, wait, who, yes)


@app.command()
def revoke(
    business: Business, reason: Why = "", wait: Wait = 5.0, who: Who = "", yes: Yes = False
) -> None:
    """Take an approval back: the business's secrets stop working at once."""
    _decide("revoke", business, reason, wait, who, yes)


def _decide(
    decision: decisions.Decision, business: str, reason: str, wait: float, who: str, yes: bool
) -> None:
    system = find_system()
    own = signed_in_as(system, who) if who else system
    user = actor(own).name
    takes = system.settings.kyc_approvals_required if decision != "reject" else 1
    if is_services(user) and (takes > 1 or system.settings.environment == "production"):
        stop(f"{user} is nobody's name: give --as and your own user of the broker.", MISUSED)
    try:
        command = decisions.make(decision, business, reason)
    except msgspec.ValidationError as error:
        if "$.reason" in str(error):
            stop("The reason may have up to 4,000 characters, without NUL.", MISUSED)
        stop(f"This is no account id, email address or registration number: {business}", MISUSED)
    application = _meant(system, command)
    if application is None:
        confirm(f"{decision.capitalize()} {business.strip()}, whoever that is?", yes)
    else:
        command = msgspec.structs.replace(command, application_id=application.id)
        number = f"number {application.business_registration_number}, now {application.status}"
        sure(decision.capitalize(), application.company_name, application.email, number, yes)
    recipient = decisions.recipient(command)
    books = make_engine(system.settings) if system.has_database else None
    with broker(system) as connection:
        with broker(own) as personal:
            message_id = give(personal, books, command, actor(own), untold=_not_told)
        say(f"Published: {decision} {business.strip()} (message {message_id}).")
        if not wait:
            return
        if books is None:
            say(f"What becomes of it is not looked for without DATABASE_URL. {_WHERE_TO_LOOK}")
            return
        try:
            outcome = outcomes.wait(connection, books, message_id, recipient, wait)
        except DBAPIError:
            say(f"The database does not answer, so the outcome cannot be seen. {_WHERE_TO_LOOK}")
            raise typer.Exit(FAILED) from None
    conclude(outcome, recipient)
    say(outcome.sentence)


def _meant(system: Surroundings, command: KycDecide) -> decisions.Meant | None:
    """The application that is meant; None while nobody can say, and exits when it is nobody's."""
    if not system.has_database:
        return None
    # With the database away the decision is published all the same: the broker keeps it.
    with suppress(DBAPIError):
        found = decisions.meant(make_engine(system.settings), command)
        if found is None:
            stop(f"No business that has applied is known by {_named(command)}.")
        return found
    return None


def _named(command: KycDecide) -> str:
    return str(command.account_id or command.email or command.business_registration_number)


def _not_told(_: Exception) -> None:
    say("The audit log is not told who published it: the database does not take it.")


_WHERE_TO_LOOK = (
    f"If it was refused it is in the queue {topology.KYC_DECISIONS.dead}, with the reason."
)
