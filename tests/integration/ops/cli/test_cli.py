"""`fellow`, run as an operator runs it: as a program, in an environment."""

import json
import os
import re
import shlex
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from sqlalchemy import select

from services.kyc.__main__ import wire
from shared.bus.contract import topology
from shared.bus.contract.events import OpsCommandPublished, OpsDataViewed, decode
from shared.db.models import KycApplication, OpsUser, OutboxMessage
from shared.ids import new_id
from shared.product import VERSION
from shared.security.service_accounts import CONSOLE, login
from stack.servers.credentials import as_service
from tests.integration.arrange import (
    PATIENCE,
    account,
    consuming,
    depth,
    facts,
    headers,
    publish_raw,
    take,
    until,
)
from tests.integration.ops.command import run_fellow
from tests.programs import program

OPERATIONS = Path(__file__).resolve().parents[4] / "docs" / "operations.md"


def fellow(settings, *arguments, **environment):
    """Run the command; its exit code, standard output and standard error."""
    named = {"AMQP_URL": settings.amqp_url, "DATABASE_URL": settings.database_url} | environment
    return run_fellow(arguments, {**os.environ, **named, "COLUMNS": "20"})


@contextmanager
def deciding(settings):
    with ExitStack() as stack:
        stack.enter_context(consuming(settings, *wire(settings).subscriptions))
        yield


def status_of(engine, account_):
    with engine.connect() as connection:
        query = select(KycApplication.status).where(KycApplication.account_id == account_.id)
        return connection.execute(query).scalar()


def test_which_version_it_is(settings):
    assert fellow(settings, "--version") == (0, f"fellow {VERSION}\n", "")


def test_off_a_terminal_no_table_is_cut(settings, db):
    email = f"{'long' * 15}@{'company' * 8}.example"
    applicant = account(db, status="pending", email=email)
    code, shown, _ = fellow(settings, "account", "show", str(applicant.id))
    assert (code, str(applicant.id) in shown, email in shown) == (0, True, True)
    code, shown, _ = fellow(settings, "kyc", "list")
    assert (code, email in shown) == (0, True)


def test_of_a_closed_business_no_address_is_shown(settings, db):
    made = account(db, status="revoked", company_name="Kettle & Co")
    made.closed_at, made.email = datetime.now(UTC), f"{made.id}@closed.invalid"
    db.commit()
    for command in (
        ("account", "show", str(made.id), "--no-bus"),
        ("kyc", "show", str(made.id)),
        ("kyc", "list", "--status", "revoked"),
    ):
        code, shown, err = fellow(settings, *command)
        assert (code, "Kettle & Co" in shown, "closed.invalid" in shown) == (0, True, False), err
        assert "closed" in shown, command


@pytest.mark.parametrize("by", ["id", "email", "number"])
def test_approve(settings, db, engine, by):
    business = account(db, status="pending", number="RC 17/2")
    name = {"id": str(business.id), "email": business.email, "number": "RC 17/2"}[by]
    with deciding(settings):
        code, out, err = fellow(settings, "kyc", "approve", "-y", name, "--wait", "30")
    assert (code, out) == (0, ""), err
    assert "Published: approve" in err
    assert f"Kettle & Co ({business.email}) is approved, decided by fellow." in err
    assert status_of(engine, business) == "approved"
    application = db.scalar(select(KycApplication))
    (row,) = db.scalars(
        select(OutboxMessage).where(OutboxMessage.type == OpsCommandPublished.TYPE)
    ).all()
    told = decode(row.type, row.body)
    assert (told.decision, told.application_id) == ("approve", application.id)
    assert row.correlation_id == str(business.id)
    assert facts(db, OpsDataViewed.TYPE)[0].of == (str(business.id),)


def test_reject_and_revoke_with_a_reason(settings, db, engine):
    pending = account(db, status="pending")
    approved = account(db, status="approved")
    with deciding(settings):
        code, _, err = fellow(settings, "kyc", "reject", "-y", pending.email)
        assert code == 2
        assert "REASON" in err.upper()
        code, _, err = fellow(
            settings, "kyc", "reject", "-y", pending.email, "--reason", "No such number."
        )
        assert code == 0, err
        code, _, err = fellow(
            settings, "kyc", "revoke", "-y", approved.email, "--reason", "Complaints."
        )
        assert code == 0, err
    assert status_of(engine, pending) == "rejected"
    assert status_of(engine, approved) == "revoked"
    with engine.connect() as connection:
        rows = connection.execute(
            select(OutboxMessage.type, OutboxMessage.body).order_by(OutboxMessage.sequence)
        ).all()
        facts = [(type_, decode(type_, body)) for type_, body in rows]
    reasons = ["No such number.", "Complaints."]
    assert [fact.reason for type_, fact in facts if type_.startswith("kyc.")] == reasons
    told = [fact for type_, fact in facts if type_ == "ops.command_published"]
    assert [(fact.by, fact.command, fact.reason) for fact in told] == [
        ("fellow", "kyc.decide", reason) for reason in reasons
    ]


