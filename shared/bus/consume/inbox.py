"""The inbox: which messages a consumer has handled, in the transaction of their effects."""

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime, timedelta
from types import MappingProxyType
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from shared.bus.contract.errors import Hold
from shared.db import arrays
from shared.db.session import is_database_away, time_by_both_clocks, transaction
from shared.ids import new_id

KEEP_DAYS = 30
PRUNE_SECONDS = 10.0
PRUNE_AT_MOST = 100_000
"""Of one consumer in one run: twice what a consumer can handle in `PRUNE_SECONDS`."""
_WITHOUT_ID = "/last without id"


def claim(
    session: Session,
    consumer: str,
    ids: Sequence[UUID],
    digests: Mapping[UUID, bytes] = MappingProxyType({}),
) -> set[UUID]:
    """Enter messages; those that come back are new.

    Args:
        session: the transaction that also makes their effects.
        consumer: whose inbox.
        ids: message ids; in a stable order, so that two consumers do not lock each other out.
        digests: what some say and who, for `reused`.
    """
    # Those that are known come back, which are few: to read an id costs as much as to enter it.
    known = session.execute(_CLAIM, {"consumer": consumer, "ids": arrays.uuids(ids)})
    new = set(ids).difference(known.scalars())
    if said := {id_: digest for id_, digest in digests.items() if id_ in new}:
        session.execute(_SAY, _said(consumer, said))
    return new


def reused(session: Session, consumer: str, digests: Mapping[UUID, bytes]) -> set[UUID]:
    """Those of messages under whose ids others were entered, of another content or person.

    Args:
        session: the transaction.
        consumer: whose inbox.
        digests: what they say, and who; see `batch.commanded`.
    """
    if not digests:
        return set()
    return set(session.execute(_REUSED, _said(consumer, digests)).scalars())


def _said(consumer: str, digests: Mapping[UUID, bytes]) -> dict[str, str]:
    return {
        "consumer": consumer,
        "ids": arrays.uuids(digests),
        "digests": arrays.blobs(digests.values()),
    }


def look(consumer: str, beside: Callable[[], None] | None = None) -> Exception | None:
    """Try what each transaction of a consumer begins with, and undo it.

    Before the broker sends it anything. It writes: a standby and a full disk can be read from.

    Args:
        consumer: whose inbox is written to.
        beside: looks for what is needed beside the database, and raises `Hold` where it is away.

    Returns:
        What says that nothing should be taken, for `batch.held_by`. What is wrong in another way is
        told by the first message, which fails by it.
    """
    try:
        with transaction() as session:
            claim(session, consumer, [new_id()])
            session.rollback()
        if beside is not None:
            beside()
    except Exception as error:  # noqa: BLE001 - as said above
        if isinstance(error, Hold) or is_database_away(error):
            return error
    return None


def release(session: Session, consumer: str, ids: Collection[UUID]) -> None:
    """Take messages out again that failed, so that their retry is new."""
    session.execute(
        text(
            "DELETE FROM inbox WHERE consumer = :consumer "
            "AND message_id = ANY(CAST(:ids AS uuid[]))"
        ),
        {"consumer": consumer, "ids": arrays.uuids(ids)},
    )


def last_without_id(session: Session, consumer: str) -> UUID | None:
    """The content id of the last message without an id that a consumer has handled.

    Of a queue that is consumed in order, message by message, no other can come again: what was
    handled before it was acknowledged before it was delivered.
    """
    found: UUID | None = session.scalar(
        text("SELECT message_id FROM inbox WHERE consumer = :consumer"),
        {"consumer": f"{consumer}{_WITHOUT_ID}"},
    )
    return found


def note_without_id(session: Session, consumer: str, content_id: UUID) -> None:
    """Remember a message without an id, in the place of the last one."""
    values = {"consumer": f"{consumer}{_WITHOUT_ID}", "id": content_id}
    session.execute(text("DELETE FROM inbox WHERE consumer = :consumer"), values)
    session.execute(
        text("INSERT INTO inbox (consumer, message_id) VALUES (:consumer, :id)"), values
    )


