"""The request log: what became of each request, as its account may see it, and within bounds."""

import hashlib
import json
import re
import time
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import chain
from uuid import UUID

import pytest
from sqlalchemy import create_engine, event, func, select, text
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from services.ingress.request_log import api as request_log_api
from services.ingress.request_log import rows as request_log_rows
from services.ingress.request_log.attempt import Attempt
from services.ingress.request_log.writer import ACCOUNT_REFUSALS
from services.ingress.webhook import hmac_hex
from shared.db.models import (
    OrderConflict,
    OrderStatusHistory,
    WaitingUpdate,
    WebhookRequest,
    WebhookSecret,
    WebhookSecretUse,
)
from shared.http import listing
from shared.http.route import Call
from shared.ids import new_id
from tests.integration.arrange import ahead, by_each_worker, until
from tests.integration.conftest import running_ingress
from tests.integration.gate import Gate
from tests.integration.ingress.conftest import ORDER, PATH, approved


def rows(api, sender):
    with api.session() as session:
        return session.scalars(
            select(WebhookRequest)
            .where(WebhookRequest.account_id == sender.account_id)
            .order_by(WebhookRequest.at)
        ).all()


def logged(api, sender, count):
    """The rows of a sender, when there are so many."""
    return until(lambda: len(found := rows(api, sender)) >= count and found, f"{count} are logged")


def taken(api, sender):
    return [row for row in rows(api, sender) if row.accepted]


def counter(api, name):
    found = re.search(rf"^{re.escape(name)} (\S+)$", api.http.get(f"{api.url}/metrics").text, re.M)
    return float(found[1]) if found else 0.0


def test_an_accepted_request_can_be_verified_again_from_its_row_and_the_secret(api, sender):
    answer = sender.send()
    (row,) = logged(api, sender, 1)
    raw = json.dumps(ORDER).encode()
    assert (row.accepted, row.code, row.event_type) == (True, "accepted", "order.created")
    assert str(row.order_id) == str(row.event_id) == answer.json()["order_id"]
    assert (row.body_sha256, row.body_bytes) == (hashlib.sha256(raw).digest(), len(raw))
    shown = api.http.get("/webhook/secret/", headers=sender.bearer).json()
    assert row.secret_id == UUID(shown["id"])
    key = shown["secret_key"].encode()
    assert hmac_hex.matches(key, raw, row.signature.encode())
    assert not hmac_hex.matches(key, raw + b" ", row.signature.encode())
    assert (row.scheme, row.client_address) == ("x-api-key", "127.0.0.1")
    assert 0 < row.latency_us < 10_000_000
    assert abs(row.at - datetime.now(UTC)) < timedelta(minutes=1)


def every_worker_knows(api):
    """What names nobody that a worker knows belongs to nobody."""
    with api.session() as session:
        known = float(session.scalar(select(func.count()).select_from(WebhookSecret)))
    until(lambda: api.gauge("secret_cache_size") == [known, known], "every worker knows")


@pytest.mark.parametrize("wrong", ["{}", "sha256={}", '"{}"', "{}, {}"])
def test_a_secret_where_none_belongs_is_not_kept(api, sender, wrong):
    every_worker_knows(api)
    secrets = (sender.secret, sender.signing_secret)
    for secret in secrets:
        sender.send(**{"X-Webhook-Signature": wrong.format(secret, secret)})
        sender.send(**{"Idempotency-Key": wrong.format(secret, secret)})
        sender.standard(**{"webhook-signature": wrong.format(secret, secret)})
        sender.standard(**{"webhook-timestamp": wrong.format(secret, secret)})
        sender.standard(id_=secret)
    for row in logged(api, sender, 10):
        kept = f"{row.signature} {row.idempotency_key} {row.webhook_timestamp}"
        assert not any(secret[8:] in kept for secret in secrets), kept


