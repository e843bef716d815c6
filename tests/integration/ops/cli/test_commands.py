"""`fellow secrets`, `fellow dead` and `fellow queues --watch`, run as programs."""

import json
import os
import re
import shutil
import signal
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from kombu import Connection

from services.secrets.__main__ import wire
from shared.bus.contract import topology
from shared.db.models import OutboxMessage, WebhookPolicy, WebhookPublicKey, WebhookSecret
from shared.ids import new_id
from tests.integration.arrange import (
    PATIENCE,
    account,
    consuming,
    depth,
    facts,
    order_created,
    take,
)
from tests.integration.ops.cli.test_cli import fellow
from tests.integration.ops.command import fellow_that_goes_on
from tests.integration.ops.dead_letters.test_dead_letters import bury

INTAKE = topology.ORDERS_INTAKE.name


def states(settings, business):
    code, out, err = fellow(settings, "secrets", "list", business.email, "--json")
    assert code == 0, err
    return [secret["state"] for secret in json.loads(out)]


def test_secrets_are_rotated_and_revoked_by_commands_on_the_bus(settings, db):
    business = account(db, status="approved")
    stranger = account(db)
    with consuming(settings, *wire(settings).subscriptions):
        for expected in (["active"], ["active", "retiring"]):
            code, _, err = fellow(settings, "secrets", "rotate", business.email, "--wait", "30")
            assert code == 0, err
            assert states(settings, business) == expected
        code, _, err = fellow(
            settings, "secrets", "revoke", business.email, "--reason", "Leaked.", "--yes",
            "--wait", "30",
        )  # fmt: skip
        assert code == 0, err
    assert states(settings, business) == ["revoked", "revoked"]
    assert states(settings, stranger) == []
    told = facts(db, "ops.command_published")
    assert [(fact.by, fact.command, fact.reason) for fact in told] == [
        ("fellow", "secret.rotate", ""),
        ("fellow", "secret.rotate", ""),
        ("fellow", "secret.revoke", "Leaked."),
    ]
    about = db.query(OutboxMessage.correlation_id).filter_by(type="ops.command_published")
    assert {id_ for (id_,) in about} == {str(business.id)}
    assert fellow(settings, "secrets", "rotate", "nobody@shop.example")[0] == 1


def test_a_revocation_is_asked_for_first(settings, db):
    business = account(db, status="approved")
    code, _, err = fellow(settings, "secrets", "revoke", business.email, "--reason", "x")
    assert code == 1
    assert "Revoke all secrets and public keys of Kettle & Co" in err
    assert depth(settings.amqp_url, "secrets.rotate") == 0


def test_replacing_at_once_is_asked_for_first_and_names_what_works_on(settings, db):
    business = account(db, status="approved")
    at = {"issued_at": datetime.now(UTC), "expires_at": datetime.now(UTC) + timedelta(days=9)}
    for platform, is_test in (("", False), ("shopify", False), ("", True)):
        named = {"platform": platform, "shop": "", "is_test": is_test, "state": "active"}
        hidden = {"key_hash": new_id().bytes * 2, "sealed": b"x"}
        db.add(WebhookSecret(account_id=business.id, **named, **hidden, **at))
    for _ in range(2):
        key = new_id().bytes * 2
        db.add(WebhookPublicKey(account_id=business.id, public_key=key, state="active"))
    db.commit()
    rotate = ("secrets", "rotate", business.email, "--revoke-previous", "--wait", "0")
    code, _, err = fellow(settings, *rotate)
    stays = "while 1 Shopify secret, 2 public keys, 1 test secret work on?"
    assert (code, stays in err) == (1, True), err
    assert depth(settings.amqp_url, "secrets.rotate") == 0
    assert fellow(settings, *rotate, "--yes")[0] == 0
    assert depth(settings.amqp_url, "secrets.rotate") == 1


def blocked_at(db, business):
    db.expire_all()
    policy = db.get(WebhookPolicy, business.id)
    return policy and policy.blocked_at


