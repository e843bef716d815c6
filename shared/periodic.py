"""A job of a process that runs again and again."""

from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy.orm import Session


@dataclass(frozen=True, slots=True)
class Periodic:
    """A job that runs again and again, each time in a transaction of its own.

    Attributes:
        name: for the log.
        seconds: from the end of one run to the start of the next.
        run: must be safe beside another replica's run of the same job.
    """

    name: str
    seconds: float
    run: Callable[[Session], object]