def test_so_can_one_by_standard_webhooks(api, sender):
    answer = sender.standard(id_="msg_1")
    (row,) = logged(api, sender, 1)
    raw = json.dumps(ORDER)
    assert (row.scheme, row.idempotency_key) == ("standard-webhooks", "msg_1")
    assert str(row.order_id) == answer.json()["order_id"]
    kept = {
        "webhook-id": row.idempotency_key,
        "webhook-timestamp": row.webhook_timestamp,
        "webhook-signature": row.signature,
    }
    assert Webhook(sender.signing_secret).verify(raw, kept) == ORDER
    with pytest.raises(WebhookVerificationError):
        Webhook(sender.signing_secret).verify(raw + " ", kept)


def test_what_never_reached_the_signature_belongs_to_who_is_named(api, sender):
    every_worker_knows(api)
    raw = json.dumps(ORDER).encode()
    api.http.post(PATH, content=raw, headers={"X-API-Key": sender.secret})
    sender.standard(**{"webhook-timestamp": "1"})
    api.http.post(sender.path, content=raw)
    found = logged(api, sender, 3)
    assert [row.code for row in found] == [
        "missing_authentication",
        "invalid_timestamp",
        "missing_authentication",
    ]


def test_a_request_with_a_revoked_key_is_still_its_owners(api, sender):
    api.http.post("/webhook/secret/", json={"revoke_previous": True}, headers=sender.bearer)
    until(lambda: sender.send().status_code == 401, "revoked")
    until(lambda: [r.code for r in rows(api, sender)][-1:] == ["invalid_api_key"], "logged")


def test_a_refusal_says_why_and_under_which_secret(api, sender):
    sender.send(**{"X-Webhook-Signature": "0" * 64})
    sender.send(b"{")
    found = logged(api, sender, 2)
    assert [(row.accepted, row.code) for row in found] == [
        (False, "invalid_signature"),
        (False, "invalid_body"),
    ]
    assert {row.secret_id for row in found} != {None}
    assert {(row.event_id, row.order_id) for row in found} == {(None, None)}


@pytest.mark.parametrize(
    "signature", [b"\\", b"a\tb", b"\\N", b"caf\xe9", b"x" * 5000, b"\\x00", b"''; DROP"]
)
def test_whatever_is_in_a_header_becomes_one_row(api, sender, signature):
    lines = [f"X-API-Key: {sender.secret}".encode(), b"X-Webhook-Signature: " + signature]
    assert sender.raw(*lines, b"Content-Length: 2", body=b"{}")[0] == 401
    (row,) = logged(api, sender, 1)
    assert row.signature == signature.decode("latin-1")[:2048]


def test_every_worker_writes_its_log(api, sender):
    answered = by_each_worker(api.pid, lambda: [sender.send().json() for _ in range(8)])
    order_ids = {answer["order_id"] for answers in answered for answer in answers}
    assert {str(row.order_id) for row in logged(api, sender, 16)} == order_ids
    assert len(rows(api, sender)) == 16
    until(lambda: api.gauge("webhook_log_waiting") == [0.0, 0.0], "nothing waits in either")


def test_a_flood_of_refusals_is_counted_and_does_not_fill_the_table(api, sender):
    before = counter(api, 'fellow_webhook_log_dropped_total{reason="many_refusals"}')
    sent = 2 * ACCOUNT_REFUSALS + 300
    for _ in range(sent):
        sender.send(**{"X-Webhook-Signature": "0" * 64})
    assert sender.send().status_code == 201
    until(lambda: any(row.accepted for row in rows(api, sender)), "the accepted one is logged")
    until(
        lambda: (
            counter(api, 'fellow_webhook_log_dropped_total{reason="many_refusals"}')
            - before
            + len(rows(api, sender))
            == sent + 1
        ),
        "each is logged or counted",
    )
    assert ACCOUNT_REFUSALS <= len(rows(api, sender)) < sent


