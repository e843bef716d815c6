"""`fellow dead replay|discard|edit|retry-now`: putting dead letters right."""

from collections.abc import Callable
from typing import Annotated, Any

import typer
from kombu import Connection
from sqlalchemy import Engine

from services.ops.cli.acting import actor, enter, note_view, vouch
from services.ops.cli.messages.bodies import NewBody, edited, read
from services.ops.cli.messages.dead_options import (
    About,
    All,
    Ids,
    MessageId,
    Older,
    QueueName,
    Reason,
    Type,
    Younger,
    criteria,
    work_queue,
)
from services.ops.cli.terminal import (
    FAILED,
    MISUSED,
    Yes,
    broker,
    confirm,
    database_trouble,
    engine,
    progress,
    say,
    stop,
)
from services.ops.dead_letters import actions, retry_queue, search
from services.ops.dead_letters.actions import Progress
from services.ops.dead_letters.authors import ORPHANED
from services.ops.dead_letters.letter import Criteria
from services.ops.environment import Surroundings


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
    wanted = _selection(ids, every, criteria(ids or (), reason, type_, about, older, younger))

    def act(connection: Connection, books: Engine, system: Surroundings, show: Any) -> Progress:
        vouch(system, work_queue(queue))
        return actions.replay(
            connection, books, work_queue(queue), wanted, actor(system), progress=show
        )

    _carry_out(act, "replayed", f"Replay {_in_words(wanted)} of {queue}?", wanted, yes)


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
    wanted = _selection(ids, every, criteria(ids or (), reason, type_, about, older, younger))

    def act(connection: Connection, books: Engine, system: Surroundings, show: Any) -> Progress:
        return actions.discard(
            connection, books, work_queue(queue), wanted, actor(system), because, progress=show
        )

    _carry_out(act, "discarded", f"Throw {_in_words(wanted)} of {queue} away?", wanted, yes)


def edit(
    queue: QueueName,
    message_id: MessageId,
    body: NewBody = None,
    type_: Annotated[str, typer.Option("--type", help="Another type for it.")] = "",
) -> None:
    """Put one letter back with another body, if its consumer would understand that one."""
    system = enter()
    chosen, books = work_queue(queue), engine(system)
    vouch(system, chosen)
    with broker(system) as connection, database_trouble():
        letter = search.find(connection, chosen, message_id)
        if letter is None:
            stop(f"There is no dead letter {message_id} in {queue}.")
        note_view(system, "fellow dead edit", [queue, message_id])
        new = read(body) if body is not None else edited(letter.text)
        try:
            found = actions.edit(
                connection, books, chosen, message_id, new, actor(system), type=type_
            )
        except actions.NotEditableError as error:
            stop(f"Nothing was done. {error}")
    if not found:
        stop(f"The dead letter {message_id} is not there any more.")
    say("Back in its queue, with the new body.")


def retry(queue: QueueName, yes: Yes = False) -> None:
    """Put back at once what waits on the retry ladder for a queue."""

    def act(connection: Connection, books: Engine, system: Surroundings, show: Any) -> Progress:
        vouch(system, work_queue(queue))
        return retry_queue.retry_now(
            connection, books, work_queue(queue), actor(system), progress=show
        )

    question = f"Put back now all that waits on the retry ladder for {queue}?"
    _carry_out(act, "put back", question, Criteria(), yes)


def _selection(ids: list[str] | None, every: bool, wanted: Criteria) -> Criteria:
    if bool(ids) == every:
        stop("Name message ids, or say --all (with --reason, --type ... for some of all).", MISUSED)
    return wanted


def _in_words(wanted: Criteria) -> str:
    return "all dead letters" if wanted.is_empty else "the dead letters that fit"


def _carry_out(
    act: Callable[[Connection, Engine, Surroundings, Any], Progress],
    verb: str,
    question: str,
    wanted: Criteria,
    yes: bool,
) -> None:
    system = enter()
    books = engine(system)
    if not wanted.ids:
        confirm(question, yes)
    with broker(system) as connection, database_trouble(), progress() as show:
        state = act(
            connection,
            books,
            system,
            lambda so_far: show(f"{so_far.done} {verb}, {so_far.passed} left, of {so_far.total}"),
        )
    say(f"{state.done} {verb}, {state.passed} left.")
    if state.orphaned:
        say(f"{state.orphaned} of them: {ORPHANED}")
    if unseen := state.total - state.done - state.passed:
        say(f"{unseen} were not looked at.")
    if not state.alone:
        say("Somebody else is at work there: what they had in hand was missed. Run it again.")
    if wanted.ids and state.done < len(wanted.ids):
        say(f"{len(wanted.ids) - state.done} of those named were not there.")
        raise typer.Exit(FAILED)
