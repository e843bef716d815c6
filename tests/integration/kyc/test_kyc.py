"""KYC: the application over HTTP, the decision over the bus."""

import json
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
from amqp.exceptions import AccessRefused
from kombu import Connection
from sqlalchemy import select, text, update

from services.kyc.__main__ import wire
from services.kyc.states import NotPossible, after
from services.ops.audit.actions import Actor
from services.ops.commands import kyc_applications, kyc_notes
from shared.bus.consume import inbox
from shared.bus.consume.consumer import Consumer
from shared.bus.contract import topology
from shared.bus.contract.events import decode
from shared.db.models import InboxEntry, KycApplication, OutboxMessage, kyc_state
from shared.db.session import transaction
from shared.ids import new_id
from shared.security.service_accounts import login
from stack.folders import ROOT
from stack.servers.credentials import as_service
from tests.integration.arrange import (
    PATIENCE,
    access_token,
    account,
    ago,
    application,
    consuming,
    depth,
    headers,
    publish_raw,
    take,
    until,
)
from tests.zygote.forks import spawn

QUEUE = topology.KYC_DECISIONS
FACTS = {
    "business_registration_number": "RC-1001",
    "business_address": "1 Broad St",
    "contact_person_details": "Ada Eze, +234",
}


def as_(account_):
    return {"Authorization": f"Bearer {access_token(account_.id)}"}


def signed_in(api):
    with api.session() as session:
        return as_(account(session))


def test_submit_and_see(api):
    me = signed_in(api)
    assert api.http.get("/kyc/", headers=me).json()["code"] == "kyc_not_found"
    answer = api.http.post("/kyc/", json=FACTS, headers=me)
    assert answer.status_code == 201
    assert answer.json()["status"] == "pending"
    assert api.http.get("/kyc/", headers=me).json() == answer.json()
    assert api.http.post("/kyc/", json=FACTS, headers=me).json()["code"] == "kyc_already_pending"


def test_the_last_application_is_the_newest_whatever_a_clock_says(api):
    """A standby whose clock is behind took over since the one before was submitted."""
    me = signed_in(api)
    before = api.http.post("/kyc/", json=FACTS, headers=me).json()
    with api.session() as session:
        at = "submitted_at = now() + interval '3 minutes'"
        changes = f"UPDATE kyc_applications SET status = 'rejected', {at} WHERE id = :id"
        session.execute(text(changes), {"id": before["id"]})
        session.commit()
    again = api.http.post("/kyc/", json=FACTS, headers=me)
    assert again.status_code == 201
    assert api.http.get("/kyc/", headers=me).json() == again.json()
    assert again.json()["id"] != before["id"]


def test_contact_details_may_be_structured(api):
    me = signed_in(api)
    contact = {"name": "Ada", "phones": ["+234"]}
    answer = api.http.post("/kyc/", json=FACTS | {"contact_person_details": contact}, headers=me)
    assert answer.status_code == 201
    assert answer.json()["contact_person_details"] == contact


@pytest.mark.parametrize(
    "changes",
    [
        {"business_registration_number": " "},
        {"business_registration_number": 7},
        {"business_address": ""},
        {"contact_person_details": {}},
        {"contact_person_details": {"name": "nul\x00"}},
        {"contact_person_details": []},
    ],
)
def test_a_bad_application_is_refused(api, changes):
    answer = api.http.post("/kyc/", json=FACTS | changes, headers=signed_in(api))
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_body")


def test_one_of_many_submissions_at_once_wins(api):
    me = signed_in(api)
    with ThreadPoolExecutor(8) as threads:
        answers = list(
            threads.map(lambda _: api.http.post("/kyc/", json=FACTS, headers=me), range(8))
        )
    assert sorted(a.status_code for a in answers) == [201, *[400] * 7]


def test_approved_is_not_submitted_again_and_rejected_is(api):
    with api.session() as session:
        approved, rejected = (
            account(session, status="approved"),
            account(session, status="rejected"),
        )
    answer = api.http.post("/kyc/", json=FACTS, headers=as_(approved))
    assert answer.json()["code"] == "kyc_already_approved"
    assert api.http.post("/kyc/", json=FACTS, headers=as_(rejected)).status_code == 201


def send(amqp_url, body, **properties):
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    publish_raw(amqp_url, "commands", "kyc.decide", raw, **properties)


def status_of(engine, account_):
    with engine.connect() as connection:
        query = select(KycApplication.status).where(KycApplication.account_id == account_.id)
        return connection.execute(query).scalar()