def test_where_it_takes_two_the_command_says_who_has_decided_and_who_is_needed(
    settings, db, engine, configure
):
    two = {"KYC_APPROVALS_REQUIRED": "2"}
    settings = configure(kyc_approvals_required="2")
    business = account(db, status="pending")
    db.add(OpsUser(id=new_id(), name="ada", rights=["kyc"], password_hash="-"))
    db.commit()
    assert "so far" not in fellow(settings, "kyc", "list", **two)[1]
    with deciding(settings):
        for _ in range(2):
            code, _, err = fellow(
                settings, "kyc", "approve", "-y", business.email, "--wait", "30", **two
            )
            assert code == 0, err
            assert "is pending. Recorded: 1 of 2 for approve: fellow; 1 more" in err
        code, shown, err = fellow(settings, "kyc", "list", **two)
        assert "1 of 2 for approve: fellow; 1 more of other names needed" in shown
        assert "To approve takes 2 operators of different names." in err
        (listed,) = json.loads(fellow(settings, "kyc", "list", "--json", **two)[1])
        assert [(one["person"], one["needed"]) for one in listed["recorded"]] == [("fellow", 2)]
        body = json.dumps({"decision": "approve", "email": business.email}).encode()
        publish_raw(
            as_service(settings.amqp_url, CONSOLE),
            "commands",
            "kyc.decide",
            body,
            user_id=login(CONSOLE),
            application_headers={"x-acting-user": "ada"},
        )
        until(lambda: status_of(engine, business) == "approved", "approved")
        code, _, err = fellow(
            settings, "kyc", "revoke", "-y", business.email, "--wait", "30", **two
        )
        assert "1 of 2 for revoke: fellow" in err
        shown = fellow(settings, "kyc", "list", "--status", "approved", **two)[1]
        assert "1 of 2 for revoke: fellow" in shown
    assert status_of(engine, business) == "approved"


def test_in_production_a_decision_is_somebodys(settings, db, engine, configure):
    business = account(db, status="pending")
    amqp_url, refuse = settings.amqp_url, {"ENVIRONMENT": "production"}
    refuse["DATABASE_URL"] = f"{settings.database_url}?sslmode=disable"
    settings = configure(kyc_unnamed_decisions="refuse")
    for user in ("operator", "ops", CONSOLE):
        signed_in = refuse | {"AMQP_URL": as_service(amqp_url, user)}
        code, _, err = fellow(settings, "kyc", "approve", "-y", business.email, **signed_in)
        assert (code, err.strip()) == (
            2,
            f"{login(user)} is no person's user: give --as and your own user of the broker.",
        )
    own = urlsplit(amqp_url)
    arguments = ("kyc", "approve", "-y", business.email, "--as", own.username, "--wait", "30")
    with deciding(settings):
        unsure = [one for one in arguments if one != "-y"]
        code, _, err = fellow(settings, *unsure, **signed_in, FELLOW_PASSWORD="wrong")
        assert code == 1
        assert "Kettle" not in err, "nobody has said yet who they are"
        code, _, err = fellow(settings, *arguments, **signed_in, FELLOW_PASSWORD=own.password)
        assert code == 0, err
        assert f"is approved, decided by {own.username}" in err


def test_the_documented_example_names_who_decides(settings, db, engine, configure):
    business = account(db, status="pending", email="it@kettle.example")
    text = OPERATIONS.read_text()
    (snippet,) = re.findall(r"```python\n(import json, os, uuid\n.*?)```", text, re.S)
    url = settings.amqp_url
    subprocess.run(
        [sys.executable, "-c", snippet],
        env=os.environ | {"AMQP_URL": url},
        check=True,
        timeout=PATIENCE,
    )
    with deciding(configure(kyc_unnamed_decisions="refuse")):
        until(lambda: status_of(engine, business) == "approved", "approved")
    with engine.connect() as connection:
        decided_by = select(KycApplication.decided_by)
        assert connection.execute(decided_by).scalar() == urlsplit(url).username


