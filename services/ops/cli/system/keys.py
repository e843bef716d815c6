"""`fellow keys`: making and rotating keys and passwords."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from services.ops import keys
from services.ops.cli.terminal import say, stop
from shared.config.processes import KEYS

app = typer.Typer(help="Keys and passwords.", no_args_is_help=True)

SECRETS = Path("/project/secrets")


@app.command()
def generate() -> None:
    """Print new random keys and passwords, in the form of an env file."""
    for name, value in keys.generate().items():
        print(f"{name}={value}")


@app.command()
def write(
    folder: Annotated[Path, typer.Argument(help="The folder to make.")] = SECRETS,
    known: Annotated[
        Path | None, typer.Option("--from", help="An env file whose keys and passwords to keep.")
    ] = None,
) -> None:
    """Make the folder of secrets that docker-compose.yml reads; never over an existing one."""
    try:
        lines = known.read_text(encoding="utf-8").splitlines() if known else []
    except OSError as error:
        stop(f"{known} cannot be read: {error.strerror}")
    pairs = (line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))
    named = {name.removeprefix("export ").strip(): _value(name, value) for name, value in pairs}
    try:
        keys.write(folder, {name: value for name, value in named.items() if value})
    except keys.KeysError as error:
        stop(str(error))
    say(f"{folder.name}/ is made: {len(keys.FILES)} files. Keep a copy of it in a safe place.")


def _value(name: str, written: str) -> str:
    """Return a value of an env file as compose reads it: without quotes and comments."""
    text = written.strip()
    quote = text[:1]
    if quote not in ("'", '"'):
        return text.partition(" #")[0].rstrip()
    value, end, rest = text[1:].partition(quote)
    if not end or rest.strip().partition("#")[0] or "\\" in value:
        stop(f"{name.strip()} has quotes that are not read here: write it without any.")
    return value


@app.command()
def give(
    name: Annotated[str, typer.Argument(help=f"Which: {' or '.join(keys.GIVEN)}.")],
    folder: Annotated[Path, typer.Option(help="The folder of secrets.")] = SECRETS,
) -> None:
    """Store a secret from outside, read from standard input; an empty one removes it."""
    if sys.stdin.isatty():
        value = typer.prompt(name, hide_input=True, default="", show_default=False)
    else:
        value = sys.stdin.read()
    try:
        keys.give(folder, name, value.strip())
    except keys.KeysError as error:
        stop(str(error))
    say(f"{name} is in {folder.name}/. docker compose restart notifier ops")


@app.command()
def change(
    name: Annotated[
        str, typer.Argument(help="Whose password: a service, rabbitmq, postgres or standby.")
    ],
    folder: Annotated[Path, typer.Option(help="The folder of secrets.")] = SECRETS,
) -> None:
    """Write a new random password; docs/deploying.md has the next steps."""
    try:
        keys.change(folder, name)
    except keys.KeysError as error:
        stop(str(error))
    say(f"{name} has a new password in {folder.name}/. docs/deploying.md has the next steps.")


@app.command()
def complete(
    folder: Annotated[Path, typer.Option(help="The folder of secrets.")] = SECRETS,
) -> None:
    """Make the files that the folder of an older version lacks."""
    try:
        made = keys.complete(folder)
    except keys.KeysError as error:
        stop(str(error))
    say(f"Made: {', '.join(made)}." if made else "Nothing is lacking.")


@app.command()
def operator(
    name: Annotated[str, typer.Argument(help="The operator's name, as on the console.")],
    remove: Annotated[bool, typer.Option("--remove", help="Remove the password instead.")] = False,
    folder: Annotated[Path, typer.Option(help="The folder of secrets.")] = SECRETS,
) -> None:
    """Give an operator a personal broker user; prints its password."""
    if remove:
        try:
            keys.forget_operator(folder, name)
        except keys.KeysError as error:
            stop(str(error))
        say(f"Now: docker compose exec rabbitmq rabbitmqctl delete_user {name}")
        return
    try:
        password = keys.operator(folder, name)
    except keys.KeysError as error:
        stop(str(error))
    print(password)
    say(f"The broker knows {name} after: docker compose run --rm --no-deps topology")


List = Annotated[str, typer.Argument(help=f"Which list: {', '.join(KEYS)}.")]
Folder = Annotated[Path, typer.Option(help="The folder of secrets.")]


@app.command()
def add(name: List, folder: Folder = SECRETS) -> None:
    """Rotation, first step: append a new key, which decrypts and verifies."""
    _rotate(keys.add, name, folder, "has a new key, the last")


@app.command()
def promote(name: List, folder: Folder = SECRETS) -> None:
    """Rotation, second step: move the last key to the front, where it encrypts or signs."""
    _rotate(keys.promote, name, folder, "begins with its newest key")


@app.command()
def drop(name: List, folder: Folder = SECRETS) -> None:
    """Rotation, third step: drop the last key; what it encrypted or signed becomes invalid."""
    _rotate(keys.drop, name, folder, "has lost its oldest key")


def _rotate(step: Callable[[Path, str], None], name: str, folder: Path, what: str) -> None:
    try:
        step(folder, name)
    except keys.KeysError as error:
        stop(str(error))
    say(
        f"{name.upper()} {what}. docs/deploying.md has the services to restart, and the next steps."
    )