def facts(engine):
    with engine.connect() as connection:
        rows = connection.execute(
            select(OutboxMessage.type, OutboxMessage.body).order_by(OutboxMessage.sequence)
        )
        return [decode(type_, body) for type_, body in rows]


def decider(settings):
    """A process of services.kyc."""
    environment = {"AMQP_URL": settings.amqp_url, "DATABASE_URL": settings.database_url}
    return spawn(
        (sys.executable, "-m", "services.kyc"),
        environment=os.environ | environment,
        log=Path(os.devnull),
        directory=ROOT,
    )


def deciding(settings):
    return consuming(settings, *wire(settings).subscriptions)


@pytest.mark.parametrize(
    "shape",
    [
        lambda a, n: {"decision": "approve", "account_id": str(a.id)},
        lambda a, n: {"decision": "APPROVED", "email": a.email.upper()},
        lambda a, n: {"action": "approve", "registration_number": n},
        lambda a, n: {"status": "approved", "business_registration_number": n, "email": a.email},
        lambda a, n: {
            "type": "kyc.decide",
            "data": {"decision": "approve", "user_id": str(a.id)},
        },
        lambda a, n: {
            "specversion": "1.0",
            "id": "42",
            "source": "desk",
            "type": "kyc.decide",
            "data": {"decision": "approve", "account_id": str(a.id)},
        },
    ],
    ids=["id", "email", "number", "two ids", "envelope", "cloud event"],
)
def test_a_decision_in_any_shape(settings, db, engine, shape, amqp_url):
    business = account(db, status="pending", number="RC-77")
    account(db, status="pending", number="RC-78")
    send(amqp_url, shape(business, "RC-77"))
    with deciding(settings):
        until(lambda: status_of(engine, business) == "approved", "approved")
    (fact,) = facts(engine)
    assert (fact.TYPE, fact.account_id) == ("kyc.approved", business.id)


def test_who_decided_is_who_the_broker_says(settings, db, engine, amqp_url):
    business = account(db, status="pending")
    body = {"decision": "reject", "email": business.email, "reason": "No such number."}
    send(amqp_url, body, user_id="fellow")
    with deciding(settings):
        until(lambda: status_of(engine, business) == "rejected", "rejected")
    (fact,) = facts(engine)
    assert (fact.decided_by, fact.reason) == ("fellow", "No such number.")


def test_a_forged_name_header_is_not_believed(settings, db, engine, amqp_url):
    business = account(db, status="pending")
    body = {"decision": "approve", "email": business.email}
    send(amqp_url, body, application_headers={"x-user-id": "the boss"})
    with deciding(settings):
        until(lambda: status_of(engine, business) == "approved", "approved")
    assert facts(engine)[0].decided_by == "an unnamed operator"


@pytest.mark.parametrize(
    ("user", "name"),
    [
        ("console", "ada (fellow_console)"),
        ("ops", "fellow_ops"),
        ("operator", "fellow_operator"),
        (None, "fellow"),
    ],
)
def test_the_person_is_believed_of_the_console_alone(settings, db, engine, amqp_url, user, name):
    business = account(db, status="pending")
    body = json.dumps({"decision": "approve", "email": business.email}).encode()
    publish_raw(
        as_service(amqp_url, user) if user else amqp_url,
        "commands",
        "kyc.decide",
        body,
        user_id=login(user) if user else "fellow",
        application_headers={"x-acting-user": "ada"},
    )
    with deciding(settings):
        until(lambda: status_of(engine, business) == "approved", "approved")
    assert facts(engine)[0].decided_by == name


@pytest.mark.parametrize(
    ("user", "named", "header", "taken"),
    [
        (None, False, None, False),
        (None, False, "ada", False),
        ("ops", True, "ada", False),
        ("console", True, None, False),
        ("console", True, "ada", True),
        ("operator", True, None, False),
        ("operator", True, "ada", False),
        (None, True, None, True),
    ],
)
def test_what_nobody_put_a_name_to_is_refused_where_it_is_set_so(
    settings, configure, db, engine, amqp_url, user, named, header, taken
):
    """The operators' shared user is nobody's name: whoever has its password would approve."""
    settings = configure(kyc_unnamed_decisions="refuse")
    business = account(db, status="pending")
    url = as_service(amqp_url, user) if user else amqp_url
    properties = {"user_id": login(user) if user else "fellow"} if named else {}
    forged = {"x-acting-user": header, "x-user-id": header} if header else {}
    body = {"decision": "approve", "email": business.email}
    send(url, body, application_headers=forged, **properties)
    with deciding(settings):
        until(lambda: depth(amqp_url, QUEUE.name) == 0, "taken")
    assert status_of(engine, business) == ("approved" if taken else "pending")
    if not taken:
        assert "it has no operator's name" in headers(take(amqp_url, QUEUE.dead))["x-reason"]
    assert depth(amqp_url, QUEUE.dead) == 0