def test_a_refusal_says_why_and_stays_for_people(settings, db):
    business = account(db, status="rejected")
    with deciding(settings):
        code, _, err = fellow(settings, "kyc", "approve", "-y", business.email, "--wait", "30")
    assert code == 1
    assert "Refused: " in err
    assert "must submit again" in err
    assert depth(settings.amqp_url, topology.KYC_DECISIONS.dead) == 1


@pytest.mark.parametrize("decision", ["approve", "reject", "revoke"])
def test_a_decision_names_whom_it_is_about_and_asks(settings, db, decision):
    business = account(db, status="pending", number="RC-17", company_name="Kettle & Co")
    given = ("kyc", decision, "RC-17", "--reason", "x", "--wait", "0")
    code, _, err = fellow(settings, *given)
    assert code == 1
    asked = f"{decision.capitalize()} Kettle & Co <{business.email}>, number RC-17, now pending?"
    assert asked in err
    assert depth(settings.amqp_url, "kyc.decisions") == 0
    assert fellow(settings, *given, "--yes")[0] == 0
    assert depth(settings.amqp_url, "kyc.decisions") == 1


def test_a_decision_about_nobody_is_not_published(settings, db):
    code, _, err = fellow(settings, "kyc", "approve", "nobody@shop.example")
    assert (code, err.strip()) == (
        1, "No business that has applied is known by nobody@shop.example.",
    )  # fmt: skip
    assert depth(settings.amqp_url, topology.KYC_DECISIONS.name) == 0
    assert db.query(OutboxMessage).count() == 0


def test_the_command_says_its_version(settings):
    code, out, err = fellow(settings, "--version")
    assert (code, out.startswith("fellow "), err) == (0, True, "")


def test_without_a_consumer_it_is_safe_and_says_so(settings, db):
    business = account(db, status="pending")
    code, _, err = fellow(settings, "kyc", "approve", "-y", business.email, "--wait", "0.3")
    assert code == 1
    assert "It is safe in kyc.decisions: is services.kyc running?" in err
    code, _, err = fellow(settings, "kyc", "approve", "-y", business.email, "--wait", "0")
    assert code == 0
    message = take(settings.amqp_url, "kyc.decisions")
    assert message.properties["user_id"] == "fellow"
    assert message.properties["delivery_mode"] == 2
    assert headers(message)["ce-type"] == "kyc.decide"


def test_what_nobody_could_see_is_no_success(settings, db, unused_port):
    business = account(db, status="pending")
    nowhere = f"postgresql+psycopg2://nobody@127.0.0.1:{unused_port()}/none"
    given = (business.email, "--reason", "No such number.")
    code, _, err = fellow(settings, "kyc", "reject", "-y", *given, DATABASE_URL=nowhere)
    assert "the outcome cannot be seen" in err
    assert code == 1
    assert take(settings.amqp_url, "kyc.decisions") is not None


def test_nothing_is_approved_unasked_that_nobody_has_looked_at(settings, db, unused_port):
    nowhere = f"postgresql+psycopg2://nobody@127.0.0.1:{unused_port()}/none"
    given = ("kyc", "approve", "-y", account(db, status="pending").email)
    code, _, err = fellow(settings, *given, DATABASE_URL=nowhere)
    assert (code, "it is unknown which application is approved" in err) == (1, True)
    assert depth(settings.amqp_url, "kyc.decisions") == 0


def test_an_operator_who_may_publish_decisions_and_no_more(settings, db, engine):
    """Nothing that it looks at beside is refused with more than a sentence, on any version."""
    operator = {"AMQP_URL": as_service(settings.amqp_url, "operator")}
    business = account(db, status="pending")
    code, _, err = fellow(
        settings, "kyc", "approve", "-y", business.email, "--wait", "1", **operator
    )
    assert code == 1
    assert "Published: approve" in err
    assert "is services.kyc running?" in err
    with deciding(settings):
        until(lambda: status_of(engine, business) == "approved", "carried out")
    for command in (["queues"], ["doctor"], ["dead", "list"]):
        code, _, err = fellow(settings, *command, **operator)
        # Before RabbitMQ 4.2.6 whoever was admitted could look at every queue.
        assert code in (0, 1), command
        assert "Traceback" not in err, err


