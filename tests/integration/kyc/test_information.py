"""More information needed: the business is asked, amends its application and sends it again."""

import pytest
from sqlalchemy import select, text
from sqlalchemy.orm import Session

from shared.bus.contract import topology
from shared.db.models import OpsUser, WebhookSecret
from shared.ids import new_id
from tests.integration.arrange import account, application, depth, headers, take, until
from tests.integration.kyc.test_kyc import (
    answered,
    apply_again,
    deciding,
    die_before_the_acknowledgement,
    facts,
    send,
    status_of,
)
from tests.integration.kyc.test_two_persons import approve as approval
from tests.integration.kyc.test_two_persons import decide, on_console

QUEUE = topology.KYC_DECISIONS
QUESTION = "Which register is RC-1 in?\nSend its page."


def ask(business, **more):
    return {"decision": "ask", "email": business.email, "reason": QUESTION} | more


def approve(business, **more):
    return {"decision": "approve", "email": business.email} | more


def kinds(engine):
    return [fact.TYPE for fact in facts(engine)]


@pytest.mark.parametrize(
    "words",
    [
        {"decision": "ask", "reason": QUESTION},
        {"decision": "more information needed", "question": QUESTION},
        {"status": "incomplete", "message": QUESTION},
    ],
)
def test_a_question_is_a_decision_and_gives_nothing(settings, db, engine, amqp_url, words):
    business = account(db, status="pending")
    send(amqp_url, words | {"email": business.email}, user_id="fellow")
    with deciding(settings):
        until(lambda: status_of(engine, business) == "incomplete", "asked")
    (fact,) = facts(engine)
    assert (fact.TYPE, fact.reason, fact.decided_by, fact.email) == (
        "kyc.information_requested", QUESTION, "fellow", business.email,
    )  # fmt: skip
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM webhook_secrets")).scalar() == 0


def test_a_question_without_words_is_none(settings, db, engine, amqp_url):
    business = account(db, status="pending")
    send(amqp_url, ask(business, reason=" "))
    with deciding(settings):
        until(lambda: depth(amqp_url, QUEUE.name) == 0, "taken")
    assert "a question needs a 'reason'" in headers(take(amqp_url, QUEUE.dead))["x-reason"]
    assert status_of(engine, business) == "pending"


@pytest.mark.parametrize("answers", [True, False], ids=["sent again", "told by telephone"])
def test_an_approval_afterwards_works(settings, db, engine, amqp_url, answers):
    business = account(db, status="pending")
    with deciding(settings):
        send(amqp_url, ask(business))
        until(lambda: status_of(engine, business) == "incomplete", "asked")
        if answers:
            apply_again(db, business)
        send(amqp_url, approve(business))
        until(lambda: answered(db)[-1] == "approved", "approved")
    assert answered(db) == (["incomplete", "approved"] if answers else ["approved"])
    assert kinds(engine) == ["kyc.information_requested", "kyc.approved"]
    assert depth(amqp_url, QUEUE.dead) == 0


def test_the_same_question_twice_asks_once(settings, db, engine, amqp_url):
    business = account(db, status="pending")
    for _ in range(5):
        send(amqp_url, ask(business))
    with deciding(settings), deciding(settings):
        until(lambda: depth(amqp_url, QUEUE.name) == 0, "taken")
        until(lambda: status_of(engine, business) == "incomplete", "asked")
    assert kinds(engine) == ["kyc.information_requested"]
    assert depth(amqp_url, QUEUE.dead) == 0


def test_another_question_is_asked_too(settings, db, engine, amqp_url):
    business = account(db, status="pending")
    for question in (QUESTION, "And who are you?", "And who are you?"):
        send(amqp_url, ask(business, reason=question))
    with deciding(settings):
        until(lambda: depth(amqp_url, QUEUE.name) == 0, "taken")
        until(lambda: len(facts(engine)) == 2, "asked twice")
    assert [fact.reason for fact in facts(engine)] == [QUESTION, "And who are you?"]
    assert depth(amqp_url, QUEUE.dead) == 0


