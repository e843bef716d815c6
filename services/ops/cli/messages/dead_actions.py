"""`fellow dead replay|discard|edit|retry-now`: actions on dead letters."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace as but
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from kombu import Connection
from sqlalchemy import Engine

from services.ops.audit.actions import unfit
from services.ops.cli.acting import actor, note_view, require_believed_user, sign_in
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
from services.ops.dead_letters import actions, editing, retry_queue, search
from services.ops.dead_letters.actions import Progress
from services.ops.dead_letters.letter import Criteria
from services.ops.environment import Target
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
    """Return letters to their work queue, with their attempts reset."""
    wanted = _selection(ids, every, criteria(ids or (), reason, type_, about, older, younger))
    wanted = _confirmed("Replay {} of " + queue + "?", work_queue(queue), wanted, yes)

    def act(connection: Connection, db: Engine, system: Target, show: Any) -> Progress:
        require_believed_user(system, work_queue(queue))
        return actions.replay(
            connection, db, work_queue(queue), wanted, actor(system), progress=show
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
    """Discard letters."""
    if wrong := unfit(because):
        stop(f"--because {wrong}.", MISUSED)
    wanted = _selection(ids, every, criteria(ids or (), reason, type_, about, older, younger))
    wanted = _confirmed("Throw {} of " + queue + " away?", work_queue(queue), wanted, yes)

    def act(connection: Connection, db: Engine, system: Target, show: Any) -> Progress:
        return actions.discard(
            connection, db, work_queue(queue), wanted, actor(system), because, progress=show
        )

    _carry_out(act, "discarded", wanted)


def edit(
    queue: QueueName,
    message_id: MessageId,
    body: NewBody = None,
    type_: Annotated[str, typer.Option("--type", help="Another type for it.")] = "",
    yes: Yes = False,
) -> None:
    """Replay one letter with another body, if its consumer would understand that."""
    system = sign_in()
    chosen, db = work_queue(queue), engine(system)
    require_believed_user(system, chosen, is_own=True)
    given = None if body is None else read(body, yes)
    with broker(system) as connection, database_trouble():
        letter = search.find(connection, chosen, message_id)
    if letter is None:
        stop(f"There is no dead letter {message_id} in {queue}.")
    note_view(system, "fellow dead edit", [queue, message_id])

    def is_wrong(new: bytes) -> str:
        try:
            editing.validate(chosen, type_ or letter.type, new)
        except editing.NotEditableError as error:
            return str(error)
        return ""

    # The connection is not kept open during editing and confirming.
    with nullcontext(given) if given is not None else edited(letter.text, is_wrong) as new:
        if wrong := is_wrong(new):
            stop(f"Nothing was done. {wrong}")
        confirm(f"Replay {type_ or letter.type} {message_id} with this body?", yes)
        try:
            with broker(system) as connection, database_trouble():
                found = editing.edit(
                    connection,
                    db,
                    chosen,
                    message_id,
                    new,
                    actor(system),
                    death=letter.death,
                    type=type_,
                )
        except (editing.NotEditableError, editing.DiedAgainError) as error:
            stop(f"Nothing was done. {error}")
        if not found:
            stop(f"The dead letter {message_id} no longer exists.")
    say("Back in its queue, with the new body.")


def retry(queue: QueueName, yes: Yes = False) -> None:
    """Return a queue's messages on the retry ladder to it now."""

    def act(connection: Connection, db: Engine, system: Target, show: Any) -> Progress:
        require_believed_user(system, work_queue(queue))
        return retry_queue.retry_now(
            connection, db, work_queue(queue), actor(system), progress=show
        )

    sign_in()
    confirm(f"Put back now all that waits on the retry ladder for {queue}?", yes)
    _carry_out(act, "put back", Criteria())


def _selection(ids: list[str] | None, every: bool, wanted: Criteria) -> Criteria:
    if bool(ids) == every:
        stop("Name message ids, or say --all (with --reason, --type ... for some of all).", MISUSED)
    return wanted


def _confirmed(question: str, queue: topology.Queue, wanted: Criteria, yes: bool) -> Criteria:
    """Ask, and return the criteria of the confirmed letters; later deaths are not among them."""
    system = sign_in()
    if wanted.ids or yes:
        return wanted
    with broker(system) as connection, database_trouble():
        found = search.browse(connection, queue, wanted, limit=COUNTED)
    died = [letter.failed_at for letter in found.letters if letter.failed_at is not None]
    as_of = max([datetime.now(UTC), *died])  # a consumer's clock may be ahead
    if wanted.is_empty:
        words = f"all dead letters, {found.total:,},"
    else:
        at_least = "" if found.is_whole else "at least "
        words = f"the dead letters that fit, {at_least}{len(found.letters):,},"
    confirm(question.format(words), yes)
    return but(wanted, as_of=as_of)


def _carry_out(
    act: Callable[[Connection, Engine, Target, Any], Progress],
    verb: str,
    wanted: Criteria,
) -> None:
    system = sign_in()
    db = engine(system)
    with broker(system) as connection, database_trouble(), progress() as show:
        state = act(
            connection,
            db,
            system,
            lambda so_far: show(f"{so_far.done} {verb}, {so_far.passed} left, of {so_far.total}"),
        )
    say(f"{state.done} {verb}, {state.passed} left.")
    for sentence in actions.missed(state, wanted):
        say(sentence)
    if state.done < len(wanted.ids):
        raise typer.Exit(FAILED)
