"""`fellow users`: who may sign in to the ops console."""

import secrets
from typing import Annotated
from uuid import UUID

import typer
from sqlalchemy.orm import Session

from services.ops.audit.actions import about
from services.ops.cli.acting import actor, sign_in
from services.ops.cli.terminal import (
    MISUSED,
    AsJson,
    Table,
    Yes,
    ask_password,
    confirm,
    database,
    database_trouble,
    engine,
    find_system,
    local,
    print_json,
    results,
    say,
    stop,
)
from services.ops.environment import Target
from services.ops.users import second_factor, sessions, users
from services.ops.users.rights import WATCH, parse, written
from services.ops.users.users import UnfitUserError, User
from shared.bus import outbox
from shared.bus.contract.events import OpsSecondFactorChanged, OpsSessionsEnded, OpsUserChanged

app = typer.Typer(help="Who may sign in to the ops console.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="Letters, digits, dots, underscores and hyphens.")]


Role = Annotated[
    str,
    typer.Option(
        help="watch: look, persons masked; act: everything; or some of kyc, messages, customers."
    ),
]


@app.command()
def add(
    name: Name,
    role: Role = WATCH,
    generate: Annotated[
        bool, typer.Option("--generate", help="Make and print a password instead of asking.")
    ] = False,
) -> None:
    """Make a user, or give one a new role and password."""
    password = secrets.token_urlsafe(15) if generate else _ask_new_password(name)
    enrolment_code = _put(name, role, password)
    if generate:
        print(password)
    _show(enrolment_code)


@app.command("role")
def change_role(name: Name, role: Annotated[str, typer.Argument(help="See add.")]) -> None:
    """Give a user another role; they must sign in again."""
    _put(name, role, None)


@app.command()
def remove(name: Name, yes: Yes = False) -> None:
    """Remove a user, and end their sessions."""
    confirm(f"Remove {name}?", yes)
    system = sign_in()
    with database_trouble(), Session(engine(system)) as session, session.begin():
        if not users.remove(session, name):
            stop(f"There is no user {name}.")
        _record(system, session, name.strip().lower(), "")
    say(f"{name} was removed.")


@app.command("reset-second-factor")
def reset_second_factor(name: Name, yes: Yes = False) -> None:
    """Remove a user's second factor and recovery codes, and end their sessions.

    The next sign-in then needs the password alone or, where a second factor is required, also an
    enrolment code that is printed: be sure of the user's identity.
    """
    confirm(f"Take the second factor of {name} away?", yes)
    system = sign_in()
    with database_trouble(), Session(engine(system)) as session, session.begin():
        if not second_factor.reset(session, name):
            stop(f"There is no user {name} with a second factor.")
        who, user = actor(system), name.strip().lower()
        fact = OpsSecondFactorChanged(**who.fields, user=user, change="reset")
        outbox.add(session, [about(fact, user)])
        enrolment_code = _enrolment_code(system, session, name)
    say(f"{name} has no second factor any more.")
    _show(enrolment_code)


@app.command("sessions")
def list_sessions(
    name: Name,
    end: Annotated[str, typer.Option(help="End one, by its id; or all.")] = "",
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """List a user's console sessions: since when, last used, from where, with what browser."""
    system = sign_in()
    with database(system) as session:
        user = users.find(session, name)
        found = sessions.listed(session, user.id, system.settings) if user else []
    if user is None:
        stop(f"There is no user {name}.")
    if end:
        _end_sessions(system, user, end, yes)
        return
    if as_json:
        print_json(found)
        return
    table = Table("session", "since", "last used", "from", "browser")
    for one in found:
        since, used = local(one.created_at), local(one.seen_at)
        table.add_row(str(one.id), since, used, one.where.network, one.where.client)
    results().print(table)
    say(f"{len(found)} sessions.")


def _end_sessions(system: Target, user: User, wanted: str, yes: bool) -> None:
    try:
        one = None if wanted == "all" else UUID(wanted)
    except ValueError:
        stop(f"--end must be a session's id or all, and not {wanted}.", MISUSED)
    confirm(f"End {'all sessions' if one is None else 'this session'} of {user.name}?", yes)
    with database_trouble(), Session(engine(system)) as session, session.begin():
        if one is None:
            count = sessions.end_others(session, user.id)
        elif not (count := sessions.end_one(session, user.id, one)):
            stop(f"{user.name} has no session {one}.")
        who = actor(system)
        fact = OpsSessionsEnded(**who.fields, user=user.name, sessions=count)
        outbox.add(session, [about(fact, user.name)])
    say(f"{count} ended.")


@app.command("list")
def list_users(as_json: AsJson = False) -> None:
    """List the users."""
    with database(find_system()) as session:
        found = users.listed(session)
    if as_json:
        print_json(found)
        return
    table = Table("name", "role", "since", "second factor since")
    for user in found:
        table.add_row(user.name, user.role, local(user.created_at), local(user.second_factor_since))
    results().print(table)


def _ask_new_password(name: str) -> str:
    of = f"The new password of {name}"
    password = ask_password(of, "--generate makes one")
    if ask_password(f"{of}, again", "--generate makes one") != password:
        stop("The two differ.")
    return password


def _put(name: str, role: str, password: str | None) -> str:
    """Make or change a user; returns a new enrolment code, if a new password needs one."""
    system = sign_in()
    with database_trouble(), Session(engine(system)) as session, session.begin():
        try:
            is_new = users.put(session, name, role, password)
        except UnfitUserError as error:
            stop(str(error))
        role = written(parse(role))
        _record(system, session, name.strip().lower(), role)
        enrolment_code = "" if password is None else _enrolment_code(system, session, name)
    say(f"{name} {'may now' if is_new else 'was there; now may'} {role}.")
    return enrolment_code


def _enrolment_code(system: Target, session: Session, name: str) -> str:
    is_required = system.settings.ops_second_factor == "required"
    return second_factor.make_enrolment_code(session, name) if is_required else ""


def _show(enrolment_code: str) -> None:
    if enrolment_code:
        say("Their enrolment code, shown this once, with which they set up the second factor:")
        print(enrolment_code)


def _record(system: Target, session: Session, name: str, role: str) -> None:
    who = actor(system)
    changed = OpsUserChanged(**who.fields, user=name, role=role)
    outbox.add(session, [about(changed, name)])
