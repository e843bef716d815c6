"""Parked outbox messages, which the relay cannot publish: list, retry, edit, discard.

The relay stores the reason in the row and retries at growing intervals (services/relay/rows.py).
Each action is one transaction with its audit fact. The database permits ops staff to change parked
rows only, and not while the relay tries them.
"""

import hashlib
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, Literal

import msgspec
from sqlalchemy import ColumnElement, Engine, Row, and_, delete, func, select, text, update
from sqlalchemy.orm import Session

from services.ops.audit.actions import Actor, about, unfit
from shared.bus import outbox
from shared.bus.contract.events import OpsOutboxChanged, decode
from shared.bus.contract.message import SHORT_STRING_BYTES
from shared.db.models import OutboxMessage

_table = OutboxMessage.__table__
_IS_PARKED = _table.c.parked_at.is_not(None)
# See `rows.settle`; the time limit frees a row whose relay was killed.
_IS_TRIED = and_(_table.c.reason == "", _table.c.next_try_at > func.clock_timestamp())


class NotMendedError(Exception):
    """The new body or correlation id was refused; the message says why."""


class ChangedError(Exception):
    """The message was edited since the operator loaded it."""

    def __init__(self) -> None:
        super().__init__("It was edited meanwhile: look at it again.")


class AuditedMessage(msgspec.Struct, frozen=True):
    """The properties of a parked message that its audit fact records.

    Attributes:
        number: the row's number.
        message_id: its id.
        type: its stated type.
        correlation_id: the order or account that it is about.
        written_by: the database role that wrote it.
        digest: the SHA-256 of the body, in hexadecimal.
    """

    number: int
    message_id: str
    type: str
    correlation_id: str
    written_by: str
    digest: str


class Parked(AuditedMessage, frozen=True):
    """A parked message.

    Attributes:
        exchange: the exchange that it is for.
        routing_key: its routing key.
        mended_by: the database role that edited it; empty if none has.
        written_at: when it was written.
        parked_at: when it was parked.
        next_try_at: when the relay tries it again.
        attempts: how many times it was tried.
        reason: why it could not be published.
        body: the body; bytes that are not UTF-8 are replaced.
    """

    exchange: str
    routing_key: str
    mended_by: str
    written_at: datetime
    parked_at: datetime
    next_try_at: datetime
    attempts: int
    reason: str
    body: str


_COLUMNS = {"number": "sequence", "written_at": "created_at"}  # fields with another column name
_DIGEST = func.encode(func.sha256(_table.c.body), "hex").label("digest")


def _columns(of: type[AuditedMessage]) -> list[ColumnElement[Any]]:
    return [
        _DIGEST if name == "digest" else _table.c[_COLUMNS.get(name, name)].label(name)
        for name in of.__struct_fields__
    ]


_SHOWN = _columns(Parked)
BATCH = 500
"""Messages per transaction, with an audit fact each, so that any number can be processed."""
OnProgress = Callable[[int], None]


def listed(session: Session, *, after: int = 0, limit: int = 100) -> list[Parked]:
    """Return parked messages in the order of writing.

    Args:
        session: a session to read with.
        after: the row number to begin after.
        limit: the maximum number of messages.
    """
    query = select(*_SHOWN).where(_IS_PARKED, _table.c.sequence > after)
    found = session.execute(query.order_by(_table.c.sequence).limit(limit))
    return [_parked(row) for row in found]


def count(session: Session) -> int:
    """Return the number of parked messages."""
    return counted(session)[0]


def counted(session: Session) -> tuple[int, int]:
    """Return the number of parked messages, and their highest row number."""
    query = select(func.count(), func.max(_table.c.sequence)).where(_IS_PARKED)
    found, highest = session.execute(query).one()
    return found, highest or 0


def find(session: Session, number: int) -> Parked | None:
    """Return a parked message; None if there is none with this number (any more)."""
    row = session.execute(select(*_SHOWN).where(_IS_PARKED, _table.c.sequence == number)).first()
    return None if row is None else _parked(row)


def retry(session: Session, numbers: Sequence[int], actor: Actor) -> int:
    """Make messages due, so that the relay tries them now.

    Args:
        session: the transaction.
        numbers: the row numbers.
        actor: the operator.

    Returns:
        How many of them were still parked.
    """
    found = _lock(session, numbers)
    session.execute(
        update(OutboxMessage)
        .where(_table.c.sequence.in_([parked.number for parked in found]))
        .values(next_try_at=func.clock_timestamp())
    )
    _record(session, found, actor, "retried")
    session.execute(text(f"NOTIFY {outbox.CHANNEL}"))
    return len(found)


def retry_all(
    engine: Engine, actor: Actor, up_to: int, progress: OnProgress = lambda _: None
) -> int:
    """Make all waiting messages due, in batches.

    When repeated after an interruption, messages that are due already get no second audit fact.

    Args:
        engine: the database's engine.
        actor: the operator.
        up_to: the highest row number; the operator did not see later rows counted.
        progress: called after each batch with the number of messages so far.

    Returns:
        How many messages were made due.
    """
    is_waiting = _table.c.next_try_at > func.clock_timestamp()

    def act(session: Session, numbers: Sequence[int]) -> int:
        return retry(session, numbers, actor)

    return _in_batches(engine, and_(is_waiting, _table.c.sequence <= up_to), act, progress)