@pytest.mark.parametrize("copies", ["CC", "BCC"])
@pytest.mark.parametrize(
    ("user", "exchange", "key"),
    [
        ("ingress", "commands", "secret.rotate"),
        ("notifier", "retry.5s", "notifier.urgent"),
        ("kyc", "dead", "kyc.decisions"),
        ("relay", "events", "kyc.approved"),
    ],
)
def test_no_service_decides_by_a_copy(settings, db, engine, amqp_url, copies, user, exchange, key):
    """A broker before pull request 12553 lets it into the queue; a later one refuses it."""
    business = account(db, status="pending")
    body = json.dumps({"decision": "approve", "email": business.email}).encode()
    everywhere = {copies: ["kyc.decide", QUEUE.name], "x-user-id": "ada", "x-acting-user": "ada"}
    with suppress(AccessRefused):
        publish_raw(as_service(amqp_url, user), exchange, key, body, application_headers=everywhere)
    with deciding(settings):
        until(lambda: depth(amqp_url, "retry.5s") == 0, "back from the ladder")
    assert status_of(engine, business) == "pending"
    assert facts(engine) == []


def test_the_same_decision_twice_changes_nothing(settings, db, engine, amqp_url):
    business = account(db, status="pending")
    for _ in range(5):
        send(amqp_url, {"decision": "approve", "email": business.email})
    with deciding(settings), deciding(settings):
        until(lambda: status_of(engine, business) == "approved", "approved")
    assert len(facts(engine)) == 1
    assert depth(amqp_url, QUEUE.dead) == 0


def answered(db):
    db.rollback()
    query = select(KycApplication.status).order_by(KycApplication.submitted_at, KycApplication.id)
    return db.scalars(query).all()


def apply_again(db, business):
    db.add(application(business))
    db.commit()


def die_before_the_acknowledgement(settings, meanwhile):
    """A consumer that commits, and loses its connection before it can say so."""
    stopping = threading.Event()
    (subscription,) = wire(settings).subscriptions
    consumer = Consumer(settings.amqp_url, settings.amqp_heartbeat, subscription, stopping)
    handle = consumer.handle

    def committed(batch):
        handle(batch)
        meanwhile()
        stopping.set()
        raise ConnectionError("the connection dies between the commit and the acknowledgement")

    consumer.handle = committed
    consumer.run()


@pytest.mark.parametrize("properties", [{}, {"message_id": "desk-42"}], ids=["no id", "an id"])
def test_a_decision_that_comes_again_after_its_commit_takes_effect_once(
    settings, db, engine, amqp_url, properties
):
    """The business has sent another application in between, which nobody has decided on."""
    business = account(db, status="pending")
    body = {"decision": "reject", "email": business.email, "reason": "Not in the register."}
    send(amqp_url, body, **properties)
    die_before_the_acknowledgement(settings, lambda: apply_again(db, business))
    with deciding(settings):
        until(lambda: depth(amqp_url, QUEUE.name) == 0, "taken again")
    assert answered(db) == ["rejected", "pending"]
    assert len(facts(engine)) == 1
    if not properties:
        # Nobody can tell whether the new application was meant, so a person is asked.
        assert "send it again with a message_id" in headers(take(amqp_url, QUEUE.dead))["x-reason"]
    assert depth(amqp_url, QUEUE.dead) == 0


@pytest.mark.parametrize(
    "given", ["1", "00000000-0000-7000-8000-000000000001"], ids=["no UUID", "a UUID of long ago"]
)
def test_two_decisions_that_are_given_one_id_by_hand_are_both_carried_out_and_told(
    settings, db, engine, amqp_url, given
):
    """As a desk does that copies a message; its UUID is taken for known until it is forgotten."""
    businesses = [account(db, status="pending", number=f"RC-{n}") for n in range(2)]
    for business in businesses:
        body = {"decision": "approve", "email": business.email}
        for _ in range(2):
            send(amqp_url, body, message_id=given)
        with deciding(settings):
            until(lambda: depth(amqp_url, QUEUE.name) == 0, "taken")
        if given != "1":
            db.execute(update(InboxEntry).values(handled_at=ago(days=inbox.KEEP_DAYS + 1)))
            db.commit()
            with transaction() as session:
                inbox.claim(session, "services.kyc", [new_id()])
                inbox.prune(session, "services.kyc")
    told = [(fact.TYPE, fact.account_id) for fact in facts(engine)]
    assert told == [("kyc.approved", business.id) for business in businesses]
    ids = db.scalars(select(OutboxMessage.message_id)).all()
    assert len(set(ids)) == len(businesses)


