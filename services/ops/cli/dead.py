"""`fellow dead`: looking through dead letters, and putting them right."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from click import edit as open_editor
from kombu import Connection
from rich.console import Console
from rich.table import Table
from sqlalchemy import Engine

from services.ops import dead_actions, dead_letters, retry_now
from services.ops.cli.terminal import (
    FAILED,
    MISUSED,
    AsJson,
    Yes,
    actor,
    broker,
    confirm,
    database_trouble,
    engine,
    find_system,
    local,
    parse_age,
    print_json,
    progress,
    say,
    stop,
)
from services.ops.dead_actions import Progress
from services.ops.letters import Criteria, Letter
from services.ops.surroundings import Surroundings
from shared.bus import topology
from shared.db.session import make_engine

app = typer.Typer(help="Messages that nobody could handle.", no_args_is_help=True)

QueueName = Annotated[str, typer.Argument(metavar="QUEUE", help="A work queue: orders.intake.")]
MessageId = Annotated[str, typer.Argument(metavar="ID", help="The message id.")]
Ids = Annotated[
    list[str] | None, typer.Argument(metavar="[ID]...", help="Message ids; or say --all.")
]
All = Annotated[bool, typer.Option("--all", help="All that the options below leave over.")]
Reason = Annotated[str, typer.Option(help="A part of the reason they died of.")]
Type = Annotated[str, typer.Option("--type", help="Their type: order.created.")]
About = Annotated[str, typer.Option(help="The order or account that they are about.")]
Older = Annotated[str, typer.Option(help="Died longer ago than: 15m, 2h, 3d.")]
Younger = Annotated[str, typer.Option(help="Died less long ago than: 15m, 2h, 3d.")]


@app.command("list")
def list_letters(
    queue: Annotated[
        str | None,
        typer.Argument(metavar="[QUEUE]", help="A work queue; without it all, by reason."),
    ] = None,
    reason: Reason = "",
    type_: Type = "",
    about: About = "",
    older: Older = "",
    younger: Younger = "",
    start: Annotated[int, typer.Option(min=0, help="The position to begin at.")] = 0,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many.")] = 100,
    as_json: AsJson = False,
) -> None:
    """A queue's dead letters, first died first; without a queue, what they all died of."""
    system = find_system()
    if queue is None:
        _summary(system, as_json)
        return
    wanted = _criteria((), reason, type_, about, older, younger)
    with broker(system) as connection, database_trouble():
        page = dead_letters.browse(
            connection,
            _queue(queue),
            wanted,
            start=start,
            limit=limit,
            engine=_meeting_place(system),
        )
    if as_json:
        print_json(
            {"letters": [_json(x) for x in page.letters], "total": page.total, "next": page.next}
        )
        return
    table = Table("died", "id", "type", "tries", "reason", box=None, pad_edge=False)
    for letter in page.letters:
        tries = str(letter.attempts)
        died = local(letter.failed_at)
        table.add_row(died, letter.message_id, letter.type, tries, letter.reason)
    Console(markup=False).print(table)
    say(f"{len(page.letters)} of {page.total} dead letters.")
    if page.next is not None:
        say(f"Go on with --start {page.next}.")
    if not page.alone:
        say("Somebody else is at work in this queue: what they have in hand is not among these.")


@app.command()
def show(queue: QueueName, message_id: MessageId, as_json: AsJson = False) -> None:
    """One letter: its body, its headers, why each attempt failed."""
    system = find_system()
    with broker(system) as connection, database_trouble():
        letter = dead_letters.find(
            connection, _queue(queue), message_id, engine=_meeting_place(system)
        )
    if letter is None:
        stop(f"There is no dead letter {message_id} in {queue}.")
    if as_json:
        print_json(_json(letter))
        return
    console = Console(markup=False, highlight=False, soft_wrap=True)
    console.print(f"{letter.type} {letter.message_id}, about {letter.correlation_id or 'nothing'}")
    console.print(f"died {local(letter.failed_at)} after {letter.attempts} attempts:")
    for reason in letter.reasons or (letter.reason,):
        console.print(f"  {reason}")
    for name, value in sorted(letter.incoming.headers.items()):
        console.print(f"{name}: {value}")
    console.print(f"\n{letter.text}")


@app.command()
def replay(
    queue: QueueName,
    ids: Ids = None,
    every: All = False,
    reason: Reason = "",
    type_: Type = "",
    about: About = "",
    older: Older = "",
    younger: Younger = "",
    yes: Yes = False,
) -> None:
    """Put letters back into their work queue, as if they had never been tried."""
    wanted = _selection(ids, every, _criteria(ids or (), reason, type_, about, older, younger))

    def act(connection: Connection, books: Engine, system: Surroundings, show: Any) -> Progress:
        return dead_actions.replay(
            connection, books, _queue(queue), wanted, actor(system), progress=show
        )

    _carry_out(act, "replayed", f"Replay {_in_words(wanted)} of {queue}?", wanted, yes)


@app.command()
def discard(
    queue: QueueName,
    because: Annotated[str, typer.Option(help="Why; kept in the audit log.")],
    ids: Ids = None,
    every: All = False,
    reason: Reason = "",
    type_: Type = "",
    about: About = "",
    older: Older = "",
    younger: Younger = "",
    yes: Yes = False,
) -> None:
    """Throw letters away."""
    if not because.strip():
        stop("--because must say why.", MISUSED)
    wanted = _selection(ids, every, _criteria(ids or (), reason, type_, about, older, younger))

    def act(connection: Connection, books: Engine, system: Surroundings, show: Any) -> Progress:
        return dead_actions.discard(
            connection, books, _queue(queue), wanted, actor(system), because, progress=show
        )

    _carry_out(act, "discarded", f"Throw {_in_words(wanted)} of {queue} away?", wanted, yes)