def discard_all(
    engine: Engine, actor: Actor, reason: str, up_to: int, progress: OnProgress = lambda _: None
) -> int:
    """Discard all parked messages, in batches; see `discard`.

    Args:
        engine: the database's engine.
        actor: the operator.
        reason: why; kept in the audit log.
        up_to: the highest row number; the operator did not see later rows counted.
        progress: called after each batch with the number of messages so far.

    Returns:
        How many messages were discarded.

    Raises:
        ValueError: the reason is unfit.
    """

    def act(session: Session, numbers: Sequence[int]) -> int:
        return discard(session, numbers, actor, reason)

    return _in_batches(engine, _table.c.sequence <= up_to, act, progress)


def discard(
    session: Session,
    numbers: Sequence[int],
    actor: Actor,
    reason: str,
    *,
    digest: str | None = None,
) -> int:
    """Discard messages, which are then never published; the audit log keeps a hash of each.

    Args:
        session: the transaction.
        numbers: the row numbers.
        actor: the operator.
        reason: why; kept in the audit log.
        digest: for a single message, the digest that the operator saw; None accepts any.

    Returns:
        How many of them were still parked.

    Raises:
        ValueError: the reason is unfit.
        ChangedError: the message has another digest; nothing was done.
    """
    if wrong := unfit(reason):
        raise ValueError(f"the reason {wrong}")
    found = _lock(session, numbers)
    _refuse_unseen(found, digest)
    session.execute(
        delete(OutboxMessage).where(_table.c.sequence.in_([parked.number for parked in found]))
    )
    _record(session, found, actor, "discarded", reason.strip())
    return len(found)


def edit(
    session: Session,
    number: int,
    body: bytes,
    actor: Actor,
    *,
    correlation_id: str | None = None,
    digest: str | None = None,
) -> bool:
    """Replace a message's body, under the same id, and make it due.

    Args:
        session: the transaction.
        number: the row number.
        body: the new body, JSON in UTF-8.
        actor: the operator.
        correlation_id: a new correlation id; None keeps it.
        digest: the digest that the operator saw; None accepts any.

    Returns:
        False if it is not parked (any more).

    Raises:
        NotMendedError: consumers or the broker would refuse it; nothing was done.
        ChangedError: the message has another digest; nothing was done.
    """
    found = _lock(session, [number])
    if not found:
        return False
    _refuse_unseen(found, digest)
    about_ = found[0].correlation_id if correlation_id is None else correlation_id
    validate(found[0], body, about_)
    session.execute(
        update(OutboxMessage)
        .where(_table.c.sequence == number)
        .values(body=body, correlation_id=about_, next_try_at=func.clock_timestamp())
    )
    _record(session, found, actor, "edited", new_digest=hashlib.sha256(body).hexdigest())
    session.execute(text(f"NOTIFY {outbox.CHANNEL}"))
    return True


def validate(message: AuditedMessage, body: bytes, correlation_id: str) -> None:
    """Check that a message can be published, and decoded by its consumers, with another body.

    Args:
        message: the parked message.
        body: the new body.
        correlation_id: its correlation id.

    Raises:
        NotMendedError: it cannot; the message says why.
    """
    try:
        decode(message.type, body)
    except msgspec.DecodeError as error:
        raise NotMendedError(f"This is no {message.type}: {error}") from None
    if (length := len(correlation_id.encode())) > SHORT_STRING_BYTES:
        raise NotMendedError(f"What it is about may have {SHORT_STRING_BYTES} bytes, not {length}.")


def _refuse_unseen(found: Sequence[AuditedMessage], digest: str | None) -> None:
    if digest is not None and any(parked.digest != digest for parked in found):
        raise ChangedError


def _in_batches(
    engine: Engine,
    condition: ColumnElement[bool],
    act: Callable[[Session, Sequence[int]], int],
    progress: OnProgress,
) -> int:
    done, after = 0, 0
    while True:
        selected = and_(_IS_PARKED, condition, _table.c.sequence > after)
        query = select(_table.c.sequence).where(selected).order_by(_table.c.sequence).limit(BATCH)
        with Session(engine) as session, session.begin():
            numbers = session.scalars(query).all()
            done += act(session, numbers) if numbers else 0
        if not numbers:
            return done
        after = numbers[-1]
        progress(done)


def _lock(session: Session, numbers: Sequence[int]) -> list[AuditedMessage]:
    query = (
        select(*_columns(AuditedMessage))
        .where(_IS_PARKED, ~_IS_TRIED, _table.c.sequence.in_(numbers))
        .order_by(_table.c.sequence)
        .with_for_update()
    )
    rows = session.execute(query)
    return [AuditedMessage(**row._asdict() | {"message_id": str(row.message_id)}) for row in rows]


def _record(
    session: Session,
    found: Sequence[AuditedMessage],
    actor: Actor,
    action: Literal["retried", "edited", "discarded"],
    reason: str = "",
    new_digest: str = "",
) -> None:
    facts = [
        OpsOutboxChanged(
            **actor.fields,
            action=action,
            message_id=parked.message_id,
            message_type=parked.type,
            written_by=parked.written_by,
            reason=reason,
            digest=parked.digest,
            new_digest=new_digest,
        )
        for parked in found
    ]
    about_what = [parked.correlation_id or parked.message_id for parked in found]
    outbox.add(session, [*map(about, facts, about_what)])


def _parked(row: Row[Any]) -> Parked:
    shown = {
        "message_id": str(row.message_id),
        "reason": row.reason or "It is being tried.",
        "body": bytes(row.body).decode(errors="replace"),
    }
    return Parked(**row._asdict() | shown)
