"""Write messages to the outbox, in the caller's transaction."""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import Connection, event, text
from sqlalchemy.orm import Session

from shared.bus.contract.events import Event
from shared.bus.contract.message import SHORT_STRING_BYTES, TOLD, Message, message_for
from shared.db import arrays

CHANNEL = "outbox"
"""The NOTIFY channel that wakes the relay."""
MAX_BODY_BYTES = 16 * 1024 * 1024
"""The limit of RabbitMQ 4 (`max_message_size`); our messages have less than 1% of it."""

# Both in one, since a round trip costs as much as ten rows.
_INSERT = text(f"""
    INSERT INTO outbox (message_id, exchange, routing_key, type, correlation_id, source,
                        traceparent, time, body)
    SELECT * FROM unnest(CAST(:message_id AS uuid[]), CAST(:exchange AS text[]),
                         CAST(:routing_key AS text[]), CAST(:type AS text[]),
                         CAST(:correlation_id AS text[]), CAST(:source AS text[]),
                         CAST(:traceparent AS text[]), CAST(:time AS timestamptz[]),
                         CAST(:body AS bytea[]));
    NOTIFY {CHANNEL}
""")  # noqa: S608 - our own text
MAX_REMEMBERED = 10_000
_left: OrderedDict[str, None] = OrderedDict()


COUNTED = 100_000
"""Rows beyond this number are not counted, so that counting takes no longer with more rows."""
_STANDING = text("""
    SELECT waiting, now() - waiting_since, parked, now() - parked_since
    FROM (SELECT count(*) AS waiting, min(created_at) AS waiting_since
          FROM (SELECT created_at FROM outbox WHERE parked_at IS NULL
                ORDER BY sequence LIMIT :most) AS first) AS fresh,
         (SELECT count(*) AS parked, min(parked_at) AS parked_since
          FROM (SELECT parked_at FROM outbox WHERE parked_at IS NOT NULL
                ORDER BY sequence LIMIT :most) AS first) AS kept
""")


class UnpublishableError(ValueError):
    """No broker would accept the message."""


@dataclass(frozen=True, slots=True)
class Standing:
    """The counts of the outbox; a count above `COUNTED` means "more than that".

    Attributes:
        waiting: rows that wait for the relay.
        waiting_age: the age of the oldest of them.
        parked: further rows, which cannot be published as they are.
        parked_age: the time since the first of them was parked.
    """

    waiting: int
    waiting_age: timedelta | None
    parked: int
    parked_age: timedelta | None


def standing(by: Session | Connection) -> Standing:
    """Return the counts of the outbox.

    Args:
        by: of a role that may read the outbox.
    """
    return Standing(*by.execute(_STANDING, {"most": COUNTED + 1}).one())


def add(session: Session, messages: Sequence[Message]) -> None:
    """Insert messages; the relay publishes them if, and only if, the transaction commits.

    Args:
        session: the transaction that also writes the rows that the messages are about.
        messages: may be published in any order.

    Raises:
        UnpublishableError: one of them could never be published; none was inserted.
    """
    if not messages:
        return
    for message in messages:
        check(message)
    session.execute(
        _INSERT,
        {
            "message_id": arrays.uuids(m.message_id for m in messages),
            "exchange": arrays.texts(m.exchange for m in messages),
            "routing_key": arrays.texts(m.routing_key for m in messages),
            "type": arrays.texts(m.type for m in messages),
            "correlation_id": arrays.texts(m.correlation_id for m in messages),
            "source": arrays.texts(m.source for m in messages),
            "traceparent": arrays.texts(m.traceparent for m in messages),
            "time": arrays.times(m.time for m in messages),
            "body": arrays.blobs(m.body for m in messages),
        },
    )
    if TOLD in session.info:
        session.info[TOLD] += messages


def add_fact(
    session: Session,
    fact: Event,
    about: UUID | str,
    *,
    source: str,
    message_id: UUID | None = None,
    time: datetime | None = None,
    traceparent: str | None = None,
    once: bool = False,
) -> None:
    """Insert a fact; the other arguments are those of `message_for`.

    Args:
        session: the transaction that also writes the rows that the fact is about.
        fact: the event.
        about: the id of the order or account.
        once: whether to use `add_once`.

    Raises:
        UnpublishableError: as `add`.
    """
    message = message_for(
        fact,
        source=source,
        correlation_id=about,
        message_id=message_id,
        time=time,
        traceparent=traceparent,
    )
    if once:
        add_once(session, message)
    else:
        add(session, [message])


def add_once(session: Session, message: Message) -> None:
    """Insert a message with an id derived from its content, unless this process has before.

    Consumers recognise a repetition by the id. This bounds what can be requested in a loop: one row
    and one message a process, and not one a request.

    Args:
        session: as for `add`; a rolled back message counts as not inserted.
        message: with a derived id.

    Raises:
        UnpublishableError: as `add`.
    """
    if message.message_id in _left:
        return
    add(session, [message])

    def remember(_: Session) -> None:
        _left[message.message_id] = None
        while len(_left) > MAX_REMEMBERED:
            _left.popitem(last=False)

    event.listen(session, "after_commit", remember, once=True)


def check(message: Message) -> None:
    """Check a message against the limits of AMQP.

    Raises:
        UnpublishableError: a part is too long; the sentence names it and its limit.
    """
    # The limit is in bytes; 63 characters have at most 252.
    for name in _SHORT:
        text_ = getattr(message, name)
        if text_ is not None and len(text_) > 63:
            size = len(text_.encode())
            if size > SHORT_STRING_BYTES:
                raise UnpublishableError(
                    f"The {name} of a message may have {SHORT_STRING_BYTES} bytes, not {size}. "
                    "Shorten it where the message is made."
                )
    if len(message.body) > MAX_BODY_BYTES:
        raise UnpublishableError(
            f"The body of a message may have {MAX_BODY_BYTES:,} bytes, not {len(message.body):,}. "
            "Say less in it, or say it in several messages."
        )


_SHORT = (
    "exchange",
    "routing_key",
    "type",
    "message_id",
    "correlation_id",
    "source",
    "traceparent",
)
