"""`GET /webhooks/health/`: how long an account's orders take until they are recorded and emailed.

The query starts from the request log, which is indexed by time, and joins the tables of other
services by id: it costs the same however many orders the database has.
"""

from datetime import datetime, timedelta
from typing import Any

import msgspec
from sqlalchemy import Row, text
from sqlalchemy.orm import Session

from shared.http.listing import MOST_SCANNED
from shared.http.route import Answer, Call, Route

WINDOW = timedelta(hours=1)
MOST = 10_000  # orders that are inspected: 35 ms, however many the database has


class Latency(msgspec.Struct, kw_only=True):
    """Milliseconds since the order was accepted."""

    p50_ms: float
    p99_ms: float


class Waiting(msgspec.Struct, kw_only=True):
    """How many orders wait, and when the oldest of them was accepted."""

    orders: int
    oldest_accepted_at: datetime | None


class WebhookHealth(msgspec.Struct, kw_only=True):
    """The orders accepted in the last hour, the latest 10,000 at most.

    They are taken from the latest 100,000 accepted requests.
    """

    orders: int
    is_complete: bool
    recorded: Latency | None
    emailed: Latency | None
    waiting_to_be_recorded: Waiting
    waiting_to_be_emailed: Waiting


def show(session: Session, call: Call[None, None]) -> Answer:
    """Return the current health of the account's orders."""
    bounds = {"window": WINDOW, "most": MOST, "most_looked_at": MOST_SCANNED}
    found = session.execute(_HEALTH, {"account_id": call.caller} | bounds).one()
    return Answer(
        200,
        WebhookHealth(
            orders=found.orders,
            is_complete=found.is_complete,
            recorded=_latency(found.recorded),
            emailed=_latency(found.emailed),
            waiting_to_be_recorded=_waiting(found, "recorded"),
            waiting_to_be_emailed=_waiting(found, "emailed"),
        ),
    )


def _latency(quantiles: list[float] | None) -> Latency | None:
    if quantiles is None:
        return None
    p50, p99 = (round(seconds * 1000, 1) for seconds in quantiles)
    return Latency(p50_ms=p50, p99_ms=p99)


def _waiting(found: Row[Any], what: str) -> Waiting:
    return Waiting(
        orders=getattr(found, f"not_{what}"),
        oldest_accepted_at=getattr(found, f"oldest_not_{what}"),
    )


# An order whose email failed for good does not count as waiting. The clocks of two machines may
# differ by more than a step takes, so durations are at least 0. `is_complete` is queried only if
# fewer than `most` orders were found.
_HEALTH = text("""
    WITH latest AS (
        SELECT at, order_id FROM (
            SELECT at, order_id, event_type FROM webhook_requests
            WHERE account_id = :account_id AND accepted AND at > now() - :window
            ORDER BY at DESC, id DESC LIMIT :most_looked_at
        ) inspected
        WHERE event_type = 'order.created'
        ORDER BY at DESC LIMIT :most
    ), accepted AS (
        SELECT order_id, min(at) AS at FROM latest GROUP BY order_id
    ), walked AS (
        SELECT accepted.at, recorded_at, emailed_at,
               greatest(0, extract(epoch FROM recorded_at - accepted.at)) AS to_record,
               greatest(0, extract(epoch FROM emailed_at - accepted.at)) AS to_email
        FROM accepted
        LEFT JOIN LATERAL (SELECT recorded_at FROM orders WHERE id = order_id) o ON true
        LEFT JOIN LATERAL (
            SELECT min(d.at) AS emailed_at FROM email_deliveries d
            WHERE subject_id = CAST(order_id AS text) AND template = 'order_received'
        ) e ON true
    )
    SELECT count(*) AS orders,
           CASE WHEN (SELECT count(*) FROM latest) < :most THEN NOT EXISTS (
               SELECT FROM webhook_requests
               WHERE account_id = :account_id AND accepted AND at > now() - :window
               OFFSET :most_looked_at - 1
           ) ELSE false END AS is_complete,
           CAST(percentile_cont(CAST(ARRAY[0.5, 0.99] AS float8[]))
                WITHIN GROUP (ORDER BY to_record) FILTER (WHERE recorded_at IS NOT NULL)
                AS float8[]) AS recorded,
           CAST(percentile_cont(CAST(ARRAY[0.5, 0.99] AS float8[]))
                WITHIN GROUP (ORDER BY to_email) FILTER (WHERE emailed_at IS NOT NULL)
                AS float8[]) AS emailed,
           count(*) FILTER (WHERE recorded_at IS NULL) AS not_recorded,
           min(at) FILTER (WHERE recorded_at IS NULL) AS oldest_not_recorded,
           count(*) FILTER (WHERE emailed_at IS NULL) AS not_emailed,
           min(at) FILTER (WHERE emailed_at IS NULL) AS oldest_not_emailed
    FROM walked
""")

ROUTES = (
    Route(
        method="GET",
        path="/webhooks/health/",
        handler=show,
        summary="How long your orders of the last hour took, and which still wait",
        answers={200: WebhookHealth},
        bearer=True,
        tag="Webhooks",
    ),
)
