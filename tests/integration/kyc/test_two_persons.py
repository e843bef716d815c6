"""Where it takes two: a decision takes effect when two persons have made it, and nobody is two."""

import json
import threading
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import delete, func, select, update

from services.kyc.__main__ import wire
from shared.bus.consume.consumer import Consumer
from shared.bus.contract import topology
from shared.bus.contract.events import decode
from shared.db.models import KycApplication, KycDecision, OpsUser, OutboxMessage
from shared.ids import new_id
from shared.security.service_accounts import CONSOLE, login
from stack.servers.credentials import as_service
from tests.integration.arrange import (
    account,
    application,
    consuming,
    depth,
    headers,
    publish_raw,
    take,
    until,
)

QUEUE = topology.KYC_DECISIONS


@pytest.fixture
def settings(settings, configure):
    return configure(kyc_approvals_required="2")


@pytest.fixture(autouse=True)
def on_duty(settings, db):
    """The users of the console."""
    for name in ("ada", "bola", "eze", "fellow", "ola"):
        db.add(OpsUser(id=new_id(), name=name, rights=["kyc"], password_hash="-"))
    db.commit()


def on_console(amqp_url, person, body, **properties):
    """As the ops console publishes for who is signed in."""
    publish_raw(
        as_service(amqp_url, CONSOLE),
        "commands",
        "kyc.decide",
        json.dumps(body).encode(),
        user_id=login(CONSOLE),
        application_headers={"x-acting-user": person},
        **properties,
    )


def by_tool(amqp_url, body, **properties):
    """As a stock client publishes, signed in as `fellow`."""
    publish_raw(amqp_url, "commands", "kyc.decide", json.dumps(body).encode(), **properties)


def approve(business, **more):
    return {"decision": "approve", "email": business.email} | more


def revoke(business, **more):
    return {"decision": "revoke", "email": business.email} | more


def decide(settings):
    """Have everything decided that was published."""
    with consuming(settings, *wire(settings).subscriptions):
        until(lambda: depth(settings.amqp_url, QUEUE.name) == 0, "all is taken")


def statuses(db):
    db.rollback()
    query = select(KycApplication.status).order_by(KycApplication.submitted_at, KycApplication.id)
    return list(db.scalars(query))


def facts(db, type_=None):
    db.rollback()
    rows = db.execute(
        select(OutboxMessage.type, OutboxMessage.body).order_by(OutboxMessage.sequence)
    )
    found = [decode(row.type, row.body) for row in rows]
    return [fact for fact in found if type_ is None or type_ == fact.TYPE]


def recorded(db):
    return [(f.by, f.decision, f.counted) for f in facts(db, "ops.kyc_decision_recorded")]


def died(amqp_url):
    reasons = []
    while letter := take(amqp_url, QUEUE.dead):
        reasons.append(headers(letter)["x-reason"])
    return reasons


def test_the_second_person_decides(settings, db, amqp_url):
    business = account(db, status="pending")
    on_console(amqp_url, "ada", approve(business))
    decide(settings)
    assert statuses(db) == ["pending"]
    assert [fact.TYPE for fact in facts(db)] == ["ops.kyc_decision_recorded"]
    on_console(amqp_url, "ola", approve(business))
    decide(settings)
    assert statuses(db) == ["approved"]
    (told,) = facts(db, "kyc.approved")
    ada, ola = f"ada ({login(CONSOLE)})", f"ola ({login(CONSOLE)})"
    assert told.decided_by == f"{ada}, {ola}"
    assert recorded(db) == [(ada, "approve", (ada,)), (ola, "approve", (ada, ola))]


def test_two_who_give_the_same_decision_the_same_id_are_two(settings, db, amqp_url):
    business = account(db, status="pending")
    for person in ("ada", "ola"):
        on_console(amqp_url, person, approve(business), message_id="1")
        decide(settings)
    assert statuses(db) == ["approved"]


def test_who_gives_a_decision_under_the_id_of_anothers_is_told_so(settings, db, amqp_url):
    """A UUID is taken at its word, so what it names is one person's; the same from them is one."""
    business = account(db, status="pending")
    once = str(new_id())
    for person in ("ada", "Ada", "ola"):
        on_console(amqp_url, person, approve(business), message_id=once)
        decide(settings)
    by_tool(amqp_url, approve(business), message_id=once, user_id="fellow")
    decide(settings)
    assert statuses(db) == ["pending"]
    reasons = died(amqp_url)
    assert len(reasons) == 2
    assert all("another" in why and "message_id" in why for why in reasons)
    on_console(amqp_url, "ola", approve(business), message_id=str(new_id()))
    decide(settings)
    assert statuses(db) == ["approved"]