def test_what_somebody_else_has_decided_since_it_was_looked_at_is_not_decided_over(
    settings, db, engine, amqp_url
):
    """Two persons look at one application: bob has asked, and ada has not seen the question."""
    business = account(db, status="pending")
    body = {"email": business.email, "reason": "Which street?"}
    send(amqp_url, body | {"decision": "ask", "looked_at": "pending"}, user_id="fellow")
    send(amqp_url, body | {"decision": "approve", "looked_at": "pending", "reason": ""})
    with deciding(settings):
        until(lambda: depth(amqp_url, QUEUE.dead) == 1, "refused")
    assert status_of(engine, business) == "incomplete"
    reason = headers(take(amqp_url, QUEUE.dead))["x-reason"]
    assert "looked at as pending and is incomplete, decided by fellow meanwhile" in reason
    stands = db.scalar(select(KycApplication).where(KycApplication.account_id == business.id))
    now = kyc_state(stands.status, stands.decided_at)
    send(amqp_url, {"email": business.email, "decision": "approve", "looked_at": now})
    with deciding(settings):
        until(lambda: status_of(engine, business) == "approved", "approved")


def test_a_decision_without_an_id_that_comes_again_and_changes_nothing_is_done(
    settings, db, engine, amqp_url
):
    business = account(db, status="pending")
    send(amqp_url, {"decision": "approve", "email": business.email})
    die_before_the_acknowledgement(settings, lambda: None)
    with deciding(settings):
        until(lambda: depth(amqp_url, QUEUE.name) == 0, "taken again")
    assert (len(facts(engine)), depth(amqp_url, QUEUE.dead)) == (1, 0)


def test_a_decision_without_an_id_that_was_never_handled_counts_when_it_comes_again(
    settings, db, engine, amqp_url
):
    """Handed out before, as to somebody who looked at the queue, and the same as one long done."""
    business = account(db, status="pending")
    reject = {"decision": "reject", "email": business.email, "reason": "Not in the register."}
    other = account(db, status="pending")
    with deciding(settings):
        send(amqp_url, reject)
        until(lambda: answered(db).count("rejected") == 1, "rejected")
        send(amqp_url, {"decision": "approve", "email": other.email})
        until(lambda: "approved" in answered(db), "another decision")
    apply_again(db, business)
    send(amqp_url, reject)
    with Connection(amqp_url) as connection:
        looked = until(lambda: connection.default_channel.basic_get(QUEUE.name), "looked at")
        connection.default_channel.basic_reject(looked.delivery_tag, requeue=True)
    with deciding(settings):
        until(lambda: answered(db).count("rejected") == 2, "rejected again")
    assert depth(amqp_url, QUEUE.dead) == 0


def test_equal_decisions_without_ids_all_count(settings, db, engine, amqp_url):
    """Approved, revoked, and approved again, as an operator types it."""
    business = account(db, status="pending")
    approve = {"decision": "approve", "email": business.email}
    with deciding(settings):
        for _ in range(2):
            send(amqp_url, approve)
            send(amqp_url, {"decision": "revoke", "email": business.email})
            until(lambda: answered(db)[-1] == "revoked", "approved and revoked")
            apply_again(db, business)
        send(amqp_url, approve)
        until(lambda: answered(db)[-1] == "approved", "approved")
    assert answered(db) == ["revoked", "revoked", "approved"]
    kinds = [fact.TYPE for fact in facts(engine)]
    assert kinds == ["kyc.approved", "kyc.revoked"] * 2 + ["kyc.approved"]
    assert depth(amqp_url, QUEUE.dead) == 0


