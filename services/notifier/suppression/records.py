"""The suppressions: unsubscribed customers, refused addresses, and customers of blocked businesses.

They apply to emails about orders only; emails to a business about its account are always sent. An
unsubscribed customer still gets one email for each new order, which shows what was ordered in their
name. A refused address gets none.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from services.notifier.composing import Email
from services.notifier.mail.outgoing import NotSentError, UndeliverableError
from shared.bus.contract.events import OrderRecorded
from shared.db import arrays
from shared.ids import new_id
from shared.security.unsubscribe_tokens import unsubscribe_tokens


class LeftError(NotSentError):
    """The customer has unsubscribed from the business, or from this order."""

    state = "unsubscribed"

    def __init__(self, *, this_order: bool) -> None:
        what = "about this order" if this_order else "of this business"
        super().__init__(550, f"not sent: the customer wants no more emails {what}")


class SuppressedError(NotSentError):
    """The mail server refused the address permanently before."""

    state = "suppressed"

    def __init__(self, code: int, response: str) -> None:
        super().__init__(550, f"not sent: the address was refused before: {response or code}")


class BlockedError(NotSentError):
    """The business is blocked by operators: emails about its orders are not sent."""

    def __init__(self) -> None:
        super().__init__(550, "not sent: the business is blocked")


class Refused(NamedTuple):
    """An email whose address the mail server refused permanently, and the error."""

    email: Email
    error: UndeliverableError


def refusals(session: Session, emails: Sequence[Email]) -> Mapping[UUID, NotSentError]:
    """Return, by fact, why some of these emails must not be sent.

    As of now: a customer who unsubscribes afterwards may still get the email.
    """
    facts, accounts, orders, values = [], [], [], []
    for email in emails:
        if email.account_id is None or email.order_id is None or not email.is_counted:
            continue
        for hashed in unsubscribe_tokens().hashes(email.account_id, email.recipient):
            facts.append(email.fact_id)
            accounts.append(email.account_id)
            orders.append(email.order_id)
            values.append(hashed.value)
    if not facts:
        return {}
    rows = session.execute(
        _FIND,
        {
            "fact_id": arrays.uuids(facts),
            "account_id": arrays.uuids(accounts),
            "order_id": arrays.uuids(orders),
            "address_hash": arrays.blobs(values),
        },
    ).all()
    is_receipt = {e.fact_id: e.fact_type == OrderRecorded.TYPE for e in emails}
    found: dict[UUID, NotSentError] = {}
    for row in rows:
        if row.cause == "refused":
            found[row.fact_id] = SuppressedError(row.smtp_code, row.response)
        elif row.cause == "blocked":
            found.setdefault(row.fact_id, BlockedError())
        elif not is_receipt[row.fact_id]:
            found.setdefault(row.fact_id, LeftError(this_order=row.order_id is not None))
    return found


def refuse(session: Session, refused: Sequence[Refused]) -> None:
    """Record refused addresses, each for the business of its order."""
    tokens = unsubscribe_tokens()
    rows = [
        (email, error, tokens.hashes(email.account_id, email.recipient)[0])
        for email, error in refused
        if email.account_id is not None and email.is_counted
    ]
    if not rows:
        return
    # Sorted, so that two notifiers with the same addresses do not deadlock.
    rows.sort(key=lambda row: row[2].value)
    session.execute(
        _REFUSE,
        {
            "id": arrays.uuids(new_id() for _ in rows),
            "account_id": arrays.uuids(email.account_id or "" for email, _, _ in rows),
            "address_hash": arrays.blobs(hashed.value for _, _, hashed in rows),
            "key_id": arrays.blobs(hashed.key_id for _, _, hashed in rows),
            "address": arrays.texts(email.recipient for email, _, _ in rows),
            "by_order_id": arrays.uuids(email.order_id or "" for email, _, _ in rows),
            "smtp_code": arrays.texts(str(error.code) for _, error, _ in rows),
            "response": arrays.texts(str(error) for _, error, _ in rows),
        },
    )


_FIND = text("""
    WITH given AS (
        SELECT * FROM unnest(CAST(:fact_id AS uuid[]), CAST(:account_id AS uuid[]),
                             CAST(:order_id AS uuid[]), CAST(:address_hash AS bytea[]))
             AS given (fact_id, account_id, order_id, address_hash)
    )
    SELECT given.fact_id, s.cause, s.order_id, s.smtp_code, s.response
    FROM given JOIN suppressions s
         ON s.account_id = given.account_id AND s.address_hash = given.address_hash
            AND s.order_id IS NULL
    UNION ALL
    SELECT given.fact_id, s.cause, s.order_id, s.smtp_code, s.response
    FROM given JOIN suppressions s
         ON s.order_id = given.order_id AND s.address_hash = given.address_hash
            AND s.account_id = given.account_id
    UNION ALL
    SELECT given.fact_id, 'blocked', NULL, NULL, NULL
    FROM given JOIN webhook_policies p
         ON p.account_id = given.account_id AND p.blocked_at IS NOT NULL
""")
_REFUSE = text("""
    INSERT INTO suppressions (id, account_id, cause, address_hash, key_id, address, by_order_id,
                              smtp_code, response)
    SELECT id, account_id, 'refused', address_hash, key_id, address, by_order_id,
           CAST(smtp_code AS smallint), response
    FROM unnest(CAST(:id AS uuid[]), CAST(:account_id AS uuid[]), CAST(:address_hash AS bytea[]),
                CAST(:key_id AS bytea[]), CAST(:address AS text[]), CAST(:by_order_id AS uuid[]),
                CAST(:smtp_code AS text[]), CAST(:response AS text[]))
         AS given (id, account_id, address_hash, key_id, address, by_order_id, smtp_code, response)
    ON CONFLICT DO NOTHING
""")
