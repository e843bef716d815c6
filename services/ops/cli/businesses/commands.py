"""Commands to the services: asked about, given, and waited for."""

from typing import Annotated

import typer

from services.ops.cli.acting import actor
from services.ops.cli.terminal import (
    FAILED,
    broker,
    confirm,
    database,
    database_trouble,
    engine,
    say,
    stop,
)
from services.ops.commands import outcomes
from services.ops.commands.giving import give
from services.ops.environment import Surroundings
from services.ops.timelines import account
from shared.bus.contract.events import AccountBlock, SecretRevoke, SecretRotate, WebhookLimit

Business = Annotated[
    str, typer.Argument(help="Account id, email address or business registration number.")
]
Wait = Annotated[
    float, typer.Option(min=0, help="Seconds to wait for the outcome; 0 publishes and goes.")
]


def the_business(system: Surroundings, business: str) -> account.Business:
    """The one business that is meant; exits when there is none, or more than one."""
    with database(system) as session:
        ids = account.find(session, business)
        if len(ids) > 1:
            stop(f"{how_many(len(ids))} match {business}: name one by its id or email.")
        found = account.business(session, ids[0]) if ids else None
    if found is None:
        stop(f"No business matches {business}.")
    return found


def how_many(found: int) -> str:
    """How many businesses were found, of which no more than so many are looked for."""
    more = found > account.AT_MOST
    return f"More than {account.AT_MOST} businesses" if more else f"{found} businesses"


def sure(does: str, company_name: str, email: str, more: str, yes: bool) -> None:
    """Ask before something is done to a business, by its name; exits unless the answer is yes.

    Args:
        does: what is done to it, such as `Block`.
        company_name: whose name.
        email: its address.
        more: what else tells it, or what follows, in words; empty for nothing.
        yes: whether not to ask.
    """
    confirm(f"{does} {company_name} <{email}>{f', {more}' if more else ''}?", yes)


def carry_out(
    system: Surroundings,
    command: SecretRotate | SecretRevoke | WebhookLimit | AccountBlock,
    wait: float,
) -> bool:
    """Give a command; returns whether it is known to be carried out.

    Exits when it was waited for and is not.
    """
    books = engine(system)
    with broker(system) as connection, database_trouble():
        message_id = give(connection, books, command, actor(system))
        say(f"Published: {command.TYPE} (message {message_id}).")
        if not wait:
            return False
        outcome = outcomes.wait(connection, books, message_id, outcomes.SECRETS, wait)
    conclude(outcome, outcomes.SECRETS)
    return True


def conclude(outcome: outcomes.Outcome, recipient: outcomes.Recipient) -> None:
    """Say what became of a command; exits unless it was carried out."""
    if outcome.state == "carried out":
        return
    if outcome.state == "refused":
        say(f"Refused: {outcome.sentence} (now in {recipient.queue.dead})")
    else:
        say(outcome.sentence)
    raise typer.Exit(FAILED)
