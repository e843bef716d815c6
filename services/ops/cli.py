"""`fellow`: the operator's command.

Exit codes: 0 done; 1 refused, not carried out yet, or a server is away; 2 a wrong command line or
configuration.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated

import msgspec
import typer
from amqp.exceptions import MessageNacked
from kombu import Connection
from rich.console import Console
from rich.progress import Progress, TextColumn
from rich.table import Table
from sqlalchemy.exc import DBAPIError

from services.ops import decisions, journal, keys, limits, queues, send_command, surroundings
from services.ops.surroundings import Surroundings
from shared.bus import topology
from shared.bus.connect import connect
from shared.config import ConfigurationError
from shared.db.session import make_engine

TIMEOUT = 5.0  # seconds, for the broker to answer

app = typer.Typer(
    help="Order Fellow, for its operators. The system is the one of AMQP_URL and DATABASE_URL or, "
    "where neither is set, the one that `make run` has started in this checkout.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
kyc_app = typer.Typer(help="Decide on KYC applications.", no_args_is_help=True)
keys_app = typer.Typer(help="Keys and passwords.", no_args_is_help=True)
journal_app = typer.Typer(help="The record of the last seven days.", no_args_is_help=True)
app.command()(send_command.send)
app.add_typer(kyc_app, name="kyc")
app.add_typer(keys_app, name="keys")
app.add_typer(journal_app, name="journal")

Business = Annotated[
    str, typer.Argument(help="Account id, email address or business registration number.")
]
Wait = Annotated[
    float, typer.Option(min=0, help="Seconds to wait for the outcome; 0 publishes and goes.")
]
Why = Annotated[str, typer.Option(help="What the business is told.")]


@kyc_app.command()
def approve(business: Business, reason: Why = "", wait: Wait = 5.0) -> None:
    """Approve the business's newest application: it gets a webhook secret."""
    _decide("approve", business, reason, wait)


@kyc_app.command()
def reject(business: Business, reason: Why, wait: Wait = 5.0) -> None:
    """Reject it; the business is told why and may submit again."""
    _decide("reject", business, reason, wait)


@kyc_app.command()
def revoke(business: Business, reason: Why = "", wait: Wait = 5.0) -> None:
    """Take an approval back: the business's secrets stop working at once."""
    _decide("revoke", business, reason, wait)


