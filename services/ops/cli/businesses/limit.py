"""`fellow limit`: how many webhooks a business may send a second."""

from typing import Annotated

import typer

from services.ops.cli.acting import sign_in
from services.ops.cli.businesses.commands import Business, Wait, carry_out, find_business, named
from services.ops.cli.terminal import MISUSED, say, stop
from shared.bus.contract.events import WebhookLimit

PerSecond = Annotated[
    int | None, typer.Option(min=1, max=1_000_000, help="Requests a second, a worker.")
]
Default = Annotated[bool, typer.Option("--default", help="Back to ACCOUNT_RATE_PER_SECOND.")]


def limit(
    business: Business,
    per_second: PerSecond = None,
    default: Default = False,
    wait: Wait = 5.0,
) -> None:
    """Set how many webhooks a business may send a second."""
    if default == (per_second is not None):
        stop("Say either --per-second N or --default.", MISUSED)
    system = sign_in()
    found = find_business(system, business)
    command = WebhookLimit(account_id=found.account_id, per_second=per_second)
    if carry_out(system, command, wait):
        rate = "the default rate" if default else f"{per_second} a second"
        say(f"{named(found)} has {rate}.")
