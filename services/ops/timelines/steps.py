"""One step of an order's life, as a trail shows it."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from uuid import UUID


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that happened.

    Attributes:
        at: when; by the clock of whoever did it. A fact that was handled without an email, and what
            is due, have the time of what they follow from.
        what: the kind of step, in the order of an order's life.
        text: in words.
        service: who did it.
        event_id: the message behind it: the sender's for a status, the fact's for an email.
        counts: false for what changed nothing, such as a status that came too late.
        said: what of the text a sender or an operator wrote, which may be of a person: a note, a
            key, a reason.
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
