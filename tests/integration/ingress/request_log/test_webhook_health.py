"""What a sender sees of how its orders get on."""

from datetime import datetime, timedelta
from types import SimpleNamespace

import pytest
from sqlalchemy import text

from services.ingress.request_log import health_api
from shared.db.models import EmailDelivery
from shared.ids import new_id
from tests.integration.arrange import ago, an_order
from tests.integration.ingress.conftest import approved

LOG = text(
    "INSERT INTO webhook_requests (at, account_id, accepted, code, event_type, event_id, order_id,"
    " scheme, latency_us, client_address) VALUES (:at, :account_id, true, 'accepted',"
    " 'order.created', :order_id, :order_id, 'x-api-key', 1, '::1')"
)


def walk(session, sender, at, recorded=None, emailed=None, copies=1):
    """An order that was accepted then, and how many seconds later it was where."""
    order_id = new_id()
    for copy in range(copies):
        values = {"at": at + timedelta(seconds=copy), "order_id": order_id}
        session.execute(LOG, values | {"account_id": sender.account_id})
    if recorded is not None:
        session.add(
            an_order(
                sender.account_id,
                id=order_id,
                status_at=at,
                accepted_at=at,
                recorded_at=at + timedelta(seconds=recorded),
            )
        )
    if emailed is not None:
        session.add(
            EmailDelivery(
                fact_id=new_id(),
                subject_id=str(order_id),
                recipient="z@shop.example",
                template="order_received",
                message_id="<1@x>",
                state="sent",
                at=at + timedelta(seconds=emailed),
            )
        )
    session.commit()


def health(api, sender):
    answer = api.http.get("/webhooks/health/", headers=sender.bearer)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_nothing_was_sent(api, sender):
    nothing = {"orders": 0, "oldest_accepted_at": None}
    assert health(api, sender) == {
        "orders": 0,
        "is_complete": True,
        "recorded": None,
        "emailed": None,
        "waiting_to_be_recorded": nothing,
        "waiting_to_be_emailed": nothing,
    }


def test_how_long_it_took_and_what_waits(api, sender):
    oldest = ago(minutes=20)
    with api.session() as session:
        for seconds in (1, 2, 3):
            walk(session, sender, ago(minutes=10), seconds, seconds * 2)
        walk(session, sender, oldest, 2)
        walk(session, sender, ago(minutes=5), copies=3)
        walk(session, sender, ago(hours=2))
        walk(session, approved(api), ago())
    found = health(api, sender)
    assert (found["orders"], found["is_complete"]) == (5, True)
    assert found["recorded"]["p50_ms"] == 2000.0
    assert found["recorded"]["p99_ms"] == pytest.approx(2970, abs=1)
    assert found["emailed"]["p50_ms"] == 4000.0
    assert found["waiting_to_be_recorded"]["orders"] == 1
    assert found["waiting_to_be_emailed"]["orders"] == 2
    since = found["waiting_to_be_emailed"]["oldest_accepted_at"]
    assert datetime.fromisoformat(since) == oldest


def test_a_clock_that_is_behind_makes_no_negative_time(api, sender):
    with api.session() as session:
        walk(session, sender, ago(minutes=1), -5, -4)
    assert health(api, sender)["recorded"] == {"p50_ms": 0.0, "p99_ms": 0.0}


def test_only_the_latest_are_looked_at(api, sender):
    with api.session() as session:
        session.execute(
            text(
                "INSERT INTO webhook_requests (at, account_id, accepted, code, event_type,"
                " event_id, order_id, scheme, latency_us, client_address)"
                " SELECT now() - n * interval '1 ms', :id, true, 'accepted', 'order.created', u, u,"
                " 'x-api-key', 1, '::1'"
                " FROM (SELECT n, gen_random_uuid() AS u FROM generate_series(1, 10100) AS n) AS x"
            ),
            {"id": sender.account_id},
        )
        session.commit()
    found = health(api, sender)
    assert (found["orders"], found["is_complete"]) == (10_000, False)


def updates(session, sender, count):
    session.execute(
        text(
            "INSERT INTO webhook_requests (at, account_id, accepted, code, event_type, event_id,"
            " scheme, latency_us, client_address)"
            " SELECT now() - n * interval '1 ms', :id, true, 'accepted', 'order.updated', u,"
            " 'x-api-key', 1, '::1'"
            " FROM (SELECT n, gen_random_uuid() AS u FROM generate_series(1, :count) AS n) AS x"
        ),
        {"id": sender.account_id, "count": count},
    )


def test_orders_behind_many_updates_are_not_looked_for(api, sender, monkeypatch):
    monkeypatch.setattr(health_api, "MOST_SCANNED", 5)
    with api.session() as session:
        walk(session, sender, ago(minutes=1), 1, 1)
        for count, outcome in ((3, (1, True)), (1, (1, False)), (1, (0, False))):
            updates(session, sender, count)
            found = health_api.show(session, SimpleNamespace(caller=sender.account_id)).body
            assert (found.orders, found.is_complete) == outcome


def read(plan):
    """How many rows of the request log a plan has read."""
    is_of_it = "webhook_requests" in plan.get("Relation Name", "")
    rows = plan["Actual Rows"] * plan["Actual Loops"] if is_of_it else 0
    return rows + sum(map(read, plan.get("Plans", ())))


def test_no_more_is_read_than_is_told_of(api, sender):
    """Who sends ten thousand orders an hour has them read, and not ten times as many."""
    with api.session() as session:
        for n in range(12):
            walk(session, sender, ago(minutes=1, seconds=n))
        session.execute(text("SET LOCAL enable_seqscan = off"))
        session.execute(text("SET LOCAL enable_bitmapscan = off"))
        session.execute(text("SET LOCAL enable_sort = off"))
        bounds = {"window": health_api.WINDOW, "most": 3, "most_looked_at": 10}
        plan = session.execute(
            text(f"EXPLAIN (ANALYZE, FORMAT JSON) {health_api._HEALTH}"),
            bounds | {"account_id": sender.account_id},
        ).scalar_one()
    assert read(plan[0]["Plan"]) < 6


def test_it_is_for_who_is_signed_in(api):
    assert api.http.get("/webhooks/health/").status_code == 401
