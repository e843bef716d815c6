"""Periodic jobs of suppressions: warn businesses, rotate hash keys, delete old rows."""

from datetime import timedelta
from itertools import groupby

import structlog
from msgspec import UNSET
from sqlalchemy import delete, func, select, text
from sqlalchemy.orm import Session

from services.notifier import SOURCE
from shared.bus import outbox
from shared.bus.contract.events import OrderRecipientsRefused, RefusedRecipient, of_account
from shared.bus.contract.message import Message, message_for
from shared.config.settings import JOURNAL_DAYS
from shared.db.locking.advisory_locks import REFUSED_ADDRESSES
from shared.db.models import Account, Order, Suppression
from shared.db.session import time_by_both_clocks, transaction
from shared.security.unsubscribe_tokens import unsubscribe_tokens

TELL_EVERY = timedelta(days=1)
MOST_LISTED = 50  # in one email
AT_MOST = 500  # accounts a run, the next run takes the rest; rows a transaction
CLOSED_FOR = timedelta(days=30)
"""After which no message of a closed account can still be waiting."""

log = structlog.get_logger()


def tell_refused(session: Session) -> None:
    """Warn businesses about addresses that were refused since the last warning, once a day."""
    # One notifier at a time; it sees what another has committed.
    if not session.scalar(select(func.pg_try_advisory_xact_lock(REFUSED_ADDRESSES))):
        return
    new = session.execute(_TELL, {"every": TELL_EVERY, "most": AT_MOST}).all()
    facts: list[Message] = []
    for account_id, rows in groupby(
        sorted(new, key=lambda row: (row.account_id, row.since)), key=lambda row: row.account_id
    ):
        refused = list(rows)
        account = session.execute(
            select(Account.id, Account.company_name, Account.email).where(
                Account.id == account_id, Account.closed_at.is_(None)
            )
        ).first()
        if account is None:
            continue
        fact = OrderRecipientsRefused(
            **of_account(account),
            recipients=tuple(
                RefusedRecipient(
                    address=row.address,
                    order_id=row.by_order_id,
                    response=row.response,
                    order_number=row.order_number or UNSET,
                )
                for row in refused[:MOST_LISTED]
            ),
            total=len(refused),
        )
        facts.append(message_for(fact, source=SOURCE, correlation_id=account_id))
    outbox.add(session, facts)


def keep(session: Session) -> None:
    """Rehash rows of older keys, and delete old rows, by the earlier of both clocks.

    An order's row is deleted after the order, an account's rows some time after its closing.
    """
    _rehash_all()
    gone = ~select(Order.id).where(Order.id == Suppression.order_id).exists()
    # The journal may restore an order.
    now = time_by_both_clocks(session)
    old = now - timedelta(days=JOURNAL_DAYS)
    session.execute(
        delete(Suppression).where(Suppression.order_id.is_not(None), Suppression.since < old, gone)
    )
    closed = select(Account.id).where(Account.closed_at < now - CLOSED_FOR)
    session.execute(delete(Suppression).where(Suppression.account_id.in_(closed)))


def _rehash_all() -> None:
    """Rehash rows under the first key, if their address is known.

    A row without an address needs its key indefinitely: it keeps an erased person from being
    mailed. All rows that are not under the first key are logged as needing an older one.
    """
    count, found = 0, AT_MOST
    while found == AT_MOST:
        # In separate transactions: a customer who unsubscribes meanwhile waits for one at most.
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


_TELL = text("""
    WITH due AS (
        SELECT DISTINCT account_id FROM suppressions AS untold
        WHERE cause = 'refused' AND told_at IS NULL
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
        LIMIT :most
    )
    UPDATE suppressions AS s SET told_at = clock_timestamp() FROM due
    WHERE s.account_id = due.account_id AND s.cause = 'refused' AND s.told_at IS NULL
    RETURNING s.account_id, s.address, s.by_order_id, s.response, s.since,
              (SELECT order_number FROM orders WHERE orders.id = s.by_order_id) AS order_number
""")