def prune(session: Session, consumer: str) -> None:
    """Forget some of what is older than `KEEP_DAYS`.

    Most ids are UUIDv7, whose first 48 bits are milliseconds since 1970 (RFC 9562, 5.7), so what
    is old is in a range of them; an id that a person has written may tell any time, so when it was
    handled counts. A derived one (UUIDv5) is anywhere: those have an index by time, and the others
    one without them, so that a run walks what it forgets.

    Where the newest was handled longer ago, all was off, and it counts from there: what was
    committed and not acknowledged at the end is delivered again at the start.
    """
    now = time_by_both_clocks(session)
    known = {"consumer": consumer, "latest": _first_id(now)}
    newest = session.scalars(_NEWEST, known).one()
    before = min(now, newest or now) - timedelta(days=KEEP_DAYS)
    values = {"consumer": consumer, "most": PRUNE_AT_MOST, "before": before}
    session.execute(_PRUNE_BY_ID, values | {"oldest": _first_id(before)})
    session.execute(_PRUNE_DERIVED, values)


def _first_id(at: datetime) -> UUID:
    """The lowest UUIDv7 of a time."""
    return UUID(int=int(at.timestamp() * 1000) << 80)


_CLAIM = text(
    "WITH given AS (SELECT id FROM unnest(CAST(:ids AS uuid[])) AS id), "
    "entered AS (INSERT INTO inbox (consumer, message_id) "
    "SELECT :consumer, id FROM given ORDER BY id ON CONFLICT DO NOTHING RETURNING message_id) "
    "SELECT id FROM given WHERE id NOT IN (SELECT message_id FROM entered)"
)
_GIVEN = "unnest(CAST(:ids AS uuid[]), CAST(:digests AS bytea[])) AS given (id, digest)"
_SAY = text(
    f"UPDATE inbox SET digest = given.digest FROM {_GIVEN} "  # noqa: S608 - our own text
    "WHERE consumer = :consumer AND message_id = given.id"
)
# The SHA-256 of what is said, and behind it that of who says it where that is known of both.
_REUSED = text(
    f"SELECT message_id FROM inbox JOIN {_GIVEN} ON message_id = given.id "  # noqa: S608
    "WHERE consumer = :consumer AND (substr(inbox.digest, 1, 32) <> substr(given.digest, 1, 32) "
    "OR (length(inbox.digest) = length(given.digest) AND inbox.digest <> given.digest))"
)
# Each by its index. An id of the future is no message of ours, and tells nothing.
_NEWEST = text(
    "SELECT greatest((SELECT handled_at FROM inbox WHERE consumer = :consumer "
    "AND message_id < :latest AND substr(CAST(message_id AS text), 15, 1) <> '5' "
    "ORDER BY message_id DESC LIMIT 1), "
    "(SELECT handled_at FROM inbox WHERE consumer = :consumer "
    "AND substr(CAST(message_id AS text), 15, 1) = '5' ORDER BY handled_at DESC LIMIT 1))"
)
_PRUNE_BY_ID = text(
    "DELETE FROM inbox WHERE consumer = :consumer AND message_id IN ("
    "SELECT message_id FROM inbox WHERE consumer = :consumer AND message_id < :oldest "
    "AND handled_at < :before AND substr(CAST(message_id AS text), 15, 1) <> '5' "
    "ORDER BY message_id LIMIT :most FOR UPDATE SKIP LOCKED)"
)
_PRUNE_DERIVED = text(
    "DELETE FROM inbox WHERE consumer = :consumer AND message_id IN ("
    "SELECT message_id FROM inbox WHERE consumer = :consumer AND handled_at < :before "
    "AND substr(CAST(message_id AS text), 15, 1) = '5' "
    "ORDER BY handled_at LIMIT :most FOR UPDATE SKIP LOCKED)"
)