def test_what_belongs_to_nobody_is_counted_alone(api, sender):
    before = counter(api, 'fellow_webhook_log_dropped_total{reason="nobody"}')
    assert sender.send(**{"X-API-Key": "whsk_nobody"}).status_code == 401
    until(
        lambda: counter(api, 'fellow_webhook_log_dropped_total{reason="nobody"}') > before,
        "it is counted",
    )
    assert rows(api, sender) == []


def test_what_is_left_is_written_at_the_stop(amqp_url, database_url, tmp_path):
    with running_ingress(tmp_path, amqp_url, database_url) as api:
        sender = approved(api)
        for _ in range(20):
            assert sender.send().status_code == 201
    engine = create_engine(database_url)
    with engine.connect() as connection:
        assert connection.scalar(select(func.count()).select_from(WebhookRequest)) == 20
        assert connection.scalar(select(func.sum(WebhookSecretUse.accepted))) == 20
    engine.dispose()


@pytest.mark.parametrize("how", ["cut", "stall"])
def test_without_the_database_orders_are_accepted_and_the_log_waits(
    amqp_url, database_url, tmp_path, how
):
    with ExitStack() as stack:
        gate = stack.enter_context(Gate(database_url))
        api = stack.enter_context(running_ingress(tmp_path, amqp_url, gate.url))
        sender = approved(api)
        until(lambda: api.gauge("secret_cache_size") == [1.0, 1.0], "every worker knows")
        getattr(gate, how)()
        assert {sender.send().status_code for _ in range(30)} == {201}
        until(
            lambda: sum(api.gauge("webhook_log_waiting")) == 30,
            "the metrics tell what waits",
        )
        gate.open()
        # Past the gate, which has cut this process's connections too.
        beside = create_engine(database_url)
        stack.callback(beside.dispose)
        assert len(logged(replace(api, engine=beside), sender, 30)) == 30


def test_beyond_the_bound_rows_are_dropped_and_counted(api, monkeypatch):
    import asyncio

    from falcon import testing
    from prometheus_client import REGISTRY

    from services.ingress.request_log import writer
    from services.ingress.request_log.attempt import Attempt
    from shared.ids import new_id

    monkeypatch.setattr(writer, "MAX_WAITING", 10)

    async def fill():
        log = writer.RequestLog()
        for _ in range(25):
            attempt = Attempt(time.time())
            attempt.account_id, attempt.code = new_id(), "accepted"
            log.add(testing.create_asgi_req(), attempt, "x-api-key", 0.001)
        return log

    def dropped():
        name = "fellow_webhook_log_dropped_total"
        return REGISTRY.get_sample_value(name, {"reason": "full"}) or 0

    before = dropped()
    log = asyncio.run(fill())
    assert len(log._rows) == 10
    assert dropped() - before == 15


@pytest.fixture
def one_day():
    """All of a test is on one day (UTC): shortly before its end the next one is waited for.

    First of all, since a database has the partitions of the day on which it is made.
    """
    left = 86_400 - time.time() % 86_400
    if left < 60:
        time.sleep(left + 0.1)


def partitions(session):
    names = session.scalars(
        text(
            "SELECT relname FROM pg_class JOIN pg_inherits ON inhrelid = pg_class.oid "
            "WHERE inhparent = 'webhook_requests'::regclass AND relkind = 'r'"
        )
    )
    return sorted(names)


def day(days):
    return (datetime.now(UTC) + timedelta(days=days)).date()


def name(days):
    return f"webhook_requests_{day(days):%Y%m%d}"


def add_partition(session, days):
    session.execute(
        text(
            f"CREATE TABLE partitions.{name(days)} PARTITION OF webhook_requests "
            f"FOR VALUES FROM ('{day(days)} 00:00+00') TO ('{day(days + 1)} 00:00+00')"
        )
    )


