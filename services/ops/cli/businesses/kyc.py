"""`fellow kyc`: listing and deciding on KYC applications."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Annotated
from uuid import UUID

import msgspec
import typer
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from services.ops.audit.actions import address_fault
from services.ops.cli import acting
from services.ops.cli.acting import actor, note_view, note_view_if_possible, sign_in
from services.ops.cli.businesses.commands import (
    REASON_TOO_LONG,
    Business,
    Wait,
    conclude,
    confirm_about,
    find_business,
    named,
)
from services.ops.cli.terminal import (
    FAILED,
    MISUSED,
    AsJson,
    Table,
    Yes,
    broker,
    confirm,
    database,
    database_trouble,
    engine,
    find_system,
    local,
    print_json,
    results,
    say,
    stop,
)
from services.ops.commands import decisions, kyc_applications, kyc_notes, outcomes
from services.ops.commands.giving import give
from services.ops.commands.kyc_applications import Application, Filter, Same, Sort, Status
from services.ops.commands.kyc_persons import DECIDES
from services.ops.environment import Target
from shared.bus.contract import topology
from shared.bus.contract.events import KycDecide
from shared.db.session import make_engine

app = typer.Typer(help="Decide on KYC applications.", no_args_is_help=True)

Why = Annotated[str, typer.Option(help="What the business is told.")]
Asked = Annotated[str, typer.Option(help="What the business is asked.")]


@app.command("list")
def list_applications(
    status: Annotated[Status, typer.Option(help="Their state.")] = Status.PENDING,
    search: Annotated[
        str,
        typer.Option(help="A part of the company name, email address or registration number."),
    ] = "",
    sort: Annotated[Sort, typer.Option(help="Their order.")] = Sort.OLDEST,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many.")] = 100,
    after: Annotated[
        UUID | None, typer.Option(help="The last application of the page before.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List applications."""
    system = sign_in()
    wanted = Filter(status, search.strip(), sort)
    with database(system) as session:
        found = kyc_applications.applications(session, wanted, limit=limit, after=after)
        total = kyc_applications.counts(session, wanted)[status]
        same = kyc_applications.same_number(session, found)
    note_view(system, "fellow kyc list", [str(one.account_id) for one in found])
    if as_json:
        print_json(found)
    else:
        _print_list(found, same)
    say(f"{len(found)} of {total} {status.value}.")
    if len(found) == limit and len(found) < total:
        say(f"More: --after {found[-1].id}")
    takes = system.settings.kyc_approvals_required
    if takes > 1 and status.value in DECIDES:
        say(f"To {DECIDES[status.value]} takes {takes} operators of different names.")


def _print_list(found: Sequence[Application], same: Mapping[UUID, Same]) -> None:
    columns = ["submitted", "company", "email", "registration number"]
    several = any(application.recorded for application in found)
    more = (["used by others too"] if same else []) + (["so far"] if several else [])
    table = Table(*columns, *more)
    for application in found:
        table.add_row(
            local(application.submitted_at),
            application.company_name,
            "closed" if application.closed_at else application.email,
            application.business_registration_number,
            *([same.get(application.id, Same()).in_words] if same else []),
            *([application.so_far] if several else []),
        )
    results().print(table)


@app.command()
def approve(business: Business, reason: Why = "", wait: Wait = 5.0, yes: Yes = False) -> None:
    """Approve the business's newest application: it gets a webhook secret."""
    _decide("approve", business, reason, wait, yes)


@app.command()
def reject(business: Business, reason: Why, wait: Wait = 5.0, yes: Yes = False) -> None:
    """Reject it; the business is told why and may submit again."""
    _decide("reject", business, reason, wait, yes)


@app.command()
def ask(business: Business, reason: Asked, wait: Wait = 5.0, yes: Yes = False) -> None:
    """Ask for more information; the business is told what, and sends its application again."""
    _decide("ask", business, reason, wait, yes)


@app.command()
def note(
    business: Business,
    text: Annotated[str, typer.Argument(help="The note, which only operators see.")],
) -> None:
    """Keep a note on the business's newest application, which the business never sees."""
    system = find_system()
    writer = actor(system, is_named=True)
    try:
        kept = kyc_notes.checked(text)
    except kyc_notes.InvalidNoteError as error:
        stop(str(error), MISUSED)
    found = _newest(system, business)
    with database_trouble(), Session(engine(system)) as session, session.begin():
        kyc_notes.add(session, writer, found, kept)
    say(f"Kept on the application of {named(found)}.")


