"""Lists of requests, orders and emails: each row on one page, the newest first."""

from contextlib import contextmanager
from datetime import UTC, datetime

import pytest
from sqlalchemy import event, text

from services.notifier import api as suppression_api
from services.ops.commands import kyc_applications
from services.ops.commands.kyc_applications import Filter, Sort, Status
from services.ops.monitoring import customer_flow, order_flow
from services.ops.timelines import account, lists, search
from services.orders import api as orders_api
from shared.bus.contract.events import TrackingStatus
from shared.db.models import EmailDelivery, KycApplication, WebhookRequest
from shared.http import listing
from shared.http.route import Call
from shared.ids import new_id
from tests.integration.arrange import account as arranged
from tests.integration.arrange import ago, ahead, an_order


def pages(page, place):
    found, at = [], None
    while rows := page(at):
        found += rows
        at = place(rows[-1])
    return found


def an_old_order(account_id, minutes, status="PENDING"):
    accepted_at = ago(minutes=minutes)
    return an_order(account_id, tracking_status=status, status_at=ago(), accepted_at=accepted_at)


def test_orders_page_by_page(db):
    business, other = new_id(), new_id()
    # Several of a time.
    db.add_all([an_old_order(business, minutes // 3) for minutes in range(7)])
    db.add_all([an_old_order(business, 1, "DELIVERED"), an_old_order(other, 0)])
    db.commit()
    whole = lists.orders(db, business)
    assert len(whole) == 8
    assert [one.accepted_at for one in whole] == sorted(
        (one.accepted_at for one in whole), reverse=True
    )
    paged = pages(lambda after: lists.orders(db, business, after=after, limit=3), lambda o: o.id)
    assert paged == whole
    assert [one.tracking_status for one in lists.orders(db, business, status="DELIVERED")] == [
        "DELIVERED"
    ]


def a_request(account_id, seconds, code):
    return WebhookRequest(
        at=ago(seconds=seconds),
        account_id=account_id,
        accepted=code == "accepted",
        code=code,
        scheme="x-api-key",
        latency_us=900,
        client_address="203.0.113.7",
    )


def test_requests_page_by_page(db):
    business = new_id()
    db.execute(text("SELECT keep_webhook_request_partitions(7)"))
    codes = ["accepted", "invalid_signature", "accepted", "too_many_requests", "accepted"]
    db.add_all([a_request(business, number // 2, code) for number, code in enumerate(codes)])
    db.add(a_request(new_id(), 0, "accepted"))
    db.commit()

    def read(**wanted):
        return pages(
            lambda before: lists.requests(db, business, before=before, limit=2, **wanted),
            lambda request: (request.at, request.id),
        )

    whole = read()
    assert sorted(one.code for one in whole) == sorted(codes)
    assert [one.at for one in whole] == sorted((one.at for one in whole), reverse=True)
    assert [one.code for one in read(code="too_many_requests")] == ["too_many_requests"]
    assert len(read(is_accepted=True)) == 3
    assert {one.code for one in read(is_accepted=False)} == {*codes} - {"accepted"}


@contextmanager
def asked(db):
    """The statements that are asked."""
    found = []
    note = lambda *given: found.append(given[2])  # noqa: E731
    event.listen(db.get_bind(), "before_cursor_execute", note)
    try:
        yield found
    finally:
        event.remove(db.get_bind(), "before_cursor_execute", note)


@pytest.mark.parametrize(
    ("wanted", "halves"),
    [
        ({"code": "invalid_signature"}, 1),
        ({"code": "accepted"}, 1),
        ({"code": "accepted", "is_accepted": False}, 0),
        ({}, 2),
    ],
)
def test_a_code_is_looked_for_where_it_can_be(db, wanted, halves):
    """Not among all that was accepted, for an error."""
    business = new_id()
    db.execute(text("SELECT keep_webhook_request_partitions(7)"))
    db.add_all([a_request(business, 0, code) for code in ("accepted", "invalid_signature")])
    db.flush()
    with asked(db) as statements:
        found = lists.requests(db, business, **wanted)
    assert len([one for one in statements if "OFFSET" not in one]) == halves
    assert {one.code for one in found} == {
        code
        for code in ("accepted", "invalid_signature")
        if wanted.get("code", code) == code and wanted.get("is_accepted") is not False
    }


def test_businesses_in_a_list_are_one_statement(db):
    both = [arranged(db, status="pending"), arranged(db, company_name="Second", status=None)]
    again = KycApplication(
        account_id=both[0].id,
        business_registration_number="RC-2",
        business_address="Lagos",
        contact_person_details="{}",
        status="rejected",
        submitted_at=ahead(hours=1),
    )
    db.add(again)
    db.commit()
    with asked(db) as statements:
        found = account.lines(db, [both[1].id, new_id(), both[0].id])
    assert len(statements) == 1
    assert [one.account_id for one in found] == [both[1].id, both[0].id]
    assert [one.kyc_status for one in found] == ["none", "rejected"]
    trails = [account.account_trail(db, one.account_id) for one in found]
    assert [trail.kyc_status for trail in trails] == [one.kyc_status for one in found]


@pytest.mark.parametrize(
    ("state", "count"), [("", 6), ("undeliverable", 1), ("suppressed", 1), ("sent", 4)]
)
def test_emails_page_by_page(db, state, count):
    for number in range(6):
        db.add(
            EmailDelivery(
                fact_id=new_id(),
                subject_id=str(new_id()),
                recipient="zoe@shop.example",
                template="order_received",
                message_id="<x@order-fellow.example>",
                state={1: "undeliverable", 4: "suppressed"}.get(number, "sent"),
                at=ago(minutes=number // 2),
            )
        )
    db.commit()
    found = pages(lambda after: lists.emails(db, state=state, after=after, limit=1), lambda e: e.id)
    assert len(found) == len({one.id for one in found}) == count
    assert list(found) == list(lists.emails(db, state=state))


MANY = 20_000
LARGE = (
    "orders",
    "order_conflicts",
    "order_status_history",
    "email_deliveries",
    "suppressions",
    "accounts",
    "kyc_applications",
)


@pytest.fixture
def many(db):
    """A business with many of everything, beside many others; its id."""
    business = new_id()
    rows = f"FROM generate_series(1, {MANY}) AS n"
    # Sender, time and status of each: the newest are of the business, and the rare are old.
    whose = f"CASE WHEN n > {MANY // 2} THEN CAST(:business AS uuid) ELSE gen_random_uuid() END"
    when = f"now() - ({MANY} - n) * interval '1 minute'"
    status, template, state, cause = (
        f"CASE WHEN n % 5000 = 7 THEN '{rare}' ELSE '{common}' END"
        for rare, common in (
            ("CANCELLED", "DELIVERED"),
            ("test_order_received", "order_status"),
            ("suppressed", "sent"),
            ("refused", "unsubscribed"),
        )
    )
    for statement in (
        "INSERT INTO accounts (id, company_name, email, password_hash, email_verified_at)"
        f" SELECT gen_random_uuid(), 'Shop ' || md5(n::text), n || '@s.example', '', now() {rows}",
        "INSERT INTO kyc_applications (id, account_id, business_registration_number,"
        " business_address, contact_person_details, status, submitted_at, decided_at)"
        " SELECT gen_random_uuid(), id, 'RC-' || substr(email, 1, strpos(email, '@') - 1), '', '',"
        " (ARRAY['pending', 'approved', 'rejected', 'revoked', 'incomplete'])[1 + n % 5],"
        " now() - n * interval '1 minute', CASE WHEN n % 5 > 0 THEN now() END"
        " FROM (SELECT *, row_number() OVER () AS n FROM accounts) AS a",
        "INSERT INTO orders (id, account_id, customer_name, customer_email, customer_phone,"
        " item_summary, address, tracking_status, status_at, status_event_id, accepted_at)"
        f" SELECT gen_random_uuid(), {whose}, 'Zoe', n || '@shop.example', '', 'a kettle', '',"
        f" {status}, {when}, gen_random_uuid(), {when} {rows}",
        "INSERT INTO order_conflicts (event_id, order_id, account_id, event, at) SELECT"
        f" gen_random_uuid(), gen_random_uuid(), {whose}, jsonb_build_object('customer_details',"
        f" jsonb_build_object('email', n || '@shop.example')), {when} {rows}",
        "INSERT INTO order_status_history (event_id, order_id, tracking_status, at, applied)"
        f" SELECT gen_random_uuid(), gen_random_uuid(), 'PENDING', {when}, true {rows}",
        "INSERT INTO email_deliveries (id, fact_id, subject_id, recipient, template, message_id,"
        " state, at) SELECT gen_random_uuid(), gen_random_uuid(), n::text, n || '@shop.example',"
        f" {template}, '',"
        f" {state}, {when} {rows}",
        "INSERT INTO suppressions (id, account_id, cause, address_hash, key_id, address,"
        f" by_order_id) SELECT gen_random_uuid(), {whose},"
        f" {cause}, n::text::bytea, '', n || '@shop.example',"
        f" gen_random_uuid() {rows}",
    ):
        db.execute(text(statement), {"business": business} if ":business" in statement else {})
    db.commit()
    for table in LARGE:
        db.execute(text(f"ANALYZE {table}"))
    db.commit()
    return business


def api(handler, of, wanted):
    return lambda db: handler(db, Call(of, None, wanted, {}, ""))


def test_what_is_listed_is_read_and_little_else(db, many, monkeypatch):
    """No large table is read from end to end, for whatever is looked at."""
    looks = {
        "an order's id": lambda db: search.search(db, str(new_id())),
        "an address": lambda db: search.search(db, "7@shop.example"),
        "a number of a business": lambda db: search.search(db, "1001", account_id=many),
        "a part of a name": lambda db: account.find(db, "Shop a87ff679a2f3"),
        "a registration number": lambda db: account.find(db, "rc 7", by_name=False),
        "orders": lambda db: lists.orders(db, many, limit=10),
        "emails": lambda db: lists.emails(db, limit=10),
        "emails of a state": lambda db: lists.emails(db, state="suppressed", limit=10),
        "how long it takes": order_flow.latency,
        "tests": lambda db: others.of(db, order_flow.counters(db)),
        "orders by the API": api(orders_api.index, many, orders_api.Filter()),
        "refused addresses": api(
            suppression_api.index, many, suppression_api.SuppressionFilter(cause="refused")
        ),
        **{
            f"the KYC desk by {sort}": lambda db, sort=sort: kyc_applications.applications(
                db, Filter(Status.PENDING, sort=sort), limit=10
            )
            for sort in (Sort.OLDEST, Sort.NEWEST, Sort.DECIDED)
        },
    }
    statements = []
    note = lambda *given: statements.append(given[2:4])  # noqa: E731
    # One time, and few: as few as they are in a large house among all orders.
    monkeypatch.setattr(search, "SLICE", 5)
    monkeypatch.setattr(search, "SECONDS", -1.0)
    others, wrong = customer_flow.CustomerCounters(), {}
    others._businesses_read_at = datetime.now(UTC)  # at who the proof is, once a minute
    for what, look in looks.items():
        statements.clear()
        event.listen(db.get_bind(), "before_cursor_execute", note)
        look(db)
        event.remove(db.get_bind(), "before_cursor_execute", note)
        asked = [one for one in statements if one[0].lstrip().startswith(("SELECT", "WITH"))]
        assert asked, what
        # So few names are read sooner than looked for.
        db.execute(text(f"SET LOCAL enable_seqscan = {'off' if 'name' in what else 'on'}"))
        for statement, parameters in asked:
            plan = db.connection().exec_driver_sql(f"EXPLAIN {statement}", parameters)
            lines = plan.scalars().all()
            if any(f"Seq Scan on {table}" in line for table in LARGE for line in lines):
                wrong[what] = "\n".join([statement, *lines])
    assert not wrong, "\n\n".join(f"{what}: {plan}" for what, plan in wrong.items())


def test_an_order_whose_state_is_rare_is_looked_for_in_so_many(db, monkeypatch):
    business = new_id()
    found = [an_old_order(business, n, "DELIVERED" if n % 7 else "CANCELLED") for n in range(30)]
    db.add_all(found)
    db.commit()
    monkeypatch.setattr(listing, "MOST_SCANNED", 4)
    paged, page, looks = [], lists.orders(db, business, status="CANCELLED", limit=2), 1
    while page.end:
        paged += page
        page = lists.orders(db, business, status="CANCELLED", after=page.end[1], limit=2)
        looks += 1
    assert len(paged + page) == 5
    assert looks > 5
    wanted = orders_api.Filter(status=TrackingStatus.CANCELLED)
    body = orders_api.index(db, Call(business, None, wanted, {}, "")).body
    assert (len(body.results), body.next is not None) == (1, True)


@pytest.mark.parametrize("state", ["undeliverable", "suppressed", "unsubscribed"])
def test_those_that_were_not_sent_are_found_by_their_index(db, state):
    db.execute(text("SET LOCAL enable_seqscan = off"))
    plan = db.execute(
        text(
            f"EXPLAIN SELECT id FROM email_deliveries WHERE state = '{state}'"
            " ORDER BY at DESC, id DESC LIMIT 100"
        )
    ).scalars()
    assert "ix_email_deliveries_unsent_state_at_id" in "\n".join(plan)