@pytest.mark.usefixtures("one_day")
def test_partitions_are_made_ahead_and_dropped_after_thirty_days(db):
    for days in (-40, -31, -30):
        add_partition(db, days)
    db.execute(text(f"DROP TABLE partitions.{name(5)}"))
    db.commit()
    db.execute(text("SELECT keep_webhook_request_partitions(30)"))
    db.commit()
    assert partitions(db) == sorted(name(days) for days in (-30, *range(-1, 8)))


@pytest.mark.usefixtures("one_day")
@pytest.mark.parametrize(("days", "kept"), [(0, (-40, -31, -30)), (1, ())])
def test_days_may_be_kept_for_ever_and_a_week_in_any_case(db, days, kept):
    """A week: whoever has taken the ingress over would have it drop the log."""
    for at in (-40, -31, -30, -7):
        add_partition(db, at)
    db.commit()
    db.execute(text("SELECT keep_webhook_request_partitions(:days)"), {"days": days})
    db.commit()
    assert partitions(db) == sorted(name(at) for at in (*kept, -7, *range(-1, 8)))


@pytest.mark.usefixtures("one_day")
@pytest.mark.parametrize(("off", "kept"), [(40, ()), (-5, (-31,)), (-40, (-60, -31)), (None, ())])
def test_a_day_is_dropped_when_it_is_over_by_both_clocks(db, off, kept):
    """That of the database may have jumped ahead: the log would be gone with all its receipts."""
    for at in (-71, -60, -31):
        add_partition(db, at)
    db.commit()
    call = text("SELECT keep_webhook_request_partitions(30, :host)")
    host = None if off is None else ahead(days=off)
    db.execute(call, {"host": host})
    db.commit()
    assert partitions(db) == sorted(name(at) for at in (*kept, *range(-1, 8)))


@pytest.mark.usefixtures("one_day")
def test_whoever_reads_an_old_partition_holds_up_its_drop_and_nothing_else(db, engine):
    add_partition(db, -31)
    db.execute(text(f"DROP TABLE partitions.{name(7)}"))
    db.commit()
    with engine.connect() as reader:
        reader.execute(text(f"LOCK TABLE partitions.{name(-31)} IN ACCESS SHARE MODE"))
        db.execute(text("SELECT keep_webhook_request_partitions(30)"))
        db.commit()
    assert name(7) in partitions(db)
    assert name(-31) in partitions(db)
    db.execute(text("SELECT keep_webhook_request_partitions(30)"))
    db.commit()
    assert name(-31) not in partitions(db)


@pytest.mark.usefixtures("one_day")
def test_a_missing_partition_is_made_when_a_row_needs_it(api, sender):
    with api.session() as session:
        session.execute(text(f"DROP TABLE partitions.{name(0)}"))
        session.commit()
    assert sender.send().status_code == 201
    assert len(logged(api, sender, 1)) == 1


