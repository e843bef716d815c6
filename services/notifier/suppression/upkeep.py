"""Periodic jobs of suppressions: warn businesses, rotate hash keys, delete old rows."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

import structlog
from msgspec import UNSET
from sqlalchemy import ColumnElement, Row, delete, func, select, text
from sqlalchemy.orm import Session

from services.notifier import SOURCE
from shared.bus import outbox
from shared.bus.contract.events import OrderRecipientsRefused, RefusedRecipient, of_account
from shared.bus.contract.message import Message, message_for
from shared.config.settings import JOURNAL_DAYS
from shared.db import arrays
from shared.db.locking.advisory_locks import REFUSED_ADDRESSES
from shared.db.models import Account, Order, Suppression
from shared.db.session import time_by_both_clocks, transaction
from shared.security.unsubscribe_tokens import unsubscribe_tokens

TELL_EVERY = timedelta(days=1)
MOST_LISTED = 50  # in one email
ACCOUNTS, ROWS, PAGES = 50, 200, 100
"""Of one transaction, addresses of each account; transactions of one run. The next continues."""
MOST_TOLD = 100_000
"""Addresses of one warning; the next day's counts further ones, so that a warning is complete."""
AT_MOST = 500  # rows of one transaction
CLOSED_FOR = timedelta(days=30)
"""After which no message of a closed account can still be waiting."""

log = structlog.get_logger()


def warn_of_refusals(_: Session) -> None:
    """Warn businesses about addresses that were refused since the last warning, once a day.

    A business may have any number of them, so they are marked as told in pages, each in its own
    transaction. The last page makes the warning, of all; `RefusalWarning` counts until then.
    """
    for _page in range(PAGES):
        with transaction() as session:
            if not _tell(session):
                return


def _tell(session: Session) -> bool:
    """Mark the next addresses, and add the warnings that are complete; return whether any were."""
    # One notifier at a time; it sees what another has committed.
    if not session.scalar(select(func.pg_try_advisory_xact_lock(REFUSED_ADDRESSES))):
        return False
    found = session.execute(_MARK, {"every": TELL_EVERY, "accounts": ACCOUNTS, "rows": ROWS}).all()
    if not found:
        return False
    marked: dict[UUID, list[Row[Any]]] = {row.account_id: [] for row in found}
    for row in found:
        if row.by_order_id is not None:
            marked[row.account_id].append(row)
    known = {"ids": arrays.uuids(marked)}
    before = {row.account_id: row.addresses for row in session.execute(_COUNTED, known)}
    totals = {id_: before.get(id_, 0) + len(rows) for id_, rows in marked.items()}
    going_on = {
        id_ for id_ in session.scalars(_HAVE_MORE, known) if totals[id_] < MOST_TOLD and marked[id_]
    }
    for id_ in going_on:
        session.execute(_COUNT, {"id": id_, "addresses": totals[id_]})
    ended = marked.keys() - going_on
    session.execute(_END, {"ids": arrays.uuids(ended)})
    warnings = (_warning(session, id_, marked[id_], totals[id_]) for id_ in sorted(ended))
    outbox.add(session, [*filter(None, warnings)])
    return True


def _warning(
    session: Session, account_id: UUID, refused: Sequence[Row[Any]], total: int
) -> Message | None:
    """Return the warning of a business; None if it is closed, or there is nothing to name.

    Args:
        session: the transaction.
        account_id: of the business.
        refused: the addresses of the last page; maybe few, or none.
        total: how many addresses were refused.
    """
    account = session.execute(
        select(Account.id, Account.company_name, Account.email).where(
            Account.id == account_id, Account.closed_at.is_(None)
        )
    ).first()
    if account is None:
        return None
    listed = refused
    if len(listed) < min(total, MOST_LISTED):  # the others were marked in earlier pages
        newest = {"id": account_id, "most": min(total, MOST_LISTED)}
        listed = session.execute(_NEWEST_TOLD, newest).all()
    if not listed:
        return None
    fact = OrderRecipientsRefused(
        **of_account(account),
        recipients=tuple(
            RefusedRecipient(
                address=row.address,
                order_id=row.by_order_id,
                response=row.response,
                order_number=row.order_number or UNSET,
            )
            for row in sorted(listed, key=lambda row: row.since)[:MOST_LISTED]
        ),
        total=total,
    )
    return message_for(fact, source=SOURCE, correlation_id=account_id)


def keep(_: Session) -> None:
    """Rehash rows of older keys, and delete old rows, by the earlier of both clocks.

    An order's row is deleted after the order, an account's rows some time after its closing. All in
    separate transactions of so many rows: a customer who unsubscribes meanwhile waits for one.
    """
    _rehash_all()
    with transaction() as session:
        now = time_by_both_clocks(session)
    # The journal may restore an order.
    old = now - timedelta(days=JOURNAL_DAYS)
    gone = ~select(Order.id).where(Order.id == Suppression.order_id).exists()
    _delete_all(Suppression.order_id.is_not(None), Suppression.since < old, gone)
    closed = select(Account.id).where(Account.closed_at < now - CLOSED_FOR)
    _delete_all(Suppression.account_id.in_(closed))


