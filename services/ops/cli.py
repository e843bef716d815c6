"""`fellow`: what operators and ops staff do, from a shell.

Exit codes: 0 done; 1 not done, with a sentence on standard error; 2 the call or the configuration
is wrong. Beside `make run` it finds the running system by itself, in `.stack/env`.
"""

import base64
import json
import os
import secrets
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from services.ops import kyc_desk, queues
from shared.config import ConfigurationError, Settings, load

CHECKOUT = Path(__file__).resolve().parent.parent.parent

app = typer.Typer(no_args_is_help=True, add_completion=True, help=__doc__, rich_markup_mode=None)
kyc = typer.Typer(no_args_is_help=True, help="Decide on KYC applications.")
keys = typer.Typer(no_args_is_help=True, help="Keys and passwords of a deployment.")
app.add_typer(kyc, name="kyc")
app.add_typer(keys, name="keys")

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)

Business = Annotated[
    str, typer.Argument(help="Account id, email address or business registration number.")
]
Wait = Annotated[
    float, typer.Option(help="Seconds to wait for the outcome; 0 only publishes the decision.")
]


def configuration() -> Settings:
    """The settings: the environment's, and where it is silent those of the running `make run`."""
    found: dict[str, str] = {}
    written = CHECKOUT / ".stack" / "env"
    if written.is_file():
        found = dict(line.split("=", 1) for line in written.read_text().splitlines() if "=" in line)
    try:
        return load(found | os.environ)
    except ConfigurationError as error:
        err.print(str(error))
        raise typer.Exit(2) from None


@kyc.command()
def approve(business: Business, wait: Wait = 5.0) -> None:
    """Approve a pending application: its webhook secret is issued by that."""
    _decide("approve", business, "", wait)


@kyc.command()
def reject(
    business: Business,
    reason: Annotated[str, typer.Option(help="What the business is told.")],
    wait: Wait = 5.0,
) -> None:
    """Reject a pending application."""
    _decide("reject", business, reason, wait)


@kyc.command()
def revoke(
    business: Business,
    reason: Annotated[str, typer.Option(help="What the business is told.")] = "",
    wait: Wait = 5.0,
) -> None:
    """Take an approval back: the business's secrets stop working at once."""
    _decide("revoke", business, reason, wait)


@app.command(name="queues")
def show_queues(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Every work queue's depth, consumers, waiting retries and dead letters."""
    try:
        found = queues.read(configuration().amqp_url)
    except queues.BrokerAwayError as error:
        err.print(f"The broker cannot be reached: {error}")
        raise typer.Exit(1) from None
    if as_json:
        print(json.dumps([queue.as_dict() for queue in found], indent=2))
        return
    table = Table("queue", "ready", "consumers", "dead", box=None, padding=(0, 2))
    for queue in found:
        dead = "" if queue.dead is None else str(queue.dead)
        consumers = "" if queue.consumers is None else str(queue.consumers)
        style = "red" if queue.dead or (queue.ready and queue.consumers == 0) else None
        table.add_row(queue.name, str(queue.ready), consumers, dead, style=style)
    out.print(table)


@keys.command()
def generate() -> None:
    """Print the keys and passwords that docker-compose.yml asks for, for a `.env` file."""
    print(f"SECRET_ENCRYPTION_KEYS={base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()}")
    for name in ("JWT_SIGNING_KEY", "RABBITMQ_PASSWORD", "POSTGRES_PASSWORD"):
        print(f"{name}={secrets.token_hex(32)}")


def _decide(decision: kyc_desk.Decision, business: str, reason: str, wait: float) -> None:
    config = configuration()
    try:
        published = kyc_desk.publish(config.amqp_url, decision, business, reason)
    except kyc_desk.NotDecidedError as error:
        err.print(str(error))
        raise typer.Exit(1) from None
    out.print(f"Published: {decision} {business} (message {published})")
    if wait <= 0:
        return
    outcome = kyc_desk.wait_for(config.database_url, decision, business, wait)
    if outcome is None:
        err.print(
            f"Nothing has come of it within {wait:g} s. If `fellow queues` shows a dead letter of "
            "kyc.decisions, the reason is in its headers; else services.kyc is not running."
        )
        raise typer.Exit(1)
    out.print(outcome)


def main() -> None:
    """The entry point of `python -m services.ops`."""
    app()


if __name__ == "__main__":
    sys.exit(app())