def log_of(api, sender, **query):
    answer = api.http.get("/webhooks/log/", headers=sender.bearer, params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_a_row_that_fits_no_partition_costs_no_other(settings, engine):
    def row(days):
        attempt = Attempt(time.time())
        attempt.code, attempt.at = "accepted", attempt.at + 86_400 * days
        ids = f"{new_id()}\t{request_log_rows.NULL}"
        return request_log_rows.row(attempt, ids, "x-api-key", 5, "127.0.0.1")

    batch = [row(0)] * 50 + [row(9), row(-300)] + [row(0)] * 50
    assert request_log_rows.write(batch) == 2
    with engine.connect() as connection:
        assert connection.scalar(select(func.count()).select_from(WebhookRequest)) == 100


def test_the_log_over_http_is_filtered_and_paged(api, sender):
    order_ids = [sender.send().json()["order_id"] for _ in range(4)]
    sender.send(b"{")
    sender.send(**{"X-Webhook-Signature": "0" * 64})
    order_ids.append(sender.send().json()["order_id"])
    logged(api, sender, 7)
    everything = log_of(api, sender)["results"]
    assert [entry["code"] for entry in everything] == [
        "accepted", "invalid_signature", "invalid_body", *["accepted"] * 4,
    ]  # fmt: skip
    assert [e["order_id"] for e in everything if e["order_id"]] == order_ids[::-1]
    assert everything[0]["secret_id"] == everything[1]["secret_id"]
    assert everything[0]["latency_ms"] > 0
    assert everything[0]["conflict"] is False
    accepted = log_of(api, sender, outcome="accepted")["results"]
    assert [e["order_id"] for e in accepted] == order_ids[::-1]
    assert [e["code"] for e in log_of(api, sender, outcome="refused")["results"]] == [
        "invalid_signature",
        "invalid_body",
    ]
    assert len(log_of(api, sender, code="invalid_body")["results"]) == 1
    assert log_of(api, sender, code="invalid_body", outcome="accepted")["results"] == []
    since = everything[2]["received_at"]
    assert log_of(api, sender, received_from=since)["results"] == everything[:3]
    assert log_of(api, sender, received_to=since)["results"] == everything[3:]
    seen, cursor = [], None
    while True:
        page = log_of(api, sender, limit=2, **({"cursor": cursor} if cursor else {}))
        seen += page["results"]
        cursor = page["next"]
        if cursor is None:
            break
    assert seen == everything


def test_another_order_under_the_same_key_shows_as_a_conflict(api, sender):
    key = {"Idempotency-Key": "k-1"}
    assert sender.send(**key).status_code == 201
    # The worker that took the first refuses the other; the next one has never heard of the key.
    other = ORDER | {"address": "elsewhere"}
    until(lambda: sender.send(other, **key).status_code == 201, "another worker takes it")
    everything = until(lambda: len(accepted := taken(api, sender)) == 2 and accepted, "both")
    first, second = everything
    assert (first.order_id, first.idempotency_key) == (second.order_id, second.idempotency_key)
    with api.session() as session:
        # As services.orders keeps it.
        session.add(
            OrderConflict(
                event_id=second.event_id,
                order_id=second.order_id,
                account_id=sender.account_id,
                event={},
                at=second.at,
            )
        )
        session.commit()
    shown = [e for e in log_of(api, sender)["results"] if e["outcome"] == "accepted"]
    assert [e["conflict"] for e in shown] == [True, False]


def test_an_update_of_an_unknown_order_shows_where_it_stands(api, sender):
    sent = {
        "type": "order.status_changed",
        "order_number": "A-1001",
        "tracking_status": "DELIVERED",
    }
    assert sender.send(sent).status_code == 201
    (entry,) = logged(api, sender, 1)

    def shown():
        (result,) = log_of(api, sender)["results"]
        return result["awaits_order"], result["order_number"]

    assert shown() == (None, None)
    # As services.orders notes it.
    waiting = WaitingUpdate(
        event_id=entry.event_id,
        account_id=sender.account_id,
        order_id=entry.order_id,
        order_number="A-1001",
        since=entry.at,
    )
    with api.session() as session:
        session.add(waiting)
        session.commit()
        assert shown() == ("waiting", "A-1001")
        waiting.given_up_at = entry.at
        session.commit()
        assert shown() == ("given_up", "A-1001")
        # Put back by ops staff after its order came.
        session.add(
            OrderStatusHistory(
                event_id=entry.event_id,
                order_id=entry.order_id,
                tracking_status="DELIVERED",
                note="",
                at=entry.at,
                applied=True,
            )
        )
        session.commit()
        assert shown() == (None, "A-1001")


def test_requests_of_one_moment_are_each_on_one_page(api, sender):
    with api.session() as session:
        session.execute(
            text(
                "INSERT INTO webhook_requests (at, account_id, accepted, code, scheme, latency_us,"
                " client_address, body_bytes) SELECT now(), :id, n % 2 = 0, 'x', 'x-api-key', 1,"
                " '::1', n FROM generate_series(1, 20) AS n"
            ),
            {"id": sender.account_id},
        )
        session.commit()
    first = log_of(api, sender, limit=7)
    second = log_of(api, sender, limit=13, cursor=first["next"])
    lengths = [entry["body_bytes"] for entry in first["results"] + second["results"]]
    assert sorted(lengths) == list(range(1, 21))
    assert second["next"] is None


def write_log(session, sender, count):
    """Requests of the last seconds, of which every tenth is refused and every ninth has a note."""
    session.execute(
        text(
            "INSERT INTO webhook_requests (at, account_id, accepted, code, scheme, latency_us,"
            " client_address, body_bytes, note, order_number) SELECT now() - n * interval '1 ms',"
            " :id, n % 10 <> 0, CASE n % 10 WHEN 0 THEN 'invalid_body' ELSE 'accepted' END, 'x', 1,"
            " '::1', n, CASE n % 9 WHEN 0 THEN 'no_change' END, CASE n % 9 WHEN 0 THEN 'A-1' END"
            " FROM generate_series(1, :count) AS n"
        ),
        {"id": sender.account_id, "count": count},
    )
    session.commit()


def asked(session, sender, **wanted):
    wanted = request_log_api.RequestFilter(**wanted)
    return request_log_api.index(session, Call(sender.account_id, None, wanted, {}, "")).body


@pytest.mark.parametrize(
    "wanted",
    [
        {"note": "no_change"},
        {"order_number": "A-1"},
        {"order_number": "A-1", "outcome": "accepted"},
        {"code": "invalid_body"},
        {"event_type": "order.cancelled"},
        {},
    ],
)
def test_a_page_looks_through_so_many_and_the_next_goes_on_there(api, sender, monkeypatch, wanted):
    with api.session() as session:
        write_log(session, sender, 200)
        whole = asked(session, sender, limit=200, **wanted)
        assert whole.next is None
        monkeypatch.setattr(listing, "MOST_SCANNED", 15)
        for limit in (1, 7, 200):
            pages, cursor = [], None
            while not pages or cursor:
                page = asked(session, sender, limit=limit, cursor=cursor, **wanted)
                pages.append(page.results)
                cursor = page.next
            assert list(chain(*pages)) == whole.results
            assert max(map(len, pages)) <= limit
        assert (len(pages) > 1) == bool(wanted)  # by time and outcome there is an index


def test_what_is_filtered_is_found_by_the_index_and_no_further_than_that(api, sender):
    statements = []
    note = lambda *given: statements.append(given[2:4])  # noqa: E731
    with api.session() as session:
        write_log(session, sender, 200)
        session.execute(text("ANALYZE webhook_requests"))
        event.listen(session.get_bind(), "before_cursor_execute", note)
        asked(session, sender, order_number="A-1", note="no_change")
        event.remove(session.get_bind(), "before_cursor_execute", note)
        as_sent, parameters = statements[0]
        for switch in ("enable_seqscan", "enable_sort", "enable_bitmapscan"):
            session.execute(text(f"SET LOCAL {switch} = off"))
        explained = session.connection().exec_driver_sql(f"EXPLAIN {as_sent}", parameters)
        plan = "\n".join(explained.scalars())
    assert "account_id_accepted_at_id_idx" in plan
    assert "Sort" not in plan
    assert plan.count("Limit") == 2


@pytest.mark.parametrize("cursor", ["x", "!!", "AAAA", "f" * 22, "-" * 90])
def test_a_cursor_that_is_none_of_ours(api, sender, cursor):
    answer = api.http.get("/webhooks/log/", headers=sender.bearer, params={"cursor": cursor})
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_query")


def test_another_accounts_log_is_not_seen(api, sender):
    sender.send()
    logged(api, sender, 1)
    assert log_of(api, approved(api)) == {"results": [], "next": None}
    assert api.http.get("/webhooks/log/").status_code == 401
