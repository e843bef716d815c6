"""Messages of the outbox that cannot be published as they are: looked at, mended, tried, discarded.

The relay writes why into the row and tries it again ever later (services/relay/rows.py). Each
action is one transaction with its audit fact. The database lets ops staff change what is parked
alone, and not while it is being tried.
"""

import hashlib
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, Literal

import msgspec
from sqlalchemy import ColumnElement, Engine, Row, and_, delete, func, select, text, update
from sqlalchemy.orm import Session

from services.ops.audit.actions import Actor, about
from shared.bus import outbox
from shared.bus.contract.events import OpsOutboxChanged, decode
from shared.bus.contract.message import SHORT_STRING_BYTES
from shared.db.models import OutboxMessage

_table = OutboxMessage.__table__
_IS_PARKED = _table.c.parked_at.is_not(None)
# At this moment, see `rows.settle`; a relay that was killed over it tries it no more.
_IS_TRIED = and_(_table.c.reason == "", _table.c.next_try_at > func.clock_timestamp())


class NotMendedError(Exception):
    """What was given does not do; the sentence says why."""


class ChangedError(Exception):
    """Somebody has given it another body since it was looked at."""

    def __init__(self) -> None:
        super().__init__("Somebody has changed it meanwhile: look at it again.")


class Held(msgspec.Struct, frozen=True):
    """A parked message that something is done to: what the audit log is told of it.

    Attributes:
        number: of its row.
        message_id: its id.
        type: what it says it is.
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


class Parked(Held, frozen=True):
    """A parked message.

    Attributes:
        exchange: where it is for.
        routing_key: its key there.
        mended_by: the database role that has changed what it says; empty where none has.
        written_at: when it was written.
        parked_at: since when it is parked.
        next_try_at: when the relay tries it again.
        attempts: how many times it was tried.
        reason: why it could not be published.
        body: as it would be published; what is no UTF-8 in it is replaced.
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


_COLUMNS = {"number": "sequence", "written_at": "created_at"}  # where they have another name
_DIGEST = func.encode(func.sha256(_table.c.body), "hex").label("digest")


def _columns(of: type[Held]) -> list[ColumnElement[Any]]:
    return [
        _DIGEST if name == "digest" else _table.c[_COLUMNS.get(name, name)].label(name)
        for name in of.__struct_fields__
    ]


_SHOWN = _columns(Parked)
BATCH = 500
"""So many are dealt with in one transaction, each with its audit fact: of very many, too."""
OnProgress = Callable[[int], None]


def listed(session: Session, *, after: int = 0, limit: int = 100) -> list[Parked]:
    """Parked messages in the order in which they were written.

    Args:
        session: to read by.
        after: a row's number; those up to it are left out.
        limit: how many.
    """
    query = select(*_SHOWN).where(_IS_PARKED, _table.c.sequence > after)
    found = session.execute(query.order_by(_table.c.sequence).limit(limit))
    return [_parked(row) for row in found]


def count(session: Session) -> int:
    """How many messages are parked."""
    return counted(session)[0]


def counted(session: Session) -> tuple[int, int]:
    """How many messages are parked, and the highest number of their rows."""
    query = select(func.count(), func.max(_table.c.sequence)).where(_IS_PARKED)
    found, highest = session.execute(query).one()
    return found, highest or 0


def find(session: Session, number: int) -> Parked | None:
    """A parked message; None when there is none of this number (any more)."""
    row = session.execute(select(*_SHOWN).where(_IS_PARKED, _table.c.sequence == number)).first()
    return None if row is None else _parked(row)


def retry(session: Session, numbers: Sequence[int], actor: Actor) -> int:
    """Let the relay try messages now.

    Args:
        session: the transaction.
        numbers: of their rows.
        actor: who wants it.

    Returns:
        How many were still parked.
    """
    found = _lock(session, numbers)
    session.execute(
        update(OutboxMessage)
        .where(_table.c.sequence.in_([parked.number for parked in found]))
        .values(next_try_at=func.clock_timestamp())
    )
    _tell(session, found, actor, "retried")
    session.execute(text(f"NOTIFY {outbox.CHANNEL}"))
    return len(found)


