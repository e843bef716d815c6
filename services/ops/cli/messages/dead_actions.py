"""`fellow dead replay|discard|edit|retry-now`: putting dead letters right."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace as but
from datetime import UTC, datetime
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
from services.ops.dead_letters.letter import Criteria
from services.ops.environment import Surroundings
from shared.bus.contract import topology

COUNTED = 1_000


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
    wanted = _asked("Replay {} of " + queue + "?", work_queue(queue), wanted, yes)

    def act(connection: Connection, books: Engine, system: Surroundings, show: Any) -> Progress:
        vouch(system, work_queue(queue))
        return actions.replay(
            connection, books, work_queue(queue), wanted, actor(system), progress=show
        )

    _carry_out(act, "replayed", wanted)


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
    wanted = _asked("Throw {} of " + queue + " away?", work_queue(queue), wanted, yes)

    def act(connection: Connection, books: Engine, system: Surroundings, show: Any) -> Progress:
        return actions.discard(
            connection, books, work_queue(queue), wanted, actor(system), because, progress=show
        )

    _carry_out(act, "discarded", wanted)


def edit(
    queue: QueueName,
    message_id: MessageId,
    body: NewBody = None,
    type_: Annotated[str, typer.Option("--type", help="Another type for it.")] = "",
    yes: Yes = False,
) -> None:
    """Put one letter back with another body, if its consumer would understand that one."""
    system = enter()
    chosen, books = work_queue(queue), engine(system)
    vouch(system, chosen)
    given = None if body is None else read(body, yes)
    with broker(system) as connection, database_trouble():
        letter = search.find(connection, chosen, message_id)
    if letter is None:
        stop(f"There is no dead letter {message_id} in {queue}.")
    note_view(system, "fellow dead edit", [queue, message_id])

    def is_wrong(new: bytes) -> str:
        try:
            actions.validate(chosen, type_ or letter.type, new)
        except actions.NotEditableError as error:
            return str(error)
        return ""

    # No connection waits for an editor, or for an answer.
    with nullcontext(given) if given is not None else edited(letter.text, is_wrong) as new:
        if wrong := is_wrong(new):
            stop(f"Nothing was done. {wrong}")
        confirm(f"Replay {type_ or letter.type} {message_id} with this body?", yes)
        try:
            with broker(system) as connection, database_trouble():
                found = actions.edit(
                    connection,
                    books,
                    chosen,
                    message_id,
                    new,
                    actor(system),
                    death=letter.death,
                    type=type_,
                )
        except (actions.NotEditableError, actions.DiedAgainError) as error:
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

    enter()
    confirm(f"Put back now all that waits on the retry ladder for {queue}?", yes)
    _carry_out(act, "put back", Criteria())


def _selection(ids: list[str] | None, every: bool, wanted: Criteria) -> Criteria:
    if bool(ids) == every:
        stop("Name message ids, or say --all (with --reason, --type ... for some of all).", MISUSED)
    return wanted


def _asked(question: str, queue: topology.Queue, wanted: Criteria, yes: bool) -> Criteria:
    """What was said yes to: of all, those that lie there now."""
    system = enter()
    if wanted.ids or yes:
        return wanted
    with broker(system) as connection, database_trouble():
        found = search.browse(connection, queue, wanted, limit=COUNTED)
    died = [letter.failed_at for letter in found.letters if letter.failed_at is not None]
    as_of = max([datetime.now(UTC), *died])  # by their consumers' clocks
    if wanted.is_empty:
        words = f"all dead letters, {found.total:,},"
    else:
        at_least = "" if found.is_whole else "at least "
        words = f"the dead letters that fit, {at_least}{len(found.letters):,},"
    confirm(question.format(words), yes)
    return but(wanted, as_of=as_of)


def _carry_out(
    act: Callable[[Connection, Engine, Surroundings, Any], Progress],
    verb: str,
    wanted: Criteria,
) -> None:
    system = enter()
    books = engine(system)
    with broker(system) as connection, database_trouble(), progress() as show:
        state = act(
            connection,
            books,
            system,
            lambda so_far: show(f"{so_far.done} {verb}, {so_far.passed} left, of {so_far.total}"),
        )
    say(f"{state.done} {verb}, {state.passed} left.")
    for sentence in actions.missed(state, wanted):
        say(sentence)
    if state.done < len(wanted.ids):
        raise typer.Exit(FAILED)
