"""Who sends a dead command on needs the right to give it: it is carried out as a decision."""

import json
import re
import threading

import pytest
from sqlalchemy import text

from services.ops.console.app import PAGES
from services.ops.console.web.jobs import Job, Jobs, go_on
from services.ops.users import users
from services.ops.users.queue_rights import OF_QUEUES
from services.ops.users.rights import Right
from shared.bus.contract import topology
from shared.bus.contract.headers import ACTING_HEADER, USER_HEADER
from shared.db.session import transaction
from shared.ids import new_id
from shared.security.service_accounts import login
from stack.servers.credentials import as_service
from tests.integration.arrange import PATIENCE, account, depth, publish_raw, until
from tests.integration.of_a_file import amqp_url, database_url
from tests.integration.ops.console.pages.test_masked_pages import PASSWORD, form, signed_in
from tests.integration.ops.console.running import console, service

CHANGES = [
    page.path
    for page in PAGES
    if page.method == "POST" and page.path.startswith("/dead/{queue}/") and page.needs == "messages"
]

__all__ = ["amqp_url", "console", "database_url", "service"]


def letter(amqp_url, queue, type_, body, **headers):
    id_ = str(new_id())
    publish_raw(
        as_service(amqp_url, queue.partition(".")[0]),
        "dead",
        queue,
        json.dumps(body).encode(),
        message_id=id_,
        type=type_,
        delivery_mode=2,
        user_id=login(queue.partition(".")[0]),
        application_headers={"x-reason": "no business matches"} | headers,
    )
    until(lambda: depth(amqp_url, f"{queue}.dead"), "it lies there")
    return id_


@pytest.mark.parametrize("change", ["removed", "another role", "another of the name"])
def test_work_of_who_may_not_any_more_ends_between_two_steps(settings, change):
    with transaction() as session:
        users.put(session, "ada", "act", PASSWORD)
        ada = users.find(session, "ada")
    second = threading.Event()

    def work(job):
        for job.done in (1, 2):
            go_on(job, ada, [Right.MESSAGES])
            first.set()
            second.wait(PATIENCE)
        return "It is done."

    first = threading.Event()
    job = Jobs().start(Job("Discard", "ada", "/dead"), work)
    assert first.wait(PATIENCE)
    with transaction() as session:
        if change == "another role":
            users.put(session, "ada", "watch", None)
        else:
            users.remove(session, "ada")
        if change == "another of the name":
            users.put(session, "ada", "act", PASSWORD)
    second.set()
    assert job.ended.wait(PATIENCE)
    assert job.failed
    assert job.outcome == "Stopped after 2. ada may not go on with it any more."


def test_no_command_is_sent_on_edited_or_thrown_away_by_who_may_not_give_it(console, db, amqp_url):
    business = account(db, status="pending")
    body = {"account_id": str(business.id), "decision": "approve"}
    id_ = letter(amqp_url, "kyc.decisions", "kyc.decide", body)
    given = {"id": id_, "type": "kyc.decide", "body": json.dumps(body), "why": "x", "sure": "yes"}
    assert len(CHANGES) >= 4
    with signed_in(console, db, "messages") as client:
        for queue in topology.WORK_QUEUES:
            for path in CHANGES:
                to = path.replace("{queue}", queue.name)
                for form_ in (given, given | {"all": "yes"}, given | {"sure": ""}):
                    answer = client.post(to, data=form(client) | form_)
                    is_refused = answer.status_code == 403
                    assert is_refused is (queue.name in OF_QUEUES), (to, answer.text)
        for shown in ("/dead/kyc.decisions", f"/dead/kyc.decisions/letter?id={id_}"):
            page = client.get(shown).text
            forms = set(re.findall(r'action="/dead/kyc.decisions/([a-z]+)', page))
            assert forms <= {"rehearse"}  # which changes nothing
            assert "This needs the right kyc" in page
        tried = client.post("/dead/kyc.decisions/rehearse", data=form(client) | {"id": id_})
        assert tried.status_code == 200
        assert "Replay like this" not in tried.text
        assert 'action="/dead/notifier.urgent/retry"' in client.get("/dead/notifier.urgent").text
    assert depth(amqp_url, "kyc.decisions.dead") == 1
    assert depth(amqp_url, "kyc.decisions") == 0
    with signed_in(console, db, "messages,kyc") as client:
        answer = client.post(
            "/dead/kyc.decisions/replay", data=form(client) | {"id": id_, "sure": "yes"}
        )
        assert answer.status_code == 303
    until(lambda: depth(amqp_url, "kyc.decisions"), "it is sent on")


