"""Shared by the commands about a business: finding it, confirming, publishing, waiting."""

from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

import msgspec
import typer

from services.ops.audit.actions import address_fault
from services.ops.cli.acting import actor
from services.ops.cli.terminal import (
    FAILED,
    MISUSED,
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
from services.ops.commands.kyc_applications import Application
from services.ops.environment import Target
from services.ops.timelines import account
from shared.bus.contract.events import (
    LONGEST_TEXT,
    AccountBlock,
    SecretRevoke,
    SecretRotate,
    WebhookLimit,
)

REASON_TOO_LONG = f"The reason may have up to {LONGEST_TEXT:,} characters, without NUL."

Business = Annotated[
    str, typer.Argument(help="Account id, email address or business registration number.")
]
Wait = Annotated[
    float, typer.Option(min=0, help="Seconds to wait for the outcome; 0 does not wait.")
]


def find_business(system: Target, business: str) -> account.Business:
    """Return the one matching business; exits if none or several match.

    Company names are not matched: a business may choose any, and the command acts on the match.
    """
    with database(system) as session:
        ids = account.find(session, business, by_name=False)
        if len(ids) > 1:
            stop(f"{how_many(len(ids))} match {business}: name one by its id or email.")
        found = account.business(session, ids[0]) if ids else None
    if found is None:
        stop(f"No business matches {business}.")
    return found


def how_many(found: int) -> str:
    """Describe the number of found businesses; the search stops beyond `account.AT_MOST`."""
    more = found > account.AT_MOST
    return f"More than {account.AT_MOST} businesses" if more else f"{found} businesses"


def named(business: account.Business | Application) -> str:
    """Return a business's name and address; the name alone once its account is closed."""
    is_closed = business.closed_at is not None
    return business.company_name + ("" if is_closed else f" <{business.email}>")


def confirm_about(
    action: str, business: account.Business | Application, more: str, yes: bool
) -> None:
    """Ask before an action on a business, naming it; exits unless the answer is yes.

    Args:
        action: the action, such as `Block`.
        business: the business.
        more: further details or consequences; empty for none.
        yes: whether to skip the question.
    """
    confirm(f"{action} {named(business)}{f', {more}' if more else ''}?", yes)


def carry_out(
    system: Target,
    command: SecretRotate | SecretRevoke | WebhookLimit | AccountBlock,
    wait: float,
) -> bool:
    """Publish a command and wait for its outcome; returns whether it is known to be carried out.

    Exits if it was not carried out within the wait.
    """
    db = engine(system)
    with broker(system) as connection, database_trouble():
        message_id = give(connection, db, command, actor(system))
        say(f"Published: {command.TYPE} (message {message_id}).")
        if not wait:
            return False
        outcome = outcomes.wait(connection, db, message_id, outcomes.SECRETS, wait)
    conclude(outcome, outcomes.SECRETS)
    return True


_Command = TypeVar("_Command", SecretRevoke, AccountBlock)


def with_reason(
    type_: type[_Command], fields: Mapping[str, Any], reason: str, email: str
) -> _Command:
    """Return a command with its reason; exits if the reason is too long or unfit.

    Args:
        type_: the command's type.
        fields: its other fields.
        reason: the reason that the business is given.
        email: the only address that the reason may contain.
    """
    try:
        command = msgspec.convert({**fields, "reason": reason}, type_)
    except msgspec.ValidationError:
        stop(REASON_TOO_LONG, MISUSED)
    if wrong := address_fault(reason, email):
        stop(f"The reason {wrong}.", MISUSED)
    return command


def conclude(outcome: outcomes.Outcome, recipient: outcomes.Recipient) -> None:
    """Print a command's outcome; exits unless it was carried out."""
    if outcome.state == "carried out":
        return
    if outcome.state == "refused":
        say(f"Refused: {outcome.sentence} (now in {recipient.queue.dead})")
    else:
        say(outcome.sentence)
    raise typer.Exit(FAILED)