def _delete_all(*which: ColumnElement[bool]) -> None:
    """Delete rows, except for those that somebody else holds: the next run takes these."""
    found = AT_MOST
    while found == AT_MOST:
        with transaction() as session:
            next_ = select(Suppression.id).where(*which).limit(AT_MOST)
            ids = session.scalars(next_.with_for_update(skip_locked=True, of=Suppression)).all()
            session.execute(delete(Suppression).where(Suppression.id.in_(ids)))
        found = len(ids)


def _rehash_all() -> None:
    """Rehash rows under the first key, if their address is known.

    A row without an address needs its key indefinitely: it keeps an erased person from being
    mailed. All rows that are not under the first key are logged as needing an older one.
    """
    count, found = 0, AT_MOST
    while found == AT_MOST:
        with transaction() as session:
            found = _rehash(session)
        count += found
    with transaction() as session:
        others = select(func.count()).where(Suppression.key_id != unsubscribe_tokens().key_id)
        bound = session.scalar(others) or 0
    if count or bound:
        log.info("suppressions_hashed_again", count=count, need_an_older_key=bound)


def _rehash(session: Session) -> int:
    """Rehash the next rows; returns how many."""
    tokens = unsubscribe_tokens()
    outdated = session.scalars(
        select(Suppression)
        .where(Suppression.key_id != tokens.key_id, Suppression.address.is_not(None))
        .order_by(Suppression.id)
        .limit(AT_MOST)
        .with_for_update(skip_locked=True)
    ).all()
    for row in outdated:
        hashed = tokens.hashes(row.account_id, row.address or "")[0]
        twin = select(Suppression.id).where(
            Suppression.account_id == row.account_id,
            Suppression.address_hash == hashed.value,
            Suppression.cause == row.cause,
            Suppression.order_id.is_not_distinct_from(row.order_id),
        )
        if session.scalar(twin) is not None:  # unsubscribed again since
            session.delete(row)
        else:
            row.address_hash, row.key_id = hashed
        session.flush()
    return len(outdated)


# The accounts by a loose index scan: one of them may have any number of untold addresses.
_MARK = text("""
    WITH RECURSIVE untold AS (
        (SELECT account_id FROM suppressions WHERE cause = 'refused' AND told_at IS NULL
         ORDER BY account_id LIMIT 1)
        UNION ALL
        SELECT (SELECT s.account_id FROM suppressions s
                WHERE s.cause = 'refused' AND s.told_at IS NULL AND s.account_id > untold.account_id
                ORDER BY s.account_id LIMIT 1)
        FROM untold WHERE untold.account_id IS NOT NULL
    ), due AS MATERIALIZED (
        SELECT account_id FROM refusal_warnings
        UNION
        SELECT account_id FROM untold WHERE account_id IS NOT NULL
          AND NOT EXISTS (
              SELECT FROM suppressions AS told
              WHERE told.account_id = untold.account_id
                -- A stamp from the future is of a clock that was ahead: it must not silence this.
                AND told.told_at > clock_timestamp() - :every AND told.told_at <= clock_timestamp()
          )
          -- The rows of the last warning may have been deleted since.
          AND NOT EXISTS (
              SELECT FROM email_deliveries d
              WHERE d.subject_id = CAST(untold.account_id AS text)
                AND d.template = 'recipients_refused'
                AND d.at > clock_timestamp() - :every AND d.at <= clock_timestamp()
          )
        LIMIT :accounts
    ), marked AS (
        UPDATE suppressions AS s SET told_at = clock_timestamp()
        FROM due CROSS JOIN LATERAL (
            SELECT id FROM suppressions
            WHERE account_id = due.account_id AND cause = 'refused' AND told_at IS NULL LIMIT :rows
        ) AS next
        WHERE s.id = next.id AND s.told_at IS NULL
        RETURNING s.account_id, s.address, s.by_order_id, s.response, s.since,
                  (SELECT order_number FROM orders WHERE orders.id = s.by_order_id) AS order_number
    )
    SELECT due.account_id, address, by_order_id, response, since, order_number
    FROM due LEFT JOIN marked USING (account_id)
""")
_COUNTED = text("""
    SELECT account_id, addresses FROM refusal_warnings
    WHERE account_id = ANY(CAST(:ids AS uuid[]))
""")
_HAVE_MORE = text("""
    SELECT wanted FROM unnest(CAST(:ids AS uuid[])) AS wanted WHERE EXISTS (
        SELECT FROM suppressions
        WHERE account_id = wanted AND cause = 'refused' AND told_at IS NULL
    )
""")
_COUNT = text("""
    INSERT INTO refusal_warnings (account_id, addresses) VALUES (:id, :addresses)
    ON CONFLICT (account_id) DO UPDATE SET addresses = excluded.addresses
""")
_END = text("DELETE FROM refusal_warnings WHERE account_id = ANY(CAST(:ids AS uuid[]))")
_NEWEST_TOLD = text("""
    SELECT address, by_order_id, response, since,
           (SELECT order_number FROM orders WHERE orders.id = by_order_id) AS order_number
    FROM suppressions
    WHERE account_id = :id AND cause = 'refused' AND told_at IS NOT NULL
    ORDER BY told_at DESC, id DESC LIMIT :most
""")