def retry_all(
    engine: Engine, actor: Actor, up_to: int, progress: OnProgress = lambda _: None
) -> int:
    """Let the relay try now all that wait for their time, a batch at a time.

    Broken off anywhere and begun again, nothing is told twice: what is due already is left.

    Args:
        engine: of the database.
        actor: who wants it.
        up_to: none of a higher number, which nobody has counted.
        progress: called after each batch with how many that were in all.

    Returns:
        How many.
    """
    waits = _table.c.next_try_at > func.clock_timestamp()

    def act(session: Session, numbers: Sequence[int]) -> int:
        return retry(session, numbers, actor)

    return _in_batches(engine, and_(waits, _table.c.sequence <= up_to), act, progress)


def discard_all(
    engine: Engine, actor: Actor, reason: str, up_to: int, progress: OnProgress = lambda _: None
) -> int:
    """Throw all away, a batch at a time; as `discard`.

    Args:
        engine: of the database.
        actor: who wants it.
        reason: why; kept in the audit log.
        up_to: none of a higher number, which nobody has counted.
        progress: called after each batch with how many that were in all.

    Returns:
        How many.

    Raises:
        ValueError: there is no reason.
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
    """Throw messages away. Nobody is told what they said: the audit log keeps a hash.

    Args:
        session: the transaction.
        numbers: of their rows.
        actor: who wants it.
        reason: why; kept in the audit log.
        digest: of the body that was looked at, of a single message; any when None.

    Returns:
        How many were still parked.

    Raises:
        ValueError: there is no reason.
        ChangedError: nothing was done.
    """
    if not reason.strip():
        raise ValueError("a discarded message needs a reason")
    found = _lock(session, numbers)
    _refuse_unseen(found, digest)
    session.execute(
        delete(OutboxMessage).where(_table.c.sequence.in_([parked.number for parked in found]))
    )
    _tell(session, found, actor, "discarded", reason.strip())
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
    """Give a message another body, under the same id, and let the relay try it now.

    Args:
        session: the transaction.
        number: of its row.
        body: the new one, JSON in UTF-8.
        actor: who wants it.
        correlation_id: another one; the same when not given.
        digest: of the body that was looked at; any when None.

    Returns:
        False when it is not parked (any more).

    Raises:
        NotMendedError: nothing was done, as no consumer would understand it, or no broker take it.
        ChangedError: nothing was done.
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
    _tell(session, found, actor, "edited", new_digest=hashlib.sha256(body).hexdigest())
    session.execute(text(f"NOTIFY {outbox.CHANNEL}"))
    return True


def validate(message: Held, body: bytes, correlation_id: str) -> None:
    """Whether a message could be published, and understood, with another body.

    Args:
        message: the parked one.
        body: the new one.
        correlation_id: what it is about.

    Raises:
        NotMendedError: it could not; the sentence says why.
    """
    try:
        decode(message.type, body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise NotMendedError(f"This is no {message.type}: {error}") from None
    if (length := len(correlation_id.encode())) > SHORT_STRING_BYTES:
        raise NotMendedError(f"What it is about may have {SHORT_STRING_BYTES} bytes, not {length}.")


def _refuse_unseen(found: Sequence[Held], digest: str | None) -> None:
    if digest is not None and any(parked.digest != digest for parked in found):
        raise ChangedError


def _in_batches(
    engine: Engine,
    meant: ColumnElement[bool],
    act: Callable[[Session, Sequence[int]], int],
    progress: OnProgress,
) -> int:
    done, after = 0, 0
    while True:
        beyond = and_(_IS_PARKED, meant, _table.c.sequence > after)
        query = select(_table.c.sequence).where(beyond).order_by(_table.c.sequence).limit(BATCH)
        with Session(engine) as session, session.begin():
            numbers = session.scalars(query).all()
            done += act(session, numbers) if numbers else 0
        if not numbers:
            return done
        after = numbers[-1]
        progress(done)


def _lock(session: Session, numbers: Sequence[int]) -> list[Held]:
    query = (
        select(*_columns(Held))
        .where(_IS_PARKED, ~_IS_TRIED, _table.c.sequence.in_(numbers))
        .order_by(_table.c.sequence)
        .with_for_update()
    )
    rows = session.execute(query)
    return [Held(**row._asdict() | {"message_id": str(row.message_id)}) for row in rows]


def _tell(
    session: Session,
    found: Sequence[Held],
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
