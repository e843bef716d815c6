"""The inbox: the ids of handled messages, committed with the effects of the messages."""

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime, timedelta
from types import MappingProxyType
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from shared.bus.contract.errors import Hold
from shared.db import arrays
from shared.db.session import is_database_unavailable, time_by_both_clocks, transaction
from shared.ids import new_id

KEEP_DAYS = 30
PRUNE_SECONDS = 10.0
PRUNE_AT_MOST = 100_000
"""Rows deleted of one consumer in one run: twice what it can handle in `PRUNE_SECONDS`."""
_WITHOUT_ID = "/last without id"


def claim(
    session: Session,
    consumer: str,
    ids: Sequence[UUID],
    digests: Mapping[UUID, bytes] = MappingProxyType({}),
) -> set[UUID]:
    """Insert message ids and return those that were new.

    Args:
        session: the transaction of the messages' effects.
        consumer: the name of the inbox.
        ids: message ids.
        digests: of the commands among them, for `reused`; see `batch.commanded`.
    """
    # The query returns the known ids, which are few: reading an id costs as much as inserting it.
    known = session.execute(_CLAIM, {"consumer": consumer, "ids": arrays.uuids(ids)})
    new = set(ids).difference(known.scalars())
    if said := {id_: digest for id_, digest in digests.items() if id_ in new}:
        session.execute(_SAY, _said(consumer, said))
    return new


def reused(session: Session, consumer: str, digests: Mapping[UUID, bytes]) -> set[UUID]:
    """Return the ids that are known with other content, or from another person.

    Args:
        session: the transaction.
        consumer: the name of the inbox.
        digests: of messages, by id; see `batch.commanded`.
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


def probe(consumer: str, beside: Callable[[], None] | None = None) -> Exception | None:
    """Check that a consumer's transactions can work, before it is sent messages.

    Inserts an id and rolls back: a standby or a server with a full disk can still be read from.

    Args:
        consumer: the name of the inbox.
        beside: checks what is needed beside the database; raises `Hold` if it is unreachable.

    Returns:
        What is unreachable, for `batch.held_by`; None if nothing is. Any other error is ignored
        here: the first message fails with it, and reports it.
    """
    try:
        with transaction() as session:
            claim(session, consumer, [new_id()])
            session.rollback()
        if beside is not None:
            beside()
    except Exception as error:  # noqa: BLE001 - see the docstring
        if isinstance(error, Hold) or is_database_unavailable(error):
            return error
    return None


def release(session: Session, consumer: str, ids: Collection[UUID]) -> None:
    """Delete the ids of failed messages, so that their retries are new."""
    session.execute(
        text(
            "DELETE FROM inbox WHERE consumer = :consumer "
            "AND message_id = ANY(CAST(:ids AS uuid[]))"
        ),
        {"consumer": consumer, "ids": arrays.uuids(ids)},
    )


def last_without_id(session: Session, consumer: str) -> UUID | None:
    """Return the content id of the last handled message that had no message id.

    In a queue that is consumed in order, one by one, only the last message can be redelivered: all
    earlier ones were acknowledged before it was delivered.
    """
    return noted(session, f"{consumer}{_WITHOUT_ID}")


def note_without_id(session: Session, consumer: str, content_id: UUID) -> None:
    """Store the content id of a message that had no message id, replacing the last one."""
    note(session, f"{consumer}{_WITHOUT_ID}", content_id)


def note(session: Session, name: str, id_: UUID) -> None:
    """Store an id under a name that is no consumer's, replacing the last one."""
    values = {"name": name, "id": id_}
    session.execute(text("DELETE FROM inbox WHERE consumer = :name"), values)
    session.execute(text("INSERT INTO inbox (consumer, message_id) VALUES (:name, :id)"), values)


def noted(session: Session, name: str) -> UUID | None:
    """Return the id stored under a name, or None."""
    found: UUID | None = session.scalar(
        text("SELECT message_id FROM inbox WHERE consumer = :name"), {"name": name}
    )
    return found


def prune(session: Session, consumer: str) -> None:
    """Delete up to `PRUNE_AT_MOST` rows older than `KEEP_DAYS`.

    Most ids are UUIDv7, whose first 48 bits are milliseconds since 1970 (RFC 9562, 5.7), so old
    rows are a range of the primary key. An id that a person chose may contain any time, so
    `handled_at` decides. Derived ids (UUIDv5) have no order; they have an index by `handled_at`,
    and the other ids an index without them. A run reads only rows that it deletes.

    If the newest row is older than that, the system was off, and the age is counted from that row:
    messages that were committed and not acknowledged before are redelivered at the start.
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
# The digest of the content, and behind it that of the person where both have one.
_REUSED = text(
    f"SELECT message_id FROM inbox JOIN {_GIVEN} ON message_id = given.id "  # noqa: S608
    "WHERE consumer = :consumer AND (substr(inbox.digest, 1, 32) <> substr(given.digest, 1, 32) "
    "OR (length(inbox.digest) = length(given.digest) AND inbox.digest <> given.digest))"
)
# Each by its index. Ids with a time in the future were not made here and do not count.
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