@app.command()
def show(business: Business, as_json: AsJson = False) -> None:
    """Show the business's newest application, with operators' notes."""
    system = sign_in()
    found = _newest(system, business)
    with database(system) as session:
        kept = kyc_notes.notes(session, [found.id]).get(found.id, ())
        same = kyc_applications.same_number(session, [found]).get(found.id, Same())
    note_view(system, "fellow kyc show", [str(found.account_id)])
    if as_json:
        print_json(msgspec.to_builtins(found) | {"notes": kept})
        return
    table = Table(show_header=False)
    by = f"{local(found.decided_at)} by {found.decided_by}" if found.decided_at else ""
    for name, value in (
        ("business", named(found)),
        ("account", str(found.account_id)),
        ("account closed", local(found.closed_at)),
        ("status", found.status),
        ("submitted", local(found.submitted_at)),
        ("registration number", found.business_registration_number),
        ("used by others too", same.in_words),
        ("address", found.business_address),
        ("contact", found.contact_person_details),
        ("decided", by),
        ("told to the business", found.reason),
        ("so far", found.so_far),
        *((_about(one), f"{one.written_by}: {one.note}") for one in kept),
    ):
        if value:
            table.add_row(name, value)
    results().print(table)


@app.command()
def revoke(business: Business, reason: Why = "", wait: Wait = 5.0, yes: Yes = False) -> None:
    """Revoke an approval: the business's secrets stop working immediately."""
    _decide("revoke", business, reason, wait, yes)


def _decide(
    decision: decisions.Decision, business: str, reason: str, wait: float, yes: bool
) -> None:
    system = find_system()
    takes = system.settings.kyc_approvals_required if decision in DECIDES.values() else 1
    decider = actor(system, is_named=takes > 1)
    own = acting.personal_target(system, is_named=takes > 1)
    try:
        command = decisions.make(decision, business, reason)
    except msgspec.ValidationError as error:
        if "$.reason" in str(error):
            stop(REASON_TOO_LONG, MISUSED)
        stop(f"This is no account id, email address or registration number: {business}", MISUSED)
    application = _find(system, command)
    if wrong := address_fault(reason, application.email if application else business.strip()):
        stop(f"The reason {wrong}.", MISUSED)
    if application is None:
        if decision == "approve" and yes and system.has_database:
            stop(
                "The database does not answer, so it is unknown which application is approved: "
                "nothing was published. Leave -y out to approve the newest, whichever that is."
            )
        confirm(f"{decision.capitalize()} {business.strip()}, whichever business that is?", yes)
    else:
        note_view_if_possible(system, f"fellow kyc {decision}", [str(application.account_id)])
        command = msgspec.structs.replace(
            command, application_id=application.id, looked_at=application.state
        )
        number = f"number {application.business_registration_number}, now {application.status}"
        confirm_about(decision.capitalize(), application, number, yes)
    recipient = decisions.recipient(command)
    db = make_engine(system.settings) if system.has_database else None
    with broker(system) as connection:
        with broker(own) as personal:
            about = None if application is None else application.account_id
            message_id = give(
                personal, db, command, decider, account_id=about, untold=_not_recorded
            )
        say(f"Published: {decision} {business.strip()} (message {message_id}).")
        if not wait:
            return
        if db is None:
            say(f"Without DATABASE_URL the outcome is not looked up. {_WHERE_TO_LOOK}")
            return
        try:
            outcome = outcomes.wait(connection, db, message_id, recipient, wait)
        except DBAPIError:
            say(f"The database does not answer, so the outcome cannot be seen. {_WHERE_TO_LOOK}")
            raise typer.Exit(FAILED) from None
    conclude(outcome, recipient)
    say(outcome.sentence)


def _newest(system: Target, business: str) -> Application:
    found = find_business(system, business)
    with database(system) as session:
        application = kyc_applications.newest(session, found.account_id)
    if application is None:
        stop(f"{found.company_name} has not applied.")
    return application


def _find(system: Target, command: KycDecide) -> Application | None:
    """Return the command's application; None if the database is unreachable; exits without one."""
    if not system.has_database:
        return None
    # With the database unreachable the decision is still published: the broker keeps it.
    with suppress(DBAPIError):
        found = decisions.find_application(make_engine(system.settings), command)
        if found is None:
            stop(f"No business that has applied is known by {_named(command)}.")
        return found
    return None


def _named(command: KycDecide) -> str:
    return str(command.account_id or command.email or command.business_registration_number)


def _not_recorded(_: Exception) -> None:
    say("The audit log does not record who published it: the database is unreachable.")


_WHERE_TO_LOOK = (
    f"If it was refused it is in the queue {topology.KYC_DECISIONS.dead}, with the reason."
)


def _about(note: kyc_notes.Note) -> str:
    of = f", on the application of {local(note.earlier)}" if note.earlier else ""
    return f"note of {local(note.written_at)}{of}"
