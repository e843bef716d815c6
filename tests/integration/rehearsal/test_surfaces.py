"""A rehearsal on the console and by the command, of real services in processes of their own."""

import html
import json
import os
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from services.ops.audit.actions import Actor
from services.ops.dead_letters import in_flight
from shared.bus.contract import topology
from shared.bus.contract.events import (
    OpsDataViewed,
    OrderStatusChanged,
    TrackingStatus,
    decode,
    encode,
)
from shared.db.models import Order, OutboxMessage, Rehearsal
from shared.ids import new_id
from stack.folders import ROOT
from stack.processes import stop
from stack.servers.credentials import as_service
from tests.integration.arrange import account, an_order, depth, order_created, until
from tests.integration.ops.cli.test_cli import fellow
from tests.integration.ops.console.pages.test_masked_pages import signed_in
from tests.integration.ops.console.running import form_token, running_console
from tests.integration.ops.dead_letters.test_dead_letters import bury
from tests.unit.notifier.facts import CODE, FACTS
from tests.zygote.forks import spawn

INTAKE, URGENT = topology.ORDERS_INTAKE, topology.NOTIFIER_URGENT
BUSY = "services.orders has not answered within"


@pytest.fixture
def service():
    return "ops"


@pytest.fixture
def running(amqp_url, database_url, tmp_path, mailbox):
    """Start services as processes."""
    begun = []

    def start(*services):
        for name in services:
            given = {
                "AMQP_URL": as_service(amqp_url, name),
                "DATABASE_URL": as_service(database_url, name),
                "SMTP_PORT": str(mailbox.port),
            }
            begun.append(
                spawn(
                    (sys.executable, "-m", f"services.{name}"),
                    environment=os.environ | given,
                    log=tmp_path / f"{name}.log",
                    directory=ROOT,
                )
            )

    yield start
    for process in begun:
        stop(process, 15)


@pytest.fixture
def console(settings, amqp_url, database_url, tmp_path):
    with running_console(tmp_path, amqp_url, database_url) as (url, _):
        yield url


def shown(answer):
    return html.unescape(re.sub(r"<[^>]+>", " ", answer.text))


def rehearse(client, queue, **form):
    token = form_token(client, f"/dead/{queue.name}/letter", id=form["id"])
    return client.post(f"/dead/{queue.name}/rehearse", data={"form_token": token} | form)


def test_the_whole_way_of_an_order(console, db, amqp_url, running, mailbox):
    running("orders", "notifier")
    business = account(db)
    order = order_created(business.id)
    (message,) = bury(amqp_url, order)
    with signed_in(console, db, "messages,customers") as client:
        answer = rehearse(client, INTAKE, id=message.message_id)
        page = shown(answer)
        assert "It would be handled." in page
        for words in ("orders: 1 new", "order_status_history: 1 new", "12 Marina Road"):
            assert words in page
        assert "order.recorded to notifier.orders" in " ".join(page.split())
        assert f"Zoë Ade <{order.customer_details.email}>" in page
        assert "Your order from Kettle & Co" in page or "Kettle & Co" in page
        assert "token=******" in page
        # What was seen is asked about before it is done.
        form = dict(re.findall(r'name="(form_token|id)" value="([^"]*)"', answer.text))
        assert f'action="/dead/{INTAKE.name}/replay"' in answer.text
        question = client.post(f"/dead/{INTAKE.name}/replay", data=form)
        assert "Replay 1 dead letter of orders.intake?" in shown(question)
    assert depth(amqp_url, INTAKE.dead) == 1
    assert db.query(Order).count() == 0
    assert mailbox.maildir.emails() == []
    facts = [
        decode(row.type, row.body)
        for row in db.query(OutboxMessage).filter_by(type=OpsDataViewed.TYPE)
    ]
    (seen,) = [fact for fact in facts if fact.page == "POST /dead/{queue}/rehearse"]
    assert seen.of[:2] == ("orders.intake", message.message_id)
    assert {str(order.order_id), str(business.id)} <= set(seen.of)


@pytest.mark.parametrize(
    ("role", "sees"), [("messages", False), ("messages,kyc", False), ("messages,customers", True)]
)
def test_another_body_reads_nobody_s_order(role, sees, console, db, amqp_url, running):
    """The letter is of whoever mends it; what is in the books is not."""
    running("orders", "notifier")
    business, id_ = account(db), new_id()
    whose = {"customer_name": "Ngozi Eze", "customer_email": "ngozi@shop.example"}
    db.add(an_order(business.id, id=id_, item_summary="a lamp", address="Enugu", **whose))
    db.commit()
    update = OrderStatusChanged(
        order_id=id_, account_id=business.id, tracking_status=TrackingStatus.OUT_FOR_DELIVERY
    )
    (message,) = bury(amqp_url, update, body=b"{}", reason="Malformed: x")
    form = {"id": message.message_id, "type": update.TYPE, "body": encode(update).decode()}
    with signed_in(console, db, role) as client:
        page = shown(rehearse(client, INTAKE, **form))
    assert "orders: 1 changed" in page
    for personal in ("Ngozi", "ngozi@shop.example"):
        assert (personal in page) is sees, personal
    seen = [decode(row.type, row.body) for row in db.query(OutboxMessage).all()]
    assert str(id_) in [id_ for fact in seen if isinstance(fact, OpsDataViewed) for id_ in fact.of]


