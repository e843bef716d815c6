"""`fellow secrets`: a business's webhook secrets: listing, rotating, revoking."""

from typing import Annotated
from uuid import UUID

import msgspec
import typer

from services.ops.cli.acting import sign_in
from services.ops.cli.businesses.commands import (
    Business,
    Wait,
    carry_out,
    confirm_about,
    find_business,
    with_reason,
)
from services.ops.cli.terminal import (
    AsJson,
    Table,
    Yes,
    find_system,
    local,
    print_json,
    results,
    say,
)
from services.ops.environment import Target
from services.ops.timelines.account import Business as Found
from shared.bus.contract.events import SecretRevoke, SecretRotate

app = typer.Typer(help="Webhook secrets.", no_args_is_help=True)


@app.command("list")
def list_secrets(business: Business, as_json: AsJson = False) -> None:
    """A business's secrets, newest first, without their values."""
    found = find_business(find_system(), business)
    if as_json:
        keys = [
            msgspec.to_builtins(key)
            | {"issued_at": key.added_at, "expires_at": None, "replaced_at": None, "is_test": False}
            for key in found.public_keys
        ]
        print_json([*found.secrets, *keys])
        report_omitted(found)
        return
    _print(found)


@app.command()
def rotate(
    business: Business,
    revoke_previous: Annotated[
        bool, typer.Option(help="The earlier ones stop working immediately.")
    ] = False,
    wait: Wait = 5.0,
    yes: Yes = False,
) -> None:
    """Replace a business's secret; the previous one works until it expires."""
    system = sign_in()
    found = find_business(system, business)
    command = SecretRotate(
        account_id=found.account_id, cause="operator", revoke_previous=revoke_previous
    )
    if revoke_previous:
        stays = f"while {found.staying} work on" if found.staying else ""
        confirm_about("Replace at once the secrets of", found, stays, yes)
    _carry_out(system, command, wait)


@app.command()
def revoke(
    business: Business,
    reason: Annotated[str, typer.Option(help="What the business is told.")],
    secret: Annotated[UUID | None, typer.Option(help="Only this one, by its id.")] = None,
    wait: Wait = 5.0,
    yes: Yes = False,
) -> None:
    """Make a business's secrets, or one of them, stop working immediately."""
    system = sign_in()
    found = find_business(system, business)
    fields = {"account_id": found.account_id, "secret_id": secret}
    command = with_reason(SecretRevoke, fields, reason, found.email)
    which = "this secret" if secret else "all secrets and public keys"
    confirm_about(f"Revoke {which} of", found, "", yes)
    _carry_out(system, command, wait)


def _carry_out(system: Target, command: SecretRotate | SecretRevoke, wait: float) -> None:
    if carry_out(system, command, wait):
        _print(find_business(system, str(command.account_id)))


def table_of(found: Found) -> Table:
    """Return a table of a business's secrets and public keys."""
    table = Table("issued", "state", "mode", "id", "until", "revoked")
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
    return table


def _print(found: Found) -> None:
    results().print(table_of(found))
    report_omitted(found)


def report_omitted(found: Found) -> None:
    """Report how many older secrets are not listed."""
    if more := found.secrets_total - len(found.secrets):
        say(f"And {more} more that have ended.")