def test_a_revocation_takes_two_and_a_rejection_one(settings, db, amqp_url):
    approved, pending = account(db, status="approved"), account(db, status="pending")
    on_console(amqp_url, "ada", revoke(approved, reason="Fraud report 77."))
    reject = {"decision": "reject", "email": pending.email, "reason": "Not in the register."}
    on_console(amqp_url, "ada", reject)
    decide(settings)
    assert statuses(db) == ["approved", "rejected"]
    by_tool(amqp_url, revoke(approved), user_id="fellow")
    decide(settings)
    assert statuses(db) == ["revoked", "rejected"]
    (told,) = facts(db, "kyc.revoked")
    assert told.reason == "Fraud report 77."


def test_who_was_removed_from_the_console_counts_no_more(settings, db, amqp_url):
    """Nothing of it has taken effect; who has a user of the broker is none of the console's."""
    business = account(db, status="pending")
    on_console(amqp_url, "ada", approve(business))
    decide(settings)
    db.execute(delete(OpsUser).where(OpsUser.name == "ada"))
    db.commit()
    on_console(amqp_url, "ola", approve(business))
    decide(settings)
    assert statuses(db) == ["pending"]
    by_tool(amqp_url, approve(business), user_id="fellow")
    decide(settings)
    assert statuses(db) == ["approved"]
    ola = f"ola ({login(CONSOLE)})"
    assert [counted for *_, counted in recorded(db)][1:] == [(ola,), (ola, "fellow")]


SPELLINGS = ["ada", "ADA", " Ada ", "\uff41\uff44\uff41", "a\u0064a"]


def test_nobody_counts_twice_however_they_are_written(settings, db, amqp_url):
    business = account(db, status="pending")
    for spelling in SPELLINGS:
        on_console(amqp_url, spelling, approve(business), message_id=f"by {spelling}")
    on_console(amqp_url, "ada", approve(business))
    decide(settings)
    assert statuses(db) == ["pending"]
    assert len(recorded(db)) == 1


def test_nobody_counts_twice_by_console_and_by_a_user_of_the_broker(settings, db, amqp_url):
    business = account(db, status="pending")
    on_console(amqp_url, "Fellow", approve(business))
    by_tool(amqp_url, approve(business), user_id="fellow")
    decide(settings)
    assert statuses(db) == ["pending"]
    assert len(recorded(db)) == 1


@pytest.mark.parametrize("properties", [{}, {"message_id": "desk-42"}], ids=["no id", "an id"])
def test_nobody_counts_twice_by_a_redelivery(settings, db, amqp_url, properties):
    business = account(db, status="pending")
    on_console(amqp_url, "ada", approve(business), **properties)
    stopping = threading.Event()
    (subscription,) = wire(settings).subscriptions
    consumer = Consumer(settings.amqp_url, settings.amqp_heartbeat, subscription, stopping)
    handle = consumer.handle

    def committed(batch):
        handle(batch)
        stopping.set()
        raise ConnectionError("the connection dies between the commit and the acknowledgement")

    consumer.handle = committed
    consumer.run()
    decide(settings)
    assert statuses(db) == ["pending"]
    assert len(recorded(db)) == 1
    assert depth(amqp_url, QUEUE.dead) == 0


@pytest.mark.parametrize(
    ("user", "header"),
    [
        (None, None),
        (None, "ada"),
        ("operator", "ada"),
        ("operator", None),
        ("ops", "ada"),
        ("ops", None),
        (CONSOLE, None),
        (CONSOLE, "fellow_console"),
    ],
)
def test_who_is_no_person_does_not_count(settings, db, amqp_url, user, header):
    business = account(db, status="pending")
    properties = {"user_id": login(user)} if user else {}
    if header:
        properties["application_headers"] = {"x-acting-user": header, "x-user-id": header}
    url = as_service(amqp_url, user) if user else amqp_url
    for number in range(2):
        by_tool(url, approve(business), message_id=str(number), **properties)
    decide(settings)
    assert statuses(db) == ["pending"]
    assert facts(db) == []
    reasons = died(amqp_url)
    assert len(reasons) == 2
    assert all("it takes 2 operators, each by name" in reason for reason in reasons)