@app.command()
def edit(
    queue: QueueName,
    message_id: MessageId,
    body: Annotated[
        Path | None,
        typer.Option(help="A file with the new body, - for standard input; else $EDITOR opens."),
    ] = None,
    type_: Annotated[str, typer.Option("--type", help="Another type for it.")] = "",
) -> None:
    """Put one letter back with another body, if its consumer would understand that one."""
    system = find_system()
    chosen, books = _queue(queue), engine(system)
    with broker(system) as connection, database_trouble():
        letter = dead_letters.find(connection, chosen, message_id, engine=books)
        if letter is None:
            stop(f"There is no dead letter {message_id} in {queue}.")
        new = _new_body(letter, body)
        try:
            found = dead_actions.edit(
                connection, books, chosen, message_id, new, actor(system), type=type_
            )
        except dead_actions.NotEditableError as error:
            stop(f"Nothing was done. {error}")
    if not found:
        stop(f"The dead letter {message_id} is not there any more.")
    say("Back in its queue, with the new body.")


@app.command("retry-now")
def retry(queue: QueueName) -> None:
    """Put back at once what waits on the retry ladder for a queue."""

    def act(connection: Connection, books: Engine, system: Surroundings, show: Any) -> Progress:
        return retry_now.retry_now(connection, books, _queue(queue), actor(system), progress=show)

    _carry_out(act, "put back", "", Criteria(), yes=True)


def _summary(system: Surroundings, as_json: bool) -> None:
    meeting_place = _meeting_place(system)
    with broker(system) as connection, database_trouble():
        found = {
            queue.name: dead_letters.summarise(connection, queue, engine=meeting_place)
            for queue in topology.WORK_QUEUES
        }
    if as_json:
        print_json(found)
        return
    table = Table("queue", "letters", "type", "died", "of", box=None, pad_edge=False)
    for name, summary in found.items():
        for group in summary.groups:
            since = local(group.oldest)
            table.add_row(name, str(group.count), group.type, since, group.kind)
    Console(markup=False).print(table)
    say(f"{sum(summary.total for summary in found.values())} dead letters.")


def _carry_out(
    act: Callable[[Connection, Engine, Surroundings, Any], Progress],
    verb: str,
    question: str,
    wanted: Criteria,
    yes: bool,
) -> None:
    system = find_system()
    books = engine(system)
    if question and not wanted.ids:
        confirm(question, yes)
    with broker(system) as connection, database_trouble(), progress() as show:
        state = act(
            connection,
            books,
            system,
            lambda so_far: show(f"{so_far.done} {verb}, {so_far.passed} left, of {so_far.total}"),
        )
    say(f"{state.done} {verb}, {state.passed} left.")
    if unseen := state.total - state.done - state.passed:
        say(f"{unseen} were not looked at.")
    if not state.alone:
        say("Somebody else is at work there: what they had in hand was missed. Run it again.")
    if wanted.ids and state.done < len(wanted.ids):
        say(f"{len(wanted.ids) - state.done} of those named were not there.")
        raise typer.Exit(FAILED)


def _new_body(letter: Letter, body: Path | None) -> bytes:
    if body is not None:
        return sys.stdin.buffer.read() if str(body) == "-" else body.read_bytes()
    edited: str | None = open_editor(letter.text, extension=".json", require_save=True)
    if edited is None:
        stop("Nothing was changed, and nothing done.")
    return edited.encode()


def _queue(name: str) -> topology.Queue:
    try:
        return dead_letters.work_queue(name)
    except dead_letters.NoSuchQueueError as error:
        stop(str(error), MISUSED)


def _criteria(ids: Any, reason: str, type_: str, about: str, older: str, younger: str) -> Criteria:
    return Criteria(
        ids=frozenset(ids),
        reason=reason,
        type=type_,
        correlation_id=about,
        older_than=parse_age("--older", older) if older else None,
        younger_than=parse_age("--younger", younger) if younger else None,
    )


def _selection(ids: list[str] | None, every: bool, wanted: Criteria) -> Criteria:
    if bool(ids) == every:
        stop("Name message ids, or say --all (with --reason, --type ... for some of all).", MISUSED)
    return wanted


def _in_words(wanted: Criteria) -> str:
    return "all dead letters" if wanted.is_empty else "the dead letters that fit"


def _meeting_place(system: Surroundings) -> Engine | None:
    return make_engine(system.settings) if system.has_database else None


def _json(letter: Letter) -> dict[str, Any]:
    return {
        "queue": letter.queue,
        "position": letter.position,
        "message_id": letter.message_id,
        "type": letter.type,
        "reason": letter.reason,
        "reasons": letter.reasons,
        "attempts": letter.attempts,
        "failed_at": letter.failed_at,
        "first_failed_at": letter.first_failed_at,
        "correlation_id": letter.correlation_id,
        "consumer": letter.consumer,
        "user": letter.user,
        "headers": {name: str(value) for name, value in letter.incoming.headers.items()},
        "body": letter.text,
    }