def test_who_watches_sees_what_happens_and_not_to_whom(console, db, amqp_url, running):
    running("orders", "notifier")
    order = order_created(account(db).id)
    (message,) = bury(amqp_url, order)
    with signed_in(console, db, "watch") as client:
        page = shown(rehearse(client, INTAKE, id=message.message_id))
        assert "orders: 1 new" in page
        assert str(order.order_id) in page
        assert "•••@•••" in page
        for personal in ("zoe@shop.example", "Zoë Ade", "12 Marina Road", "blue kettle"):
            assert personal not in page
        assert "Replay like this" not in page
        other = encode(order_created()).decode()
        form = {"id": message.message_id, "type": "order.created", "body": other}
        assert rehearse(client, INTAKE, **form).status_code == 403


def test_another_body_is_tried_and_led_to_the_same_question(console, db, amqp_url, running):
    running("orders")
    order = order_created(account(db).id, item_summary="3 green pots")
    (message,) = bury(amqp_url, order, body=b"{}", reason="Malformed: x")
    with signed_in(console, db, "act") as client:
        as_it_is = shown(rehearse(client, INTAKE, id=message.message_id))
        assert "It would be a dead letter again at once" in as_it_is
        form = {"id": message.message_id, "type": "order.created", "body": encode(order).decode()}
        answer = rehearse(client, INTAKE, **form)
        assert "3 green pots" in shown(answer)
        # Nobody is there to say what would be mailed.
        assert "The notifier did not say what it would mail" in shown(answer)
        names = r'name="(form_token|id|death|type|body)" value="([^"]*)"'
        again = {n: html.unescape(v) for n, v in re.findall(names, answer.text)}
        assert {n: again[n] for n in form} == form
        question = client.post(f"/dead/{INTAKE.name}/edit", data=again)
        assert "Replay this letter of orders.intake with this body?" in shown(question)
        wrong = rehearse(client, INTAKE, **(form | {"body": "{"}))
        assert wrong.status_code == 400
        assert "This is no order.created" in shown(wrong)
        # Who answers no is at the letter, with the body that was rehearsed.
        back = {"sure": "no", "back": f"/dead/{INTAKE.name}/letter?id={message.message_id}"}
        assert f'name="back" value="{back["back"]}"' in answer.text
        assert "3 green pots" in shown(client.post(f"/dead/{INTAKE.name}/edit", data=again | back))
        assert depth(amqp_url, INTAKE.dead) == 1
        done = client.post(f"/dead/{INTAKE.name}/edit", data=again | {"sure": "yes"})
        assert done.status_code == 303, done.text
    until(lambda: depth(amqp_url, INTAKE.dead) == 0, "it is sent on")


def test_nobody_reads_a_code_by_it(settings, database_url, amqp_url, running, db):
    """Who may replay may not sign in as the business."""
    running("notifier")
    (message,) = bury(amqp_url, FACTS["one_time_code"], queue=URGENT)
    code, out, err = fellow(settings, "dead", "rehearse", URGENT.name, message.message_id)
    assert code == 0, err
    assert "Your code is ******." in out
    assert CODE not in out
    assert "Nothing of this has happened" in err


def test_the_command(settings, amqp_url, running, db, tmp_path):
    running("orders", "notifier")
    order = order_created(account(db).id)
    (message,) = bury(amqp_url, order)
    code, out, err = fellow(settings, "dead", "rehearse", INTAKE.name, message.message_id, "--json")
    assert code == 0, err
    found = json.loads(out)
    assert found["outcome"] == "done"
    assert {c["table"]: c["inserted"] for c in found["changes"]} == {
        "orders": 1,
        "order_status_history": 1,
    }
    assert [fact["queues"] for fact in found["facts"]] == [["notifier.orders"]]
    (email,) = found["emails"]
    assert email["recipient"] == order.customer_details.email
    bad = tmp_path / "bad.json"
    bad.write_text(encode(order).decode().replace("PENDING", "LOST"))
    args = ("dead", "rehearse", INTAKE.name, message.message_id, "--body", str(bad))
    code, _, err = fellow(settings, *args)
    assert (code, "Nothing was tried." in err) == (1, True)
    code, _, err = fellow(settings, "dead", "rehearse", INTAKE.name, "no-such")
    assert (code, "There is no dead letter no-such" in err) == (1, True)


def test_where_nobody_runs_it_says_so(settings, amqp_url, db):
    (message,) = bury(amqp_url, order_created())
    code, out, _ = fellow(settings, "dead", "rehearse", INTAKE.name, message.message_id)
    assert (code, BUSY in out) == (1, True)


def test_few_are_under_way_at_once_and_one_for_each_person(console, settings, db, engine, amqp_url):
    """Whoever may look may ask, and nobody answers here: each waits for as long as it may."""
    (message,) = bury(amqp_url, order_created())
    id_ = message.message_id
    with signed_in(console, db, "watch") as client, ThreadPoolExecutor(1) as thread:
        first = thread.submit(rehearse, client, INTAKE, id=id_)
        until(lambda: asked(db) == 1, "the first is under way")
        second = rehearse(client, INTAKE, id=id_)
        assert second.status_code == 429
        assert "A rehearsal of ada's is under way" in shown(second)
        assert asked(db) == 1
        assert first.result().status_code == 200
        # And with it over, another may begin, as long as there are few in all.
        with ExitStack() as others:
            for number in range(in_flight.MOST):
                others.enter_context(in_flight.rehearsal_slot(engine, Actor(f"other {number}", "")))
            refused = rehearse(client, INTAKE, id=id_)
            assert refused.status_code == 429
            assert "3 rehearsals are under way" in shown(refused)
            code, _, err = fellow(settings, "dead", "rehearse", INTAKE.name, id_)
            assert (code, "Nothing was tried. 3 rehearsals" in err) == (1, True)
        assert BUSY in shown(rehearse(client, INTAKE, id=id_))


def asked(db):
    db.rollback()
    return db.query(Rehearsal).count()