@pytest.mark.timeout(600)
def test_decisions_of_one_business_take_effect_in_their_order(settings, db, engine, amqp_url):
    """Two processes, and pairs of decisions; the one that decides is killed again and again."""
    pairs = 60
    numbers = [f"RC-{n}" for n in range(pairs)]
    for number in numbers:
        account(db, status="pending", number=number)
    for number in numbers:
        for decision in ("approve", "revoke"):
            send(amqp_url, {"decision": decision, "registration_number": number})
    running = [decider(settings) for _ in range(2)]
    try:
        for done in range(10, pairs, 20):
            until(lambda done=done: answered(db).count("revoked") >= done, "under way")
            # Both, one after the other: one of them is the one that decides.
            for number in range(2):
                running[number].kill()
                running[number].wait()
                running[number] = decider(settings)
        until(lambda: depth(amqp_url, QUEUE.name) == 0, "all decided")
        until(lambda: answered(db) == ["revoked"] * pairs, "all revoked")
    finally:
        for process in running:
            process.terminate()
        for process in running:
            process.wait(PATIENCE)
    kinds = [fact.TYPE for fact in facts(engine)]
    assert (kinds.count("kyc.approved"), kinds.count("kyc.revoked")) == (pairs, pairs)
    assert depth(amqp_url, QUEUE.dead) == 0


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"not json", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"", "not JSON"),
        (b"[1]", "not a JSON object"),
        ({"decision": "perhaps", "email": "x@y.example"}, "approve, reject, revoke or ask"),
        ({"email": "x@y.example"}, "approve, reject, revoke or ask"),
        ({"decision": "approve"}, "name the business"),
        ({"decision": "approve", "email": "nobody"}, "email"),
        ({"decision": "approve", "account_id": "7"}, "account_id"),
        ({"decision": "approve", "email": "stranger@kettle.example"}, "no business matches"),
        ({"decision": "reject", "email": "pending@kettle.example"}, "needs a 'reason'"),
        ({"decision": "revoke", "email": "pending@kettle.example"}, "reject it instead"),
        ({"decision": "approve", "registration_number": "RC-TWICE"}, "several businesses"),
        ({"decision": "approve", "email": "fresh@kettle.example"}, "has not submitted"),
        ({"decision": "approve", "status": "rejected", "email": "a@b.example"}, "two different"),
        ({"type": "order.created", "data": {"decision": "approve"}}, "envelope"),
        (
            {
                "decision": "approve",
                "email": "pending@kettle.example",
                "registration_number": "RC-OTHER",
            },
            "not on the business's newest application",
        ),
    ],
)
def test_nonsense_is_dead_with_its_reason(settings, db, engine, body, reason, amqp_url):
    account(db, status="pending", email="pending@kettle.example")
    account(db, email="fresh@kettle.example")
    account(db, status="pending", number="RC-TWICE")
    account(db, status="pending", number="RC-TWICE")
    send(amqp_url, body)
    with deciding(settings):
        until(lambda: depth(amqp_url, QUEUE.dead) == 1, "dead letter")
    dead = take(amqp_url, QUEUE.dead)
    assert reason in headers(dead)["x-reason"]
    assert facts(engine) == []


@pytest.mark.parametrize(
    ("decision", "status", "new"),
    [
        ("approve", "pending", "approved"),
        ("reject", "pending", "rejected"),
        ("revoke", "approved", "revoked"),
        ("approve", "approved", "approved"),
        ("reject", "rejected", "rejected"),
        ("revoke", "revoked", "revoked"),
    ],
)
def test_the_table_of_states(decision, status, new):
    assert after(decision, status) == new


@pytest.mark.parametrize(
    ("decision", "status"),
    [
        ("approve", "rejected"),
        ("approve", "revoked"),
        ("reject", "approved"),
        ("reject", "revoked"),
        ("revoke", "pending"),
        ("revoke", "rejected"),
    ],
)
def test_what_cannot_be_decided(decision, status):
    with pytest.raises(NotPossible):
        after(decision, status)


def test_a_business_that_is_asked_sees_the_question_and_sends_again(api):
    with api.session() as session:
        business = account(session)
    me, question = as_(business), "Which register is RC-1 in?\nSend its page."
    first = api.http.post("/kyc/", json=FACTS, headers=me).json()
    with api.session() as session, session.begin():
        row = session.get_one(KycApplication, first["id"])
        row.status, row.reason = "incomplete", question
    shown = api.http.get("/kyc/", headers=me).json()
    assert (shown["status"], shown["reason"], shown["id"]) == ("incomplete", question, first["id"])
    amended = FACTS | {"business_registration_number": "RC-1002"}
    again = api.http.post("/kyc/", json=amended, headers=me)
    assert (again.status_code, again.json()["status"]) == (201, "pending")
    assert again.json()["id"] != first["id"]
    assert api.http.post("/kyc/", json=amended, headers=me).json()["code"] == "kyc_already_pending"


def test_a_business_is_told_nothing_of_what_operators_note(api):
    with api.session() as session:
        business = account(session, status="pending")
        found = kyc_applications.newest(session, business.id)
        kyc_notes.add(session, Actor("ada", "192.0.2.7"), found, "Telephoned: not in the register.")
        session.commit()
    answer = api.http.get("/kyc/", headers=as_(business))
    assert answer.status_code == 200
    assert "note" not in answer.text
    assert "Telephoned" not in answer.text
