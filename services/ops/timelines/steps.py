"""A step of an order's trail."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from uuid import UUID


@dataclass(frozen=True, slots=True)
class Step:
    """One step.

    Attributes:
        at: the time, by the clock of the service. A fact without an email, and a due email, have
            the time of their cause.
        what: the kind of step, in the usual sequence.
        text: a readable message.
        service: the service that did it.
        event_id: its message: the sender's for a status, the fact's for an email.
        counts: false if it changed nothing, such as a status that came too late.
        said: the part of the text that a sender or an operator wrote, which may be personal: a
            note, a key, a reason.
    """

    at: datetime
    what: Literal[
        "request",
        "accepted",
        "recorded",
        "status",
        "conflict",
        "email",
        "told",
        "due",
        "left",
        "mended",
    ]
    text: str
    service: str
    event_id: UUID | None = None
    counts: bool = True
    said: str = ""