def test_nothing_is_done_to_a_business_that_has_the_text_in_its_name(settings, db):
    """Anybody may have anything in theirs; a number has what it is, however it is written."""
    named = account(db, status="approved", company_name="Depot 12345", number="RC 1-7")
    for command in (
        ("limit", "12345", "--per-second", "1"),
        ("secrets", "rotate", "12345"),
        ("account", "block", "12345", "--reason", "x", "-y"),
        ("suppressions", "lift", "12345", "zoe@shop.example", "-y"),
        ("kyc", "note", "12345", "x"),
    ):
        code, _, err = fellow(settings, *command)
        assert (code, "No business matches 12345." in err) == (1, True), (command, err)
    assert depth(settings.amqp_url, "secrets.rotate") == 0
    assert str(named.id) in fellow(settings, "account", "show", "12345", "--no-bus")[1]
    code, _, err = fellow(settings, "limit", "rc17", "--per-second", "1", "--wait", "0")
    assert (code, depth(settings.amqp_url, "secrets.rotate")) == (0, 1), err


def test_what_a_program_is_given_is_what_a_person_sees(settings, db):
    business = account(db, status="approved", number="RC-1")
    key = WebhookPublicKey(account_id=business.id, public_key=b"k" * 32, state="active")
    db.add(key)
    for number in range(2):
        account(db, status="pending", email=f"{number}@kettle.example")
    db.commit()
    assert states(settings, business) == ["active"]
    code, out, err = fellow(settings, "kyc", "list", "--limit", "1", "--json")
    assert (code, len(json.loads(out))) == (0, 1), err
    assert "1 of 2 pending." in err
    assert "More: --after" in err
    out = fellow(settings, "account", "show", business.email, "--no-bus")[1]
    assert "active public key" in out


def test_a_business_is_blocked_and_let_in_again_when_that_was_meant(settings, db):
    business = account(db, status="approved")
    block = ("account", "block", business.email, "--reason", "Complaints.")
    code, _, err = fellow(settings, *block)
    assert code == 1
    assert f"Block Kettle & Co <{business.email}>?" in err
    assert depth(settings.amqp_url, "secrets.rotate") == 0
    code, _, err = fellow(settings, *block[:-1], "x" * 5_000, "--yes")
    assert (code, "The reason may have up to 4,000 characters" in err) == (2, True)
    mails = "It mailed zoe@shop.example."
    for command in (("account", "block"), ("secrets", "revoke"), ("kyc", "revoke")):
        code, _, err = fellow(settings, *command, business.email, "--reason", mails, "--yes")
        assert (code, "must be without an email address" in err) == (2, True), err
    with consuming(settings, *wire(settings).subscriptions):
        code, _, err = fellow(settings, *block, "--yes", "--wait", "30")
        assert (code, "is blocked." in err) == (0, True), err
        assert blocked_at(db, business)
        code, _, err = fellow(settings, "account", "unblock", business.email, "-y", "--wait", "30")
        assert (code, "is no longer blocked." in err) == (0, True), err
        assert not blocked_at(db, business)
    assert [fact.what for fact in facts(db, "account.changed")] == ["blocked", "unblocked"]
    assert {fact.command for fact in facts(db, "ops.command_published")} == {"account.block"}
    assert fellow(settings, "account", "block", "nobody@shop.example", "--reason", "x")[0] == 1