@pytest.mark.parametrize(
    ("exchange", "key", "is_command"),
    [
        ("commands", "secret.rotate", True),
        ("events", "kyc.approved", True),
        ("events", "secret.revoked", True),
        ("events", "order.recorded", False),
    ],
)
def test_no_parked_command_is_mended_by_who_may_not_give_it(console, db, exchange, key, is_command):
    db.execute(
        text(
            "INSERT INTO outbox (message_id, exchange, routing_key, type, correlation_id, source,"
            " time, body, attempts, next_try_at, parked_at, reason) VALUES (:id, :exchange, :key,"
            " :key, '', 'tests', now(), '{}', 1, now() + interval '1 day', now(), 'gone')"
        ),
        {"id": new_id(), "exchange": exchange, "key": key},
    )
    number = db.scalar(text("SELECT max(sequence) FROM outbox"))
    db.commit()
    with signed_in(console, db, "messages") as client:
        for does in ("edit", "discard"):
            more = {"body": "{}", "why": "x"}
            answer = client.post(f"/outbox/messages/{number}/{does}", data=form(client) | more)
            assert (answer.status_code == 403) is is_command, answer.text
        page = client.get(f"/outbox/messages/{number}").text
        assert (f'action="/outbox/messages/{number}/edit"' in page) is not is_command


def test_a_command_counts_for_nobody_who_may_not_give_it_any_more(console, db, amqp_url):
    """Replayed it would be its author's, beside that of whoever replays it."""
    business = account(db, status="pending")
    body = {"account_id": str(business.id), "decision": "approve"}
    author = {USER_HEADER: "fellow_console", ACTING_HEADER: "zoe"}
    with signed_in(console, db, "messages,kyc") as client:
        for role in ("messages", None, "kyc"):
            if role:
                users.put(db, "zoe", role, "correct horse battery")
            else:
                users.remove(db, "zoe")
            db.commit()
            id_ = letter(amqp_url, "kyc.decisions", "kyc.decide", body, **author)
            # What it says it would do is what it does.
            rehearsed = client.post("/dead/kyc.decisions/rehearse", data=form(client) | {"id": id_})
            assert rehearsed.status_code == 200, rehearsed.text
            assert ("would stay a dead letter" in rehearsed.text) is (role != "kyc")
            assert ("Replay like this" in rehearsed.text) is (role == "kyc")
            client.post(
                "/dead/kyc.decisions/replay", data=form(client) | {"id": id_, "sure": "yes"}
            )
            page = client.get("/dead/kyc.decisions").text
            assert ("may not any more" in page) is (role != "kyc"), page
            assert (id_ in page) is (role != "kyc")
    until(lambda: depth(amqp_url, "kyc.decisions") == 1, "hers is sent on")


def test_every_command_takes_the_right_to_give_it():
    """Whatever is done at the word of `commands` is not for `messages` alone."""
    commanded = {
        queue.name
        for queue in topology.WORK_QUEUES
        if any(binding.exchange == topology.COMMANDS for binding in queue.bindings)
    }
    assert commanded
    assert commanded <= set(OF_QUEUES)
    assert set(OF_QUEUES.values()) == {Right.KYC}
