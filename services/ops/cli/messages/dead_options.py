"""The arguments and options of the dead letter commands."""

from typing import Annotated, Any

import typer

from services.ops.cli.terminal import MISUSED, parse_age, stop
from services.ops.dead_letters import search
from services.ops.dead_letters.letter import Criteria
from shared.bus.contract import topology


def queue_names(begun: str) -> list[str]:
    """Complete queue names in the shell."""
    return [queue.name for queue in topology.WORK_QUEUES if queue.name.startswith(begun)]


QueueName = Annotated[
    str,
    typer.Argument(
        metavar="QUEUE", help="A work queue: orders.intake.", autocompletion=queue_names
    ),
]
MessageId = Annotated[str, typer.Argument(metavar="ID", help="The message id.")]
Ids = Annotated[
    list[str] | None, typer.Argument(metavar="[ID]...", help="Message ids; or give --all.")
]
All = Annotated[bool, typer.Option("--all", help="All that match the options below.")]
Reason = Annotated[str, typer.Option(help="A part of the reason.")]
Type = Annotated[str, typer.Option("--type", help="Their type: order.created.")]
About = Annotated[str, typer.Option(help="The order or account that they are about.")]
Older = Annotated[str, typer.Option(help="Died longer ago than: 15m, 2h, 3d.")]
Younger = Annotated[str, typer.Option(help="Died more recently than: 15m, 2h, 3d.")]


def work_queue(name: str) -> topology.Queue:
    """Return the work queue of a name; exits if there is none."""
    try:
        return search.work_queue(name)
    except search.NoSuchQueueError as error:
        stop(str(error), MISUSED)


def criteria(ids: Any, reason: str, type_: str, about: str, older: str, younger: str) -> Criteria:
    """Return the criteria that the options stand for; exits if one is invalid."""
    return Criteria(
        ids=frozenset(ids),
        reason=reason,
        type=type_,
        correlation_id=about,
        older_than=parse_age("--older", older) if older else None,
        younger_than=parse_age("--younger", younger) if younger else None,
    )
