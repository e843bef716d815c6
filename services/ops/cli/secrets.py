"""`fellow secrets`: the lives of a business's webhook secrets, and ending or renewing them."""

import time
from typing import Annotated
from uuid import UUID

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from services.ops import account_trail, decisions
from services.ops.account_trail import AccountTrail
from services.ops.cli.terminal import (
    FAILED,
    MISUSED,
    AsJson,
    Yes,
    actor,
    broker,
    confirm,
    database,
    database_trouble,
    engine,
    find_system,
    local,
    print_json,
    say,
    stop,
)
from services.ops.surroundings import Surroundings
from services.ops.telling import commanded, tell
from shared.bus.events import SecretRevoke, SecretRotate

app = typer.Typer(help="Webhook secrets.", no_args_is_help=True)

CONSUMER = "services.secrets"
POLL_SECONDS = 0.1

Business = Annotated[
    str, typer.Argument(help="Account id, email address or business registration number.")
]
Wait = Annotated[
    float, typer.Option(min=0, help="Seconds to wait for the outcome; 0 publishes and goes.")
]


@app.command("list")
def list_secrets(business: Business, as_json: AsJson = False) -> None:
    """A business's secrets, newest first. What they are, nobody here can see."""
    found = _account(find_system(), business)
    if as_json:
        print_json(found.secrets)
        return
    _print(found)


@app.command()
def rotate(
    business: Business,
    revoke_previous: Annotated[
        bool, typer.Option(help="The earlier ones stop working at once.")
    ] = False,
    wait: Wait = 5.0,
) -> None:
    """Replace a business's secret; the one before works until its own end."""
    system = find_system()
    account_id = _account(system, business).account_id
    command = SecretRotate(account_id=account_id, cause="operator", revoke_previous=revoke_previous)
    _publish(system, command, wait)


@app.command()
def revoke(
    business: Business,
    reason: Annotated[str, typer.Option(help="What the business is told.")],
    secret: Annotated[UUID | None, typer.Option(help="Only this one, by its id.")] = None,
    wait: Wait = 5.0,
    yes: Yes = False,
) -> None:
    """Make a business's secrets, or one of them, stop working at once."""
    system = find_system()
    found = _account(system, business)
    try:
        command = msgspec.convert(
            {"account_id": found.account_id, "secret_id": secret, "reason": reason}, SecretRevoke
        )
    except msgspec.ValidationError:
        stop("The reason may have up to 4,000 characters, without NUL.", MISUSED)
    which = "this secret" if secret else "all secrets"
    confirm(f"Revoke {which} of {found.company_name} <{found.email}>?", yes)
    _publish(system, command, wait)


def _publish(system: Surroundings, command: SecretRotate | SecretRevoke, wait: float) -> None:
    books = engine(system)
    with broker(system) as connection, database_trouble():
        message_id = decisions.publish(connection, command)
        tell(books, [commanded(actor(system), command, message_id)])
        say(f"Published: {command.TYPE} (message {message_id}).")
        deadline = time.monotonic() + wait
        while not (done := decisions.is_done(books, message_id, CONSUMER)):
            if time.monotonic() >= deadline:
                break
            time.sleep(POLL_SECONDS)
    if done:
        _print(_account(system, str(command.account_id)))
    elif wait:
        say(f"Not carried out after {wait:g} s. It is safe: is {CONSUMER} running?")
        raise typer.Exit(FAILED)


def _account(system: Surroundings, business: str) -> AccountTrail:
    with database(system) as session:
        ids = account_trail.find(session, business)
        if len(ids) > 1:
            stop(f"{len(ids)} businesses match {business}: name one by its id or email.")
        found = account_trail.account_trail(session, ids[0]) if ids else None
    if found is None:
        stop(f"No business matches {business}.")
    return found


def _print(found: AccountTrail) -> None:
    table = Table("issued", "state", "id", "until", "revoked", box=None, pad_edge=False)
    for secret in found.secrets:
        table.add_row(
            local(secret.issued_at),
            secret.state,
            str(secret.id),
            local(secret.expires_at),
            local(secret.revoked_at),
        )
    Console(markup=False).print(table)
