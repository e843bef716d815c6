"""How an account's orders get on: from accepted to recorded to emailed, and what waits.

Read from the request log, which has them by time, and joined by id to what the other services
wrote: so it costs the same with a thousand orders in the books as with millions.
"""

from datetime import datetime, timedelta
from typing import Any

import msgspec
from sqlalchemy import Row, text
from sqlalchemy.orm import Session

from shared.http.route import Answer, Call, Route

WINDOW = timedelta(hours=1)
MOST = 10_000  # orders that are looked at: 35 ms, however many there are in the books


class Latency(msgspec.Struct, kw_only=True):
    """Milliseconds since the order was accepted."""

    p50_ms: float
    p99_ms: float


class Waiting(msgspec.Struct, kw_only=True):
    """How many wait, and since when the one does that was accepted first."""

    orders: int
    oldest_accepted_at: datetime | None


class WebhookHealth(msgspec.Struct, kw_only=True):
    """The orders that were accepted in the last hour, the latest 10,000 at most."""

    orders: int
    is_complete: bool
    recorded: Latency | None
    emailed: Latency | None
    waiting_to_be_recorded: Waiting
    waiting_to_be_emailed: Waiting


def show(session: Session, call: Call[None, None]) -> Answer:
    """The health of the account's webhooks now."""
    found = session.execute(
        _HEALTH, {"account_id": call.caller, "window": WINDOW, "most": MOST}
    ).one()
    return Answer(
        200,
        WebhookHealth(
            orders=found.orders,
            is_complete=found.requests < MOST,
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


# An order that could not be delivered waits no more. The clocks of two machines may disagree by
# more than a step takes: nothing takes less than no time.
_HEALTH = text("""
    WITH latest AS (
        SELECT at, order_id FROM webhook_requests
        WHERE account_id = :account_id AND accepted AND at > now() - :window
          AND event_type = 'order.created'
        ORDER BY at DESC, id DESC LIMIT :most
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
           (SELECT count(*) FROM latest) AS requests,
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
