"""What is done about suppressions now and then: telling businesses, rotating keys, ending rows."""

from datetime import UTC, datetime, timedelta
from itertools import groupby

import structlog
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
AT_MOST = 500  # accounts a run, whose next run takes the rest; rows a transaction
CLOSED_FOR = timedelta(days=30)
"""After which nothing can wait any more that a closed account has sent."""

log = structlog.get_logger()


def tell_refused(session: Session) -> None:
    """Tell businesses which addresses were refused since they were last told: one email a day."""
    # Of several notifiers one at a time, and from here on: what another has told is seen.
    if not session.scalar(select(func.pg_try_advisory_xact_lock(REFUSED_ADDRESSES))):
        return
    now = datetime.now(UTC)
    values = {"now": now, "since": now - TELL_EVERY, "most": AT_MOST}
    told = session.execute(_TELL, values).all()
    facts: list[Message] = []
    for account_id, rows in groupby(
        sorted(told, key=lambda row: (row.account_id, row.since)), key=lambda row: row.account_id
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
                    address=row.address, order_id=row.by_order_id, response=row.response
                )
                for row in refused[:MOST_LISTED]
            ),
            total=len(refused),
        )
        facts.append(message_for(fact, source=SOURCE, correlation_id=account_id))
    outbox.add(session, facts)


def keep(session: Session) -> None:
    """Hash again what an older key has hashed, and end what is over by both clocks.

    An order's row ends with the order, and all of an account's some time after it was closed.
    """
    _hash_all_again()
    gone = ~select(Order.id).where(Order.id == Suppression.order_id).exists()
    # The journal may bring an order back.
    now = time_by_both_clocks(session)
    old = now - timedelta(days=JOURNAL_DAYS)
    session.execute(
        delete(Suppression).where(Suppression.order_id.is_not(None), Suppression.since < old, gone)
    )
    closed = select(Account.id).where(Account.closed_at < now - CLOSED_FOR)
    session.execute(delete(Suppression).where(Suppression.account_id.in_(closed)))


def _hash_all_again() -> None:
    """Bring rows under the first key, where their address is known.

    A row without one needs its key for ever: it is what keeps an erased person unmailed. What is
    counted as needing an older key is whatever is not under the first one, for whatever reason.
    """
    count, found = 0, AT_MOST
    while found == AT_MOST:
        # Each in a transaction of its own: who leaves meanwhile waits for one at most.
        with transaction() as session:
            found = _hash_again(session)
        count += found
    with transaction() as session:
        others = select(func.count()).where(Suppression.key_id != unsubscribe_tokens().key_id)
        bound = session.scalar(others) or 0
    if count or bound:
        log.info("suppressions_hashed_again", count=count, need_an_older_key=bound)


def _hash_again(session: Session) -> int:
    """Do the next ones; returns how many they were."""
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
        if session.scalar(twin) is not None:  # left again meanwhile
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
              WHERE told.account_id = untold.account_id AND told.told_at > :since
          )
          -- Those that it was told of may have been lifted since.
          AND NOT EXISTS (
              SELECT FROM email_deliveries d
              WHERE d.subject_id = CAST(untold.account_id AS text)
                AND d.template = 'recipients_refused' AND d.at > :since
          )
        LIMIT :most
    )
    UPDATE suppressions AS s SET told_at = :now FROM due
    WHERE s.account_id = due.account_id AND s.cause = 'refused' AND s.told_at IS NULL
    RETURNING s.account_id, s.address, s.by_order_id, s.response, s.since
""")
