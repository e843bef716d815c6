"""What every command needs: the system it works on, and how it speaks.

Exit codes: 0 done; 1 refused, not carried out yet, something is wrong, or a server is away; 2 a
wrong command line or configuration. Results go to standard output, all else to standard error.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, NoReturn

import msgspec
import typer
from amqp.exceptions import AMQPError, MessageNacked
from kombu import Connection
from rich.console import Console
from rich.progress import Progress, TextColumn
from rich.text import Text
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from services.ops import environment
from services.ops.broker import queue_lock
from services.ops.broker.connection import open_connection
from services.ops.broker.hold import BusyError
from services.ops.commands.giving import NotKnownError
from services.ops.environment import Surroundings
from shared.bus.broker import addresses
from shared.bus.broker.refusal import explain
from shared.config.environment import ConfigurationError
from shared.db.session import make_engine

FAILED, MISUSED = 1, 2
BUSY = "Somebody else is at work there: what they have in hand is not among these."
# Of C0 but tab and line feed, DEL, C1, and what turns the direction of a text (Unicode, UAX #9).
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
WHOLE = 100_000  # columns; a table takes what it needs of them

AsJson = Annotated[bool, typer.Option("--json", help="For programs.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask first.")]


def find_system() -> Surroundings:
    """The system that is meant; exits when its configuration is no good."""
    try:
        system = environment.find(os.environ)
    except ConfigurationError as error:
        stop(str(error), MISUSED)
    queue_lock.meet_in(make_engine(system.settings) if system.has_database else None)
    return system


@contextmanager
def broker(system: Surroundings) -> Iterator[Connection]:
    """A connection to the broker; its trouble becomes a sentence and exit code 1."""
    url = system.settings.amqp_url
    try:
        with open_connection(url) as connection:
            yield connection
    except (NotKnownError, BusyError) as error:
        stop(str(error))
    except (OSError, AMQPError, MessageNacked) as error:
        stop(f"The broker at {addresses.place(url)} does not confirm it: {explain(error).sentence}")


def engine(system: Surroundings) -> Engine:
    """The database's engine; exits when its address is not known."""
    if not system.has_database:
        stop("This needs DATABASE_URL.", MISUSED)
    return make_engine(system.settings)


@contextmanager
def database(system: Surroundings) -> Iterator[Session]:
    """A session to read by; its trouble becomes a sentence and exit code 1."""
    with database_trouble(), Session(engine(system)) as session:
        yield session


@contextmanager
def database_trouble() -> Iterator[None]:
    """Turns the database's trouble into a sentence and exit code 1."""
    try:
        yield
    except SQLAlchemyError as error:
        cause = getattr(error, "orig", None) or error
        stop(f"The database did not do it: {' '.join(str(cause).split())}")


@contextmanager
def progress() -> Iterator[Any]:
    """A line on standard error that says how far it is; call what it yields with the text."""
    with Progress(TextColumn("{task.description}"), console=Console(stderr=True)) as shown:
        task = shown.add_task("")
        yield lambda text: shown.update(task, description=text)


def visible(text: str) -> str:
    """A text whose control characters are seen, and not obeyed: others have written it."""
    return _CONTROLS.sub(lambda found: f"\\x{ord(found[0]):02x}", text)


class _Console(Console):
    def render_str(self, text: str, **options: Any) -> Text:
        """Whatever is printed, and every cell of a table; a pipe has it as it is."""
        return super().render_str(visible(text) if self.is_terminal else text, **options)


def results(**more: Any) -> Console:
    """Standard output, for results. Where it is no terminal, no line is cut or broken.

    Args:
        more: what else rich's `Console` is to know.
    """
    console = _Console(**({"markup": False, "highlight": False} | more))
    if not console.is_terminal:
        console.width = WHOLE
    return console


def say(sentence: str) -> None:
    """One line to the operator, on standard error: standard output is for results."""
    _Console(stderr=True, soft_wrap=True, highlight=False, markup=False).print(sentence)


def stop(sentence: str, code: int = FAILED) -> NoReturn:
    """Say why, and exit."""
    say(sentence)
    raise typer.Exit(code) from None


def print_json(value: Any) -> None:
    """A result for programs: times in RFC 3339, ids as text, bytes in base64."""
    print(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def confirm(question: str, yes: bool) -> None:
    """Ask before what cannot be taken back; exits unless the answer is yes."""
    if not yes and not typer.confirm(question, err=True):
        raise typer.Exit(FAILED)


def parse_time(option: str, text: str) -> datetime:
    """A time on the command line; UTC where it does not say."""
    try:
        given = datetime.fromisoformat(text)
    except ValueError:
        stop(f"{option} must be a time like 2026-11-23T14:00:00Z, and not {text}", MISUSED)
    return given if given.tzinfo else given.replace(tzinfo=UTC)


_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def parse_age(option: str, text: str) -> timedelta:
    """An age on the command line: `90s`, `15m`, `2h`, `3d`."""
    number, unit = text[:-1], text[-1:]
    if unit not in _UNITS or not number.isdecimal():
        stop(f"{option} must be an age like 90s, 15m, 2h or 3d, and not {text}", MISUSED)
    return timedelta(seconds=int(number) * _UNITS[unit])


def local(time: datetime | None) -> str:
    """A time for people: UTC, to the second."""
    return "" if time is None else time.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ")
