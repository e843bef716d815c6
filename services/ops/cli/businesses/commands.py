"""Commands to `services.secrets`: published, told to the audit log, and waited for."""

import time
from typing import Annotated

import typer

from services.ops.audit.actions import commanded, tell
from services.ops.cli.terminal import (
    FAILED,
    actor,
    broker,
    database,
    database_trouble,
    engine,
    say,
    stop,
)
from services.ops.commands import decisions
from services.ops.environment import Surroundings
from services.ops.timelines import account
from services.ops.timelines.account import AccountTrail
from shared.bus.contract.events import AccountBlock, SecretRevoke, SecretRotate, WebhookLimit

CONSUMER = "services.secrets"
POLL_SECONDS = 0.1

Business = Annotated[
    str, typer.Argument(help="Account id, email address or business registration number.")
]
Wait = Annotated[
    float, typer.Option(min=0, help="Seconds to wait for the outcome; 0 publishes and goes.")
]


def the_business(system: Surroundings, business: str) -> AccountTrail:
    """The one business that is meant; exits when there is none, or more than one."""
    with database(system) as session:
        ids = account.find(session, business)
        if len(ids) > 1:
            stop(f"{len(ids)} businesses match {business}: name one by its id or email.")
        found = account.account_trail(session, ids[0]) if ids else None
    if found is None:
        stop(f"No business matches {business}.")
    return found


def carry_out(
    system: Surroundings,
    command: SecretRotate | SecretRevoke | WebhookLimit | AccountBlock,
    wait: float,
) -> bool:
    """Publish a command; returns whether it is known to be carried out.

    Exits when it was waited for and is not.
    """
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
    if wait and not done:
        say(f"Not carried out after {wait:g} s. It is safe: is {CONSUMER} running?")
        raise typer.Exit(FAILED)
    return done