def test_dead_letters_are_listed_shown_edited_and_discarded(settings, amqp_url, tmp_path):
    (bad,) = bury(amqp_url, order_created(), body=b"{}", reason="Malformed: x is missing")
    (good,) = bury(amqp_url, order_created(), reason="Retry: no order 7")
    code, out, err = fellow(settings, "dead", "list")
    assert code == 0, err
    assert "Malformed: x is missing" in out
    assert "2 dead letters." in err
    code, out, _ = fellow(settings, "dead", "list", INTAKE, "--reason", "malformed", "--json")
    assert [x["message_id"] for x in json.loads(out)["letters"]] == [bad.message_id]
    code, out, _ = fellow(settings, "dead", "show", INTAKE, bad.message_id)
    assert code == 0
    assert "Malformed: x is missing" in out
    body = tmp_path / "body.json"
    body.write_bytes(b"{}")
    edit = ("dead", "edit", INTAKE, bad.message_id, "--body", str(body))
    code, _, err = fellow(settings, *edit)
    assert (code, "Nothing was done. This is no order.created" in err) == (1, True)
    body.write_bytes(bad.body)
    code, _, err = fellow(settings, *edit)
    assert (code, f"Replay order.created {bad.message_id} with this body?" in err) == (1, True), err
    assert depth(amqp_url, INTAKE) == 0
    code, _, err = fellow(settings, *edit, "--yes")
    assert code == 0, err
    assert take(amqp_url, INTAKE).body == bad.body
    gone = ("dead", "discard", INTAKE, "--because", "a test", good.message_id)
    code, _, err = fellow(settings, *gone)
    assert (code, "1 discarded" in err) == (0, True), err
    code, _, err = fellow(settings, *gone)
    assert (code, "1 of those named were not there" in err) == (1, True)
    assert fellow(settings, "dead", "show", INTAKE, bad.message_id)[0] == 1


@pytest.mark.parametrize(
    ("editor", "sentence"),
    [
        ("no-such-editor --wait", "give the new body: --body FILE, or --body - --yes"),
        ("'unclosed", "cannot be run"),
        ("false", "false ended with 1; nothing was done"),
        ("true", "Nothing was changed"),
        ("rm", "cannot be read"),
    ],
)
def test_an_editor_that_is_none_ends_in_a_sentence(settings, amqp_url, editor, sentence):
    (bad,) = bury(amqp_url, order_created(), body=b"{}")
    code, out, err = fellow(
        settings, "dead", "edit", INTAKE, bad.message_id, EDITOR=editor, VISUAL=""
    )
    assert (code, out) == (1, "")
    assert sentence in err
    assert "Traceback" not in err
    assert depth(amqp_url, f"{INTAKE}.dead") == 1


def test_a_body_that_cannot_be_read_is_no_broker_that_is_away(settings, amqp_url, tmp_path):
    (bad,) = bury(amqp_url, order_created(), body=b"{}")
    lost = str(tmp_path / "typo.json")
    for command in ("edit", "rehearse"):
        code, out, err = fellow(settings, "dead", command, INTAKE, bad.message_id, "--body", lost)
        assert (code, out) == (2, ""), err
        assert f"{lost} cannot be read: No such file or directory." in err
        assert "broker" not in err
    code, _, err = fellow(settings, "dead", "edit", INTAKE, bad.message_id, "--body", "-")
    assert (code, "say --yes" in err) == (2, True)
    code, _, err = fellow(settings, "outbox", "edit", "1", "--body", lost)
    assert (code, "cannot be read" in err) == (2, True)


def test_what_was_written_in_an_editor_is_not_lost_by_a_comma(settings, amqp_url, tmp_path):
    """It opens again with what is wrong; what comes to nothing after all stays in its file."""
    (bad,) = bury(amqp_url, order_created(item_summary="a kettle"))
    editor = tmp_path / "editor"
    editor.write_text(
        f"#!/bin/sh\nif [ -e {tmp_path}/again ]; then sed -i 's/^{{,/{{/' $1; "
        f"else touch {tmp_path}/again; sed -i 's/kettle/teapot/;s/^{{/{{,/' $1; fi\n"
    )
    editor.chmod(0o700)
    edit = ("dead", "edit", INTAKE, bad.message_id)
    code, _, err = fellow(settings, *edit, VISUAL=str(editor))  # no answer to the question
    assert (code, "This is no order.created" in err) == (1, True), err
    (kept,) = re.findall(r"Your text is in (\S+): give it as --body\.", err)
    assert b"a teapot" in Path(kept).read_bytes()
    code, _, err = fellow(settings, *edit, "--body", kept, "-y")
    assert code == 0, err
    assert take(amqp_url, INTAKE).body == bad.body.replace(b"kettle", b"teapot")
    shutil.rmtree(Path(kept).parent)