@app.command("queues")
def show_queues(
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Every queue's depth, consumers and dead letters."""
    with _broker(_find()) as connection:
        found = queues.depths(connection)
    if as_json:
        print(json.dumps([asdict(depth) for depth in found], indent=2))
    else:
        _print_table(found)
    missing = [depth.name for depth in found if depth.messages is None]
    if missing:
        _say(f"{len(missing)} of {len(found)} queues are not there: nothing has declared them yet.")
        raise typer.Exit(1)


@journal_app.command("replay")
def replay_journal(
    since: Annotated[
        str, typer.Option("--from", help="When they were written: 2026-11-23T14:00:00Z.")
    ],
    to_queue: Annotated[str, typer.Option(help="A work queue, such as orders.intake.")],
    until: Annotated[str, typer.Option("--to", help="When they happened at the latest.")] = "",
    types: Annotated[
        str,
        typer.Option(help="Such as order.created,order.*; without it all that the queue is for."),
    ] = "",
    done: Annotated[
        bool,
        typer.Option(
            "--done",
            help="Have them taken for handled, with no effect: after the database was restored "
            "from a backup that does not know of them. What still waits is left alone.",
        ),
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count.")] = False,
) -> None:
    """Put messages of the journal into a queue again. What they did before is not done twice."""
    queue = next((queue for queue in topology.WORK_QUEUES if queue.name == to_queue), None)
    if queue is None:
        _say(f"--to-queue must be one of {', '.join(q.name for q in topology.WORK_QUEUES)}")
        raise typer.Exit(2)
    wanted = [type_.strip() for type_ in types.split(",") if type_.strip()]
    first, last = _time("--from", since), _time("--to", until) if until else datetime.now(UTC)
    system = _find()
    with (
        _broker(system) as reading,
        _broker(system) as writing,
        Progress(TextColumn("{task.description}"), console=Console(stderr=True)) as shown,
    ):
        task = shown.add_task("Reading the journal ...")

        def progress(so_far: journal.Summary) -> None:
            shown.update(task, description=f"{sum(so_far.counts.values())} messages ...")

        try:
            summary = journal.replay(
                writing,
                queue,
                journal.read(reading, first, last),
                types=wanted,
                how="done" if done else "again",
                dry_run=dry_run,
                progress=progress,
            )
        except journal.TooManyWaitError as error:
            _say(f"Nothing was done: {error}. Let the services handle them first.")
            raise typer.Exit(1) from None
    for type_, count in sorted(summary.counts.items()):
        print(f"{count:>9} {type_}")
    if summary.left:
        _say(f"{summary.left} still wait for their turn and were left alone.")
    verb = "would go" if dry_run else "went"
    _say(f"{sum(summary.counts.values())} messages {verb} to {queue.name}.")


def _time(option: str, text: str) -> datetime:
    try:
        given = datetime.fromisoformat(text)
    except ValueError:
        _say(f"{option} must be a time like 2026-11-23T14:00:00Z, and not {text}")
        raise typer.Exit(2) from None
    return given if given.tzinfo else given.replace(tzinfo=UTC)


@keys_app.command("generate")
def generate_keys() -> None:
    """Print new random keys and passwords, in the form of an env file."""
    for name, value in keys.generate().items():
        print(f"{name}={value}")


def _decide(decision: decisions.Decision, business: str, reason: str, wait: float) -> None:
    system = _find()
    try:
        command = decisions.make(decision, business, reason)
    except msgspec.ValidationError as error:
        if "$.reason" in str(error):
            _say("The reason may have up to 4,000 characters, without NUL.")
        else:
            _say(f"This is no account id, email address or registration number: {business}")
        raise typer.Exit(2) from None
    with _broker(system) as connection:
        message_id = decisions.publish(connection, command)
        _say(f"Published: {decision} {business.strip()} (message {message_id}).")
        if not wait:
            return
        if not system.has_database:
            _say("What becomes of it is not looked for without DATABASE_URL. " + _WHERE_TO_LOOK)
            return
        try:
            outcome = decisions.wait(
                connection, make_engine(system.settings), message_id, command, wait
            )
        except DBAPIError:
            _say("The database does not answer, so the outcome cannot be seen. " + _WHERE_TO_LOOK)
            return
    if outcome.state == "refused":
        _say(f"Refused: {outcome.sentence} (now in {decisions.DEAD})")
    else:
        _say(outcome.sentence)
    if outcome.state != "carried out":
        raise typer.Exit(1)


_WHERE_TO_LOOK = f"If it was refused it is in the queue {decisions.DEAD}, with the reason."


def _find() -> Surroundings:
    try:
        return surroundings.find(os.environ)
    except ConfigurationError as error:
        _say(str(error))
        raise typer.Exit(2) from None


@contextmanager
def _broker(system: Surroundings) -> Iterator[Connection]:
    """A connection to the broker; its trouble becomes a sentence and exit code 1."""
    connection = connect(
        system.settings.amqp_url,
        timeout=TIMEOUT,
        transport_options={"read_timeout": TIMEOUT, "write_timeout": TIMEOUT},
    )
    try:
        connection.connect()
        yield connection
    except (*connection.connection_errors, *connection.channel_errors, MessageNacked) as error:
        text = getattr(error, "reply_text", "") or str(error) or type(error).__name__
        _say(f"The broker at {connection.as_uri()} did not do it: {text}")
        raise typer.Exit(1) from None
    finally:
        connection.release()


def _print_table(found: list[queues.Depth]) -> None:
    table = Table("queue", box=None, header_style="bold", pad_edge=False)
    for heading in ("messages", "consumers", "dead"):
        table.add_column(heading, justify="right")
    for depth in found:
        table.add_row(
            depth.name,
            "missing" if depth.messages is None else str(depth.messages),
            "" if depth.consumers is None else str(depth.consumers),
            "" if depth.dead is None else f"[red]{depth.dead}[/]" if depth.dead else "0",
        )
    Console().print(table)


def _say(sentence: str) -> None:
    """One line to the operator, on standard error: standard output is for results."""
    Console(stderr=True, soft_wrap=True, highlight=False, markup=False).print(sentence)


limits.add_to(app, _find, _broker, _say)
