"""The operator who runs a command, for the audit log: the broker user that they sign in as.

In production commands that act, or show personal data, refuse the services' users, since anyone
with access to the host can use those.
"""

import getpass
import os
import socket
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import msgspec
from sqlalchemy.exc import SQLAlchemyError
from typer.core import TyperGroup

from services.ops.audit.actions import Actor, commit_facts, viewed
from services.ops.cli.terminal import (
    MISUSED,
    ask_password,
    broker,
    database_trouble,
    engine,
    find_system,
    say,
    stop,
)
from services.ops.environment import Target
from shared.bus.broker.addresses import credentials, signed_in_as
from shared.bus.contract import topology
from shared.bus.contract.delivery import believed
from shared.bus.contract.topology import Queue
from shared.security.service_accounts import CONSOLE, is_shared_user, login

AS = "--as"
VARIABLE = "FELLOW_AS"
HELP = (
    "Your own user of the broker; the option may stand anywhere in the line of any command. Its "
    "password is asked for, or taken from FELLOW_PASSWORD."
)
_operator = ""
_verified: set[tuple[str, str]] = set()
"""The operators, with their broker, whom the broker has let in during this command."""
_targets: dict[tuple[str, str], Target] = {}
"""The targets of signed-in operators, so that a command asks for a password once."""


class Commands(TyperGroup):
    """The commands, which all take `--as` anywhere in the command line."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Called by Typer, with the whole command line."""
        return super().parse_args(ctx, operator_first(args))


def operator_first(args: Sequence[str]) -> list[str]:
    """Move `--as` and its value to the front of a command line, except behind `--`."""
    end = args.index("--") if "--" in args else len(args)
    front: list[str] = []
    rest: list[str] = []
    before = iter(args[:end])
    for argument in before:
        if argument == AS:
            front += [argument, *([value] if (value := next(before, None)) is not None else [])]
        else:
            (front if argument.startswith(f"{AS}=") else rest).append(argument)
    return [*front, *rest, *args[end:]]


def sign_in() -> Target:
    """Return the system, after verifying the operator, for commands that act or show personal data.

    Exits if an operator is required and not named, or if the broker refuses the sign-in.
    """
    system = find_system()
    actor(system)
    return system


def set_operator(name: str) -> None:
    """Set who runs the command; if empty, it is the user of the broker's address."""
    global _operator
    _operator = name


def personal_target(system: Target, *, is_named: bool) -> Target:
    """Return the system with the broker user of `--as`; unchanged without `--as`.

    Args:
        system: the system.
        is_named: whether the user must be a person's; exits if it is not.
    """
    found = _signed_in_as(system, _operator) if _operator else system
    user = credentials(found.settings.amqp_url)[0]
    if is_named and is_shared_user(user):
        stop(f"{user} is no person's user: give --as and your own user of the broker.", MISUSED)
    return found


def actor(system: Target, *, is_named: bool = False) -> Actor:
    """Return who runs the command, and from where; exits if a person is required and not named.

    Args:
        system: the system.
        is_named: whether to require a person; production always does.
    """
    is_required = is_named or system.settings.environment == "production"
    found = personal_target(system, is_named=is_required)
    person = (_operator, system.settings.amqp_url)
    if found is not system and person not in _verified:
        with broker(found):
            _verified.add(person)  # the broker has checked the password
    return actor_of(found)


def require_believed_user(system: Target, queue: Queue, *, is_own: bool = False) -> None:
    """Exit if consumers would not believe the broker user about the authors of copied commands.

    Such a copy loses its author; a decision without one is refused. Outside production, where such
    decisions are taken by default, only services' users are refused.

    Args:
        system: the system, with the broker user that publishes the copies.
        queue: the queue that they are copied to.
        is_own: whether the user is the commands' author, as of edited ones.
    """
    user = credentials(system.settings.amqp_url)[0]
    takes_commands = any(binding.exchange == topology.COMMANDS for binding in queue.bindings)
    keeps_author = system.settings.environment == "production" and not is_own
    needs_belief = keeps_author or is_shared_user(user)
    is_believed = user in believed(queue.name, own_user=login(CONSOLE))
    if takes_commands and needs_belief and not is_believed:
        stop(
            f"Nothing was done. Who gave the commands of {queue.name} is believed of "
            f"{login(CONSOLE)} alone, and this is {user}: use {login(CONSOLE)} and its password in "
            "AMQP_URL for this command.",
            MISUSED,
        )


def actor_of(system: Target) -> Actor:
    """Return the system's broker user, with the local user and host that it acts from."""
    user = credentials(system.settings.amqp_url)[0]
    return Actor(user, f"{_local_name()}@{socket.gethostname()}")


def _local_name() -> str:
    """Return the local user's name, or its number if it has none, as in a container."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def note_view(system: Target, command: str, of: Sequence[str] = ()) -> None:
    """Record in the audit log that personal data is shown; exits if that is not possible.

    Args:
        system: the system.
        command: the command that shows it.
        of: the ids of the data's subjects.
    """
    message = viewed(actor(system), command, of)
    with database_trouble():
        commit_facts(engine(system), [message])


def note_view_if_possible(system: Target, command: str, of: Sequence[str] = ()) -> None:
    """Record a view like `note_view`, or report that it was not recorded.

    It is for data that only the broker has, which operators need when the database is unreachable.
    """
    message = viewed(actor(system), command, of)
    try:
        if system.has_database:
            commit_facts(engine(system), [message])
            return
    except SQLAlchemyError:
        pass
    say("The audit log was not told of this view: the database is unreachable, or not named.")


def _signed_in_as(system: Target, name: str) -> Target:
    known = _targets.get((name, system.settings.amqp_url))
    if known is not None:
        return known
    password = os.environ.get("FELLOW_PASSWORD") or ask_password(
        f"{name}'s password", "set FELLOW_PASSWORD"
    )
    url = signed_in_as(system.settings.amqp_url, name, password)
    found = replace(system, settings=msgspec.structs.replace(system.settings, amqp_url=url))
    _targets[name, system.settings.amqp_url] = found
    return found
