"""Lists of requests, orders and emails: each row on one page, the newest first."""

from contextlib import contextmanager

import pytest
from sqlalchemy import event, text

from services.ops.timelines import account, lists
from shared.db.models import EmailDelivery, KycApplication, WebhookRequest
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
    assert len(statements) == halves
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


@pytest.mark.parametrize("state", ["undeliverable", "suppressed", "unsubscribed"])
def test_those_that_were_not_sent_are_found_by_their_index(db, state):
    db.execute(text("SET LOCAL enable_seqscan = off"))
    plan = db.execute(
        text(
            f"EXPLAIN SELECT id FROM email_deliveries WHERE state = '{state}'"
            " ORDER BY at DESC, id DESC LIMIT 100"
        )
    ).scalars()
    assert "ix_email_deliveries_unsent_at_id" in "\n".join(plan)