def test_a_decision_that_has_ended_does_not_count_and_may_be_made_again(settings, db, amqp_url):
    business = account(db, status="pending")
    on_console(amqp_url, "ada", approve(business))
    decide(settings)
    made = db.scalars(select(KycDecision)).one()
    assert made.expires_at - made.decided_at == timedelta(days=settings.kyc_approval_days)
    db.execute(update(KycDecision).values(expires_at=func.now()))
    db.commit()
    on_console(amqp_url, "ola", approve(business))
    decide(settings)
    assert statuses(db) == ["pending"]
    on_console(amqp_url, "ada", approve(business))
    decide(settings)
    assert statuses(db) == ["approved"]


def test_a_replay_of_one_that_has_ended_does_not_begin_it_anew(settings, db, amqp_url):
    business = account(db, status="pending")
    on_console(amqp_url, "ada", approve(business), message_id="desk-42")
    decide(settings)
    db.execute(update(KycDecision).values(expires_at=func.now()))
    db.commit()
    on_console(amqp_url, "ola", approve(business))
    decide(settings)
    publish_raw(
        as_service(amqp_url, CONSOLE),
        "",
        QUEUE.name,
        json.dumps(approve(business)).encode(),
        message_id="desk-42",
        user_id=login(CONSOLE),
        application_headers={
            "x-replay": "again",
            "x-user-id": login(CONSOLE),
            "x-acting-user": "ada",
        },
    )
    decide(settings)
    assert statuses(db) == ["pending"]
    (ada,) = db.scalars(select(KycDecision).where(KycDecision.person == "ada"))
    assert ada.expires_at < datetime.now(UTC)


def test_a_decision_is_about_one_application(settings, db, amqp_url):
    """Approved by one, rejected by another, and submitted again: the approval is not for that."""
    business = account(db, status="pending")
    on_console(amqp_url, "ada", approve(business))
    reject = {"decision": "reject", "email": business.email, "reason": "Not in the register."}
    on_console(amqp_url, "ola", reject)
    decide(settings)
    before = db.scalars(select(KycApplication)).one()
    db.add(application(business))
    db.commit()
    on_console(amqp_url, "eze", approve(business))
    on_console(amqp_url, "ola", approve(business, application_id=str(before.id)))
    decide(settings)
    assert statuses(db) == ["rejected", "pending"]
    (reason,) = died(amqp_url)
    assert "another application since" in reason
    on_console(amqp_url, "ola", approve(business))
    decide(settings)
    assert statuses(db) == ["rejected", "approved"]


def test_one_may_take_back_what_one_decided_and_not_what_others_did(settings, db, amqp_url):
    business = account(db, status="approved")
    on_console(amqp_url, "ada", revoke(business))
    on_console(amqp_url, "ola", approve(business))
    decide(settings)
    assert len(recorded(db)) == 1
    on_console(amqp_url, "ada", approve(business))
    on_console(amqp_url, "ola", revoke(business))
    decide(settings)
    assert statuses(db) == ["approved"]
    on_console(amqp_url, "ada", revoke(business))
    decide(settings)
    assert statuses(db) == ["revoked"]
    assert [(decision, len(counted)) for _, decision, counted in recorded(db)] == [
        ("revoke", 1),
        ("approve", 0),
        ("revoke", 1),
        ("revoke", 2),
    ]


def test_two_at_once_with_two_processes(settings, db, amqp_url):
    businesses = [account(db, status="pending") for _ in range(20)]
    for business in businesses:
        for person in ("ada", "ola", "ada", "ola"):
            on_console(amqp_url, person, approve(business))
    first, second = wire(settings).subscriptions, wire(settings).subscriptions
    with consuming(settings, *first), consuming(settings, *second):
        until(lambda: depth(amqp_url, QUEUE.name) == 0, "all is taken")
    assert statuses(db) == ["approved"] * 20
    assert len(facts(db, "kyc.approved")) == 20
    assert len(recorded(db)) == 40
    assert depth(amqp_url, QUEUE.dead) == 0


def test_with_one_nothing_is_recorded(configure, db, amqp_url):
    settings = configure(kyc_approvals_required="1")
    business = account(db, status="pending")
    by_tool(amqp_url, approve(business))
    decide(settings)
    assert statuses(db) == ["approved"]
    assert [fact.TYPE for fact in facts(db)] == ["kyc.approved"]
    assert db.scalars(select(KycDecision)).all() == []


def test_when_fewer_are_needed_the_next_decision_counts_those_before(
    settings, db, amqp_url, configure
):
    settings = configure(kyc_approvals_required="3")
    business = account(db, status="pending")
    for person in ("ada", "ola"):
        on_console(amqp_url, person, approve(business))
    decide(settings)
    assert statuses(db) == ["pending"]
    settings = configure(kyc_approvals_required="2")
    on_console(amqp_url, "ada", approve(business))
    decide(settings)
    assert statuses(db) == ["approved"]
