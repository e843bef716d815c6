"""Who runs a command, for the audit log: a person, who signs in to the broker as themselves.

In production nobody acts, and nobody is shown persons, as a service: its user is everybody's who
has the host.
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

from services.ops.audit.actions import Actor, tell, viewed
from services.ops.cli.terminal import (
    MISUSED,
    broker,
    database_trouble,
    engine,
    find_system,
    say,
    stop,
)
from services.ops.environment import Surroundings
from shared.bus.broker.addresses import credentials, signed_in_as
from shared.bus.contract import topology
from shared.bus.contract.delivery import believed
from shared.bus.contract.topology import Queue
from shared.security.service_accounts import CONSOLE, is_services, login

AS = "--as"
VARIABLE = "FELLOW_AS"
HELP = (
    "Who you are, for every command and anywhere in its line: your own user of the broker. Its "
    "password is asked for, or in FELLOW_PASSWORD."
)
_who = ""
_let_in: set[tuple[str, str]] = set()
"""Of this command: whom which broker has let in."""
_own: dict[tuple[str, str], Surroundings] = {}
"""Of this command: nobody is asked for a password twice."""


class Commands(TyperGroup):
    """The commands; `--as` is one option of all of them, wherever it stands."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Called by Typer, with the whole command line."""
        return super().parse_args(ctx, lifted(args))


def lifted(args: Sequence[str]) -> list[str]:
    """A command line with `--as` and its value in front; what is behind `--` stays as it is."""
    end = args.index("--") if "--" in args else len(args)
    front: list[str] = []
    rest: list[str] = []
    given = iter(args[:end])
    for one in given:
        if one == AS:
            front += [one, *([value] if (value := next(given, None)) is not None else [])]
        else:
            (front if one.startswith(f"{AS}=") else rest).append(one)
    return [*front, *rest, *args[end:]]


def enter() -> Surroundings:
    """The system that is meant, for what acts or shows persons: first of all it is said by whom.

    Exits where nobody says so who has to, and where the broker does not know them.
    """
    system = find_system()
    actor(system)
    return system


def sign(who: str) -> None:
    """Say by whom the command is run; empty: by whoever the broker's address names."""
    global _who
    _who = who


def own(system: Surroundings, *, is_named: bool) -> Surroundings:
    """The system as whoever is named by `--as` signs in to its broker; else as it is.

    Args:
        system: the system.
        is_named: whether it must be a person; exits where it is none.
    """
    found = _signed_in_as(system, _who) if _who else system
    user = credentials(found.settings.amqp_url)[0]
    if is_named and is_services(user):
        stop(f"{user} is nobody's name: give --as and your own user of the broker.", MISUSED)
    return found


def actor(system: Surroundings, *, is_named: bool = False) -> Actor:
    """Who runs the command, and where; exits where that is to be a person, and is none.

    Args:
        system: on which they act.
        is_named: whether it must be a person, as it must in production.
    """
    found = own(system, is_named=is_named or system.settings.environment == "production")
    person = (_who, system.settings.amqp_url)
    if found is not system and person not in _let_in:
        with broker(found):
            _let_in.add(person)  # they are who they say
    return of(found)


def vouch(system: Surroundings, queue: Queue) -> None:
    """Exit where commands would be copied to a queue by a service that nobody believes about them.

    Who gave one would be forgotten: a decision counts as nobody's then, and is refused.

    Args:
        system: by whose user of the broker they are copied.
        queue: where to.
    """
    user = credentials(system.settings.amqp_url)[0]
    gives = any(binding.exchange == topology.COMMANDS for binding in queue.bindings)
    if gives and is_services(user) and user not in believed(queue.name, own_user=login(CONSOLE)):
        stop(
            f"Nothing was done. Who gave the commands of {queue.name} is believed of "
            f"{login(CONSOLE)} alone, and this is {user}: give {login(CONSOLE)} and its password "
            "in AMQP_URL, for this.",
            MISUSED,
        )


def of(system: Surroundings) -> Actor:
    """Who signs in to the broker of a system, and who and where that is on its host."""
    user = credentials(system.settings.amqp_url)[0]
    return Actor(user, f"{getpass.getuser()}@{socket.gethostname()}")


def note_view(system: Surroundings, command: str, of: Sequence[str] = ()) -> None:
    """Tell the audit log that personal data is shown; exits where it is to be shown to nobody.

    Args:
        system: whose data.
        command: which shows it.
        of: the ids of what it is about.
    """
    message = viewed(actor(system), command, of)
    with database_trouble():
        tell(engine(system), [message])


def note_view_where_it_can_be(system: Surroundings, command: str, of: Sequence[str] = ()) -> None:
    """As `note_view`, for what only the broker has: with the database away it is shown as well.

    Then above all people look there; that the audit log was not told is said.
    """
    message = viewed(actor(system), command, of)
    try:
        if system.has_database:
            tell(engine(system), [message])
            return
    except SQLAlchemyError:
        pass
    say("The audit log was not told who looked: the database is away, or not named.")


def _signed_in_as(system: Surroundings, name: str) -> Surroundings:
    known = _own.get((name, system.settings.amqp_url))
    if known is not None:
        return known
    password = os.environ.get("FELLOW_PASSWORD") or getpass.getpass(f"{name}'s password: ")
    theirs = signed_in_as(system.settings.amqp_url, name, password)
    found = replace(system, settings=msgspec.structs.replace(system.settings, amqp_url=theirs))
    _own[name, system.settings.amqp_url] = found
    return found
