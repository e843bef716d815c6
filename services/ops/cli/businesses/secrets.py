"""`fellow secrets`: the lives of a business's webhook secrets, and ending or renewing them."""

from typing import Annotated
from uuid import UUID

import msgspec
import typer
from rich.table import Table

from services.ops.cli.acting import enter
from services.ops.cli.businesses.commands import Business, Wait, carry_out, sure, the_business
from services.ops.cli.terminal import (
    MISUSED,
    AsJson,
    Yes,
    find_system,
    local,
    print_json,
    results,
    say,
    stop,
)
from services.ops.environment import Surroundings
from services.ops.timelines.account import Business as Found
from shared.bus.contract.events import SecretRevoke, SecretRotate

app = typer.Typer(help="Webhook secrets.", no_args_is_help=True)


@app.command("list")
def list_secrets(business: Business, as_json: AsJson = False) -> None:
    """A business's secrets, newest first. What they are, nobody here can see."""
    found = the_business(find_system(), business)
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
    yes: Yes = False,
) -> None:
    """Replace a business's secret; the one before works until its own end."""
    system = enter()
    found = the_business(system, business)
    command = SecretRotate(
        account_id=found.account_id, cause="operator", revoke_previous=revoke_previous
    )
    if revoke_previous:
        stays = f"while {found.staying} work on" if found.staying else ""
        sure("Replace at once the secrets of", found.company_name, found.email, stays, yes)
    _carry_out(system, command, wait)


@app.command()
def revoke(
    business: Business,
    reason: Annotated[str, typer.Option(help="What the business is told.")],
    secret: Annotated[UUID | None, typer.Option(help="Only this one, by its id.")] = None,
    wait: Wait = 5.0,
    yes: Yes = False,
) -> None:
    """Make a business's secrets, or one of them, stop working at once."""
    system = enter()
    found = the_business(system, business)
    try:
        command = msgspec.convert(
            {"account_id": found.account_id, "secret_id": secret, "reason": reason}, SecretRevoke
        )
    except msgspec.ValidationError:
        stop("The reason may have up to 4,000 characters, without NUL.", MISUSED)
    which = "this secret" if secret else "all secrets and public keys"
    sure(f"Revoke {which} of", found.company_name, found.email, "", yes)
    _carry_out(system, command, wait)


def _carry_out(system: Surroundings, command: SecretRotate | SecretRevoke, wait: float) -> None:
    if carry_out(system, command, wait):
        _print(the_business(system, str(command.account_id)))


def _print(found: Found) -> None:
    table = Table("issued", "state", "mode", "id", "until", "revoked", box=None, pad_edge=False)
    for secret in found.secrets:
        table.add_row(
            local(secret.issued_at),
            " ".join(filter(None, (secret.state, secret.platform, secret.shop))),
            "test" if secret.is_test else "live",
            str(secret.id),
            local(secret.expires_at),
            local(secret.revoked_at),
        )
    for key in found.public_keys:
        state = f"{key.state} public key"
        table.add_row(local(key.added_at), state, "live", str(key.id), "", local(key.revoked_at))
    results().print(table)
    if more := found.secrets_total - len(found.secrets):
        say(f"And {more} more that have ended.")