@pytest.mark.parametrize("properties", [{}, {"message_id": "desk-42"}], ids=["no id", "an id"])
def test_a_question_that_comes_again_after_its_commit_is_not_asked_of_the_answer(
    settings, db, engine, amqp_url, properties
):
    business = account(db, status="pending")
    send(amqp_url, ask(business), **properties)
    die_before_the_acknowledgement(settings, lambda: apply_again(db, business))
    with deciding(settings):
        until(lambda: depth(amqp_url, QUEUE.name) == 0, "taken again")
    assert answered(db) == ["incomplete", "pending"]
    assert kinds(engine) == ["kyc.information_requested"]
    if not properties:
        assert "send it again with a message_id" in headers(take(amqp_url, QUEUE.dead))["x-reason"]
    assert depth(amqp_url, QUEUE.dead) == 0


@pytest.mark.parametrize("first", ["ask", "approve"])
def test_a_question_and_an_approval_at_once_take_effect_in_the_brokers_order(
    settings, db, engine, amqp_url, first
):
    """Two processes; whichever came first has its one effect, and the other what is left."""
    businesses = [account(db, status="pending") for _ in range(10)]
    makes = (ask, approve) if first == "ask" else (approve, ask)
    for business in businesses:
        for make in makes:
            send(amqp_url, make(business))
    with deciding(settings), deciding(settings):
        until(lambda: depth(amqp_url, QUEUE.name) == 0, "taken")
        until(lambda: answered(db) == ["approved"] * 10, "all approved")
        if first == "approve":
            until(lambda: depth(amqp_url, QUEUE.dead) == 10, "all refused")
    asked = 10 if first == "ask" else 0
    assert kinds(engine).count("kyc.information_requested") == asked
    assert kinds(engine).count("kyc.approved") == 10
    assert depth(amqp_url, QUEUE.dead) == 10 - asked
    if not asked:
        assert (
            "it is approved; revoke it instead" in headers(take(amqp_url, QUEUE.dead))["x-reason"]
        )


def test_an_approval_that_meets_the_answer_on_its_way_approves_neither(
    settings, db, engine, amqp_url
):
    """Its transaction is not over when the approval of what was asked about comes."""
    business = account(db, status="pending")
    with deciding(settings):
        send(amqp_url, ask(business))
        until(lambda: status_of(engine, business) == "incomplete", "asked")
        with Session(engine) as session:
            session.add(application(business))
            session.flush()
            send(amqp_url, approve(business))
            until(lambda: waits_for_a_lock(engine), "the approval waits for the answer")
            session.commit()
        until(lambda: depth(amqp_url, QUEUE.dead) == 1, "refused")
    reason = headers(take(amqp_url, QUEUE.dead))["x-reason"]
    assert "has sent another application since" in reason
    assert answered(db) == ["incomplete", "pending"]
    assert kinds(engine) == ["kyc.information_requested"]


def waits_for_a_lock(engine):
    with engine.connect() as connection:
        query = "SELECT count(*) FROM pg_locks WHERE NOT granted"
        return connection.execute(text(query)).scalar() > 0


def test_one_person_asks_where_an_approval_takes_two(settings, configure, db, engine, amqp_url):
    settings = configure(kyc_approvals_required="2")
    for name in ("ada", "bola"):
        db.add(OpsUser(id=new_id(), name=name, rights=["kyc"], password_hash="-"))
    business = account(db, status="pending")
    on_console(amqp_url, "ada", ask(business))
    decide(settings)
    assert answered(db) == ["incomplete"]
    on_console(amqp_url, "ada", approval(business))
    decide(settings)
    assert answered(db) == ["incomplete"]
    on_console(amqp_url, "bola", approval(business))
    decide(settings)
    assert answered(db) == ["approved"]
    assert db.scalars(select(WebhookSecret)).all() == []


def test_what_was_asked_of_an_account_that_closes_ends_with_it(db, engine):
    business = account(db, status="incomplete")
    with engine.begin() as connection:
        connection.execute(
            text("UPDATE accounts SET closed_at = now() WHERE id = :id"), {"id": business.id}
        )
    assert answered(db) == ["rejected"]
