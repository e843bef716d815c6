"""Shared by all commands: the target system, connections, output and exit codes.

Exit codes: 0 done; 1 refused, not carried out yet, a finding, or a server is unreachable; 2 a wrong
command line or configuration. Results go to standard output, everything else to standard error.
"""

import getpass
import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, NoReturn

import msgspec
import rich.table
import typer
from kombu import Connection
from rich.console import Console
from rich.progress import Progress, TextColumn
from rich.table import Column
from rich.text import Text
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from services.ops import environment
from services.ops.broker import queue_lock
from services.ops.broker.connection import BROKER_ERRORS, open_connection
from services.ops.broker.hold import BusyError
from services.ops.commands.giving import NotKnownError
from services.ops.environment import Target
from shared.bus.broker import addresses
from shared.bus.broker.refusal import explain
from shared.config.environment import ConfigurationError
from shared.db.session import make_engine, message_of
from shared.ids import is_id

FAILED, MISUSED = 1, 2
BUSY = "Somebody else is at work there: what they have in hand is not among these."
# C0 but tab and line feed, DEL, C1, and the characters that change a text's direction (UAX #9).
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
ID_LENGTH = 36  # RFC 9562, 4
WIDEST = 100_000  # columns, of which a table uses those that it needs

AsJson = Annotated[bool, typer.Option("--json", help="For programs.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask first.")]


def find_system() -> Target:
    """Return the system of the environment; exits if its configuration is invalid."""
    try:
        system = environment.find(os.environ)
    except ConfigurationError as error:
        stop(str(error), MISUSED)
    queue_lock.use_database(make_engine(system.settings) if system.has_database else None)
    return system


@contextmanager
def broker(system: Target) -> Iterator[Connection]:
    """Connect to the broker; its errors end the command with a message and exit code 1."""
    url = system.settings.amqp_url
    try:
        with open_connection(url) as connection:
            yield connection
    except (NotKnownError, BusyError) as error:
        stop(str(error))
    except BROKER_ERRORS as error:
        stop(f"The broker at {addresses.place(url)} does not confirm it: {explain(error).sentence}")


def engine(system: Target) -> Engine:
    """Return the database's engine; exits if its address is not known."""
    if not system.has_database:
        stop("This needs DATABASE_URL.", MISUSED)
    return make_engine(system.settings)


@contextmanager
def database(system: Target) -> Iterator[Session]:
    """Open a session to read with; errors end the command with a message and exit code 1."""
    with database_trouble(), Session(engine(system)) as session:
        yield session


@contextmanager
def database_trouble() -> Iterator[None]:
    """End the command with a message and exit code 1 if the database fails."""
    try:
        yield
    except SQLAlchemyError as error:
        stop(f"The database did not do it: {message_of(error)}")


@contextmanager
def progress() -> Iterator[Any]:
    """Show a progress line on standard error; yields a function that sets its text."""
    with Progress(TextColumn("{task.description}"), console=Console(stderr=True)) as shown:
        task = shown.add_task("")
        yield lambda text: shown.update(task, description=text)


def visible(text: str) -> str:
    """Escape control characters, which a text of others could use to control the terminal."""
    return _CONTROLS.sub(lambda found: f"\\x{ord(found[0]):02x}", text)


class _Console(Console):
    def render_str(self, text: str, **options: Any) -> Text:
        """Escape printed texts and table cells on a terminal; a pipe gets them unmodified."""
        return super().render_str(visible(text) if self.is_terminal else text, **options)


class Table(rich.table.Table):
    """A table of results. On a narrow terminal cells are folded, but columns of ids are kept whole,
    so that an id can be copied.
    """

    def __init__(self, *headings: str, **more: Any) -> None:
        columns = (Column(heading, overflow="fold") for heading in headings)
        super().__init__(*columns, **({"box": None, "pad_edge": False} | more))
        self._have_texts: set[int] = set()

    def add_row(self, *cells: Any, **more: Any) -> None:
        """Add a row; see the class."""
        super().add_row(*cells, **more)
        for number, (column, cell) in enumerate(zip(self.columns, cells, strict=False)):
            text = str(cell)
            if len(text) > ID_LENGTH:  # a column that does not fold would cut it
                self._have_texts.add(number)
            column.overflow = "fold"
            is_whole = number not in self._have_texts and (column.no_wrap or is_id(text))
            column.no_wrap, column.min_width = is_whole, ID_LENGTH if is_whole else None


def results(**more: Any) -> Console:
    """Return the console of standard output, which on a pipe neither cuts nor folds lines.

    Args:
        more: further options of rich's `Console`.
    """
    console = _Console(**({"markup": False, "highlight": False} | more))
    if not console.is_terminal:
        console.width = WIDEST
    return console


def say(sentence: str) -> None:
    """Print a line to standard error; standard output is for results."""
    _Console(stderr=True, soft_wrap=True, highlight=False, markup=False).print(sentence)


def stop(sentence: str, code: int = FAILED) -> NoReturn:
    """Print a line to standard error, and exit."""
    say(sentence)
    raise typer.Exit(code) from None


def print_json(value: Any) -> None:
    """Print a result as JSON: times in RFC 3339, ids as text, bytes in base64."""
    print(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def confirm(question: str, yes: bool) -> None:
    """Ask before an irreversible action; exits unless the answer is yes."""
    if not yes and not typer.confirm(question, err=True):
        raise typer.Exit(FAILED)


def ask_password(which: str, remedy: str) -> str:
    """Ask for a password on the terminal; exits if there is none.

    getpass would then read standard input, which may be a message's body.

    Args:
        which: whose password it is.
        remedy: how to do without a terminal.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", getpass.GetPassWarning)
            return getpass.getpass(f"{which}: ")
    except (getpass.GetPassWarning, EOFError):
        stop(f"{which} cannot be asked for without a terminal: {remedy}.", MISUSED)


def parse_time(option: str, text: str) -> datetime:
    """Parse a time of the command line; UTC if it has no zone."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        stop(f"{option} must be a time like 2026-11-23T14:00:00Z, and not {text}", MISUSED)
    return time if time.tzinfo else time.replace(tzinfo=UTC)


_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def parse_age(option: str, text: str) -> timedelta:
    """Parse an age of the command line: `90s`, `15m`, `2h`, `3d`."""
    number, unit = text[:-1], text[-1:]
    if unit not in _UNITS or not number.isdecimal():
        stop(f"{option} must be an age like 90s, 15m, 2h or 3d, and not {text}", MISUSED)
    try:
        age = timedelta(seconds=int(number) * _UNITS[unit])
        _ = datetime.now(UTC) - age
    except (OverflowError, ValueError):
        stop(f"{option} is too long ago: {text[:40]}", MISUSED)
    return age


def local(time: datetime | None) -> str:
    """Format a time in UTC, to the second; empty for None."""
    return "" if time is None else time.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ")
