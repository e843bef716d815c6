"""Writing to the outbox, inside the caller's transaction."""

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
"""RabbitMQ 4 takes no more (`max_message_size`); none of ours has a hundredth of it."""

# Both in one, since to ask the server costs as much as for ten rows.
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
"""What is beyond so many rows is not counted: a look must not take the longer the more wait."""
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
    """No broker would take the message; the sentence says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Standing:
    """How the outbox stands; figures beyond `COUNTED` mean more than that.

    Attributes:
        waiting: how many rows wait for the relay.
        waiting_age: how long the oldest of those has.
        parked: how many more cannot be published as they are.
        parked_age: how long the first of those is known not to be.
    """

    waiting: int
    waiting_age: timedelta | None
    parked: int
    parked_age: timedelta | None


def standing(by: Session | Connection) -> Standing:
    """How many messages wait, and are parked, and for how long.

    Args:
        by: may read the outbox.
    """
    return Standing(*by.execute(_STANDING, {"most": COUNTED + 1}).one())


def add(session: Session, messages: Sequence[Message]) -> None:
    """Leave messages for the relay; they are published if, and only if, the transaction commits.

    Args:
        session: the transaction that also writes the rows the messages tell of.
        messages: published in this order by one relay, in any order by several.

    Raises:
        UnpublishableError: nothing was written, since one of them could never be published.
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


def tell(
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
    """Leave a fact for the relay; arguments are those of `message_for`.

    Args:
        session: the transaction that also writes the rows the fact tells of.
        fact: what happened.
        about: the order or account.
        once: see `add_once`.

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
    """Leave a message whose id says what it tells, unless this process has left it before.

    Whoever hears of it twice knows by the id; this is for what can be asked for in a loop, so that
    a row and a message come of it once a process, and not each time.

    Args:
        session: as for `add`; what is rolled back was not left.
        message: its id is derived of what it tells.

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
    """Refuse what AMQP cannot hold.

    Raises:
        UnpublishableError: it says which part, and how long that may be.
    """
    # Bytes count, not characters; a text of 63 characters has at most 252.
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