def test_a_letter_is_edited_in_the_operators_editor(settings, amqp_url):
    (bad,) = bury(amqp_url, order_created(item_summary="a kettle"))
    code, _, err = fellow(
        settings, "dead", "edit", INTAKE, bad.message_id, "-y", VISUAL="sed -i s/kettle/teapot/"
    )
    assert code == 0, err
    assert take(amqp_url, INTAKE).body == bad.body.replace(b"kettle", b"teapot")


def test_a_replay_of_all_asks_first_and_says_what_it_did(settings, amqp_url):
    bury(amqp_url, *(order_created() for _ in range(3)))
    code, _, err = fellow(settings, "dead", "replay", INTAKE, "--all")
    assert code == 1
    assert "Replay all dead letters, 3, of orders.intake?" in err
    assert depth(amqp_url, INTAKE) == 0
    code, _, err = fellow(settings, "dead", "replay", INTAKE, "--all", "--yes")
    assert (code, "3 replayed, 0 left." in err) == (0, True), err
    assert depth(amqp_url, INTAKE) == 3


def test_what_makes_no_sense_is_refused_before_anything_happens(settings):
    for arguments, sentence in (
        (("replay", "orders.outtake", "--all", "--yes"), "There is no work queue"),
        (("replay", INTAKE), "or say --all"),
        (("replay", INTAKE, "x", "--all"), "or say --all"),
        (("replay", INTAKE, "--all", "--older", "soon"), "--older must be an age"),
        (("discard", INTAKE, "--all", "--because", " "), "--because must say why"),
        (("discard", INTAKE, "--all", "--because", "z@shop.example rang"), "without an email"),
    ):
        code, _, err = fellow(settings, "dead", *arguments)
        assert (code, sentence in err) == (2, True), (arguments, err)


def test_retry_now(settings, amqp_url):
    with Connection(amqp_url) as connection:
        connection.default_channel.basic_publish_confirm(
            connection.default_channel.prepare_message(b"{}"), "retry.1h", INTAKE
        )
    code, _, err = fellow(settings, "dead", "retry-now", INTAKE)
    assert (code, f"retry ladder for {INTAKE}?" in err, depth(amqp_url, INTAKE)) == (1, True, 0)
    code, _, err = fellow(settings, "dead", "retry-now", "--yes", INTAKE)
    assert (code, "1 put back" in err) == (0, True), err
    assert depth(amqp_url, INTAKE) == 1


@contextmanager
def watching(settings, *options):
    """The lines of `fellow queues --watch`, which ends well when it is interrupted."""
    urls = {"AMQP_URL": settings.amqp_url, "DATABASE_URL": settings.database_url}
    command = ("queues", "--watch", *options)
    with fellow_that_goes_on(command, os.environ | urls) as (process, written):
        try:
            yield written
        finally:
            process.send_signal(signal.SIGINT)
            assert process.wait(PATIENCE) == 0


def test_watching_into_a_log_says_something_each_time(settings):
    times = []
    with watching(settings) as written:
        while len(times) < 2:
            line = written.readline()
            if re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ *\n", line):
                times.append(line)
    assert times[0] < times[1]


def test_watching(settings):
    with watching(settings, "--json") as written:
        states_ = [json.loads(written.readline()) for _ in range(2)]
    assert states_[0]["at"] < states_[1]["at"]
    assert {queue["name"] for queue in states_[1]["queues"]} == {q.name for q in topology.QUEUES}
    assert "orders.intake has no consumer" in {t["text"] for t in states_[1]["troubles"]}