@pytest.mark.parametrize("name", ["a@b", "x\x07y", "n" * 201])
def test_a_name_that_is_none(settings, name):
    code, _, err = fellow(settings, "kyc", "approve", "-y", name)
    assert code == 2
    assert "no account id, email address or registration number" in err
    assert depth(settings.amqp_url, "kyc.decisions") == 0


def test_queues(settings, db):
    publish_raw(settings.amqp_url, "dead", "kyc.decisions", b"x", delivery_mode=2)
    publish_raw(settings.amqp_url, "intake", "order.created", b"x", delivery_mode=2)
    code, out, _ = fellow(settings, "queues", "--json")
    assert code == 0
    found = {queue["name"]: queue for queue in json.loads(out)}
    assert set(found) == {queue.name for queue in topology.QUEUES}
    assert found["kyc.decisions"]["dead"] == 1
    assert found["orders.intake"]["ready"] == 1

    def consumers():
        _, out, _ = fellow(settings, "queues", "--json")
        return {queue["name"]: queue["consumers"] for queue in json.loads(out)}

    with deciding(settings):
        # In order: a process consumes once it has its turn.
        until(lambda: consumers()["kyc.decisions"] == 1, "it is consumed")
        assert consumers()["orders.intake"] == 0
    code, out, _ = fellow(settings, "queues")
    assert code == 0
    heads, *lines = (line.split() for line in out.splitlines())
    shown = {line[0]: dict(zip(heads[1:], line[1:], strict=True)) for line in lines}
    columns = ("ready", "consumers", "dead")
    assert [shown["orders.intake"][name] for name in columns] == ["1", "0", "0"]
    assert [shown["kyc.decisions"][name] for name in columns] == ["0", "0", "1"]


def test_queues_that_nobody_has_declared(settings, broker, vhosts):
    empty = broker.url(vhosts.take_bare())
    code, out, err = fellow(settings, "queues", AMQP_URL=empty)
    assert code == 1
    assert "missing" in out
    assert "nothing has declared them yet" in err


def test_a_decision_declares_what_it_needs(settings, broker, vhosts, db):
    business = account(db, status="pending")
    fresh = broker.url(vhosts.take_bare())
    arguments = ("kyc", "approve", "-y", business.email, "--wait", "0")
    code, _, err = fellow(settings, *arguments, AMQP_URL=fresh)
    assert code == 0, err
    assert depth(fresh, "kyc.decisions") == 1


def test_a_broker_that_is_away(settings, unused_port, db):
    business = account(db, status="pending")
    away = f"amqp://guest:secret@127.0.0.1:{unused_port()}/"
    for arguments in (("queues",), ("kyc", "approve", "-y", business.email)):
        code, _, err = fellow(settings, *arguments, AMQP_URL=away)
        assert code == 1
        assert "The broker at" in err
        assert "secret" not in err
        assert "Traceback" not in err


def test_a_bad_configuration_is_a_sentence(settings):
    code, _, err = fellow(settings, "queues", DATABASE_URL="mysql://x")
    assert code == 2
    assert "DATABASE_URL must start with postgresql+psycopg2://" in err
    assert "Traceback" not in err


def test_generated_keys_start_a_production_system(settings):
    code, out, _ = fellow(settings, "keys", "generate")
    assert code == 0
    environment = dict(line.split("=", 1) for line in out.splitlines())
    again = dict(
        line.split("=", 1) for line in fellow(settings, "keys", "generate")[1].splitlines()
    )
    assert environment.keys() == again.keys()
    assert not set(environment.values()) & set(again.values())
    environment |= {
        "ENVIRONMENT": "production",
        "DATABASE_URL": f"{settings.database_url}?sslmode=disable",
    }
    code, _, err = fellow(settings, "queues", **environment)
    assert code == 0, err


def test_the_documented_line_with_a_stock_tool(settings, db, engine):
    tool = program("amqp-publish")
    business = account(db, status="pending", email="it@kettle.example")
    (line,) = re.findall(r"^amqp-publish (?:.*\\\n)?.*$", OPERATIONS.read_text(), re.MULTILINE)
    line = line.replace("\\\n", "")
    arguments = shlex.split(line.replace('"$AMQP_URL"', shlex.quote(settings.amqp_url)))
    subprocess.run([tool, *arguments[1:]], check=True, timeout=PATIENCE)
    with deciding(settings):
        until(lambda: status_of(engine, business) == "approved", "approved")
