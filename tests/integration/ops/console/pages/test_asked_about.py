"""What is done to dead letters is what was asked about, and nothing that came since."""

import html
import re
from datetime import UTC, datetime, timedelta

import pytest

from shared.bus import outbox
from shared.bus.contract.events import encode
from shared.bus.contract.message import message_for
from shared.db.models import KycApplication, OutboxMessage
from tests.integration.arrange import (
    account,
    application,
    depth,
    order_created,
    publish_raw,
    until,
)
from tests.integration.of_a_file import amqp_url, database_url
from tests.integration.ops.console.pages.test_masked_pages import form, signed_in
from tests.integration.ops.console.running import console, service
from tests.integration.ops.dead_letters.test_dead_letters import INTAKE, bury

__all__ = ["amqp_url", "console", "database_url", "service"]


@pytest.fixture
def client(console, db):
    with signed_in(console, db, "act") as client:
        yield client


def hidden(page, action):
    """The fields that a form of a page has and nobody sees."""
    of_it = page.split(f'action="{action}"', 1)[1].split("</form>")[0]
    return {
        name: html.unescape(value)
        for name, value in re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', of_it)
    }


def hidden_beside(page, action, *names):
    """Those of the one form that goes to `action` and has fields of these names."""
    (of_it,) = (
        of_it
        for part in page.split(f'action="{action}"')[1:]
        if all(f'name="{name}"' in (of_it := part.split("</form>")[0]) for name in names)
    )
    return hidden(f'action="{action}"{of_it}', action)


def sent(client, page, action, **typed):
    """What comes of a form of a page that goes to `action`, of several by what is in it."""
    return client.post(action, data=hidden_beside(page, action, *typed) | typed)


def later(minutes=1):
    return datetime.now(UTC) + timedelta(minutes=minutes)


def died_again(amqp_url, message, at, body):
    before = depth(amqp_url, INTAKE.dead)
    publish_raw(
        amqp_url,
        "dead",
        INTAKE.name,
        body,
        message_id=message.message_id,
        type=message.type,
        delivery_mode=2,
        application_headers=message.headers()
        | {"x-reason": "again", "x-failed-at": at.isoformat()},
    )
    until(lambda: depth(amqp_url, INTAKE.dead) > before, "it lies there")


@pytest.mark.parametrize(("act", "done"), [("discard", "discarded"), ("replay", "replayed")])
@pytest.mark.parametrize("chosen", ["all", "ticked"])
def test_what_died_after_the_question_stays(client, amqp_url, act, done, chosen):
    asked = bury(amqp_url, order_created(), order_created())
    path = f"/dead/{INTAKE.name}/{act}"
    which = {"all": "yes"} if chosen == "all" else {"id": asked[0].message_id}
    of_them = "2 dead letters" if chosen == "all" else "1 dead letter "
    why = {"why": "a test"} if act == "discard" else {}
    question = client.post(path, data=form(client) | which | why)
    assert of_them in question.text
    fields = hidden(question.text, path)
    if chosen == "all":
        bury(amqp_url, order_created(), order_created(), failed_at=later())
    else:
        died_again(amqp_url, asked[0], later(), b"{}")
    answer = client.post(path, data=fields)
    assert answer.status_code == 303, answer.text
    told = client.get(answer.headers["Location"]).text
    count = 2 if chosen == "all" else 1
    assert f"{count} message{'s' if count > 1 else ''} {done}" in told
    until(lambda: depth(amqp_url, INTAKE.dead) == 2, "what came since is left")


def test_a_letter_that_has_died_again_is_not_overwritten(client, amqp_url):
    order = order_created()
    (message,) = bury(amqp_url, order, body=b"{}")
    shown = client.get(f"/dead/{INTAKE.name}/letter", params={"id": message.message_id})
    path = f"/dead/{INTAKE.name}/edit"
    typed = {"type": "order.created", "body": encode(order).decode()}
    fields = hidden(shown.text, path) | typed
    question = hidden(client.post(path, data=fields).text, path)
    gone = {"id": message.message_id, "why": "mended by somebody else", "sure": "yes"}
    assert client.post(f"/dead/{INTAKE.name}/discard", data=form(client) | gone).status_code == 303
    died_again(amqp_url, message, later(), b'{"of": "somebody else"}')
    answer = client.post(path, data=question)
    assert (answer.status_code, "died again" in answer.text) == (409, True)
    assert depth(amqp_url, INTAKE.dead) == 1
    # What was typed is there still, beside the letter as it is now.
    assert html.escape(typed["body"], quote=False) in html.unescape(answer.text).replace("\r", "")
    again = client.post(path, data=hidden(answer.text, path) | typed)
    assert "Replay this letter" in again.text


def test_a_letter_that_died_again_is_named_by_the_question(client, amqp_url):
    order = order_created()
    (message,) = bury(amqp_url, order, body=b"{}")
    letter = f"/dead/{INTAKE.name}/letter"
    shown = client.get(letter, params={"id": message.message_id}).text
    gone = {"id": message.message_id, "why": "mended by somebody else", "sure": "yes"}
    client.post(f"/dead/{INTAKE.name}/discard", data=form(client) | gone)
    died_again(amqp_url, message, later(), b'{"of": "somebody else"}')
    typed = {"type": "order.created", "body": encode(order).decode()}
    answer = sent(client, shown, f"/dead/{INTAKE.name}/edit", **typed)
    assert (answer.status_code, "died again" in answer.text) == (409, True)
    assert '<p class="trouble">again</p>' in answer.text  # why, this time
    assert typed["body"] in html.unescape(answer.text)
    # Who has seen that may go on.
    question = sent(client, answer.text, f"/dead/{INTAKE.name}/edit", **typed)
    assert "Replay this letter" in question.text


def parked(db):
    order = order_created()
    message = message_for(order, source="tests", correlation_id=order.order_id)
    outbox.add(db, [message])
    db.flush()
    row = db.query(OutboxMessage).filter_by(message_id=message.message_id).one()
    row.parked_at, row.reason = datetime.now(UTC), "it was so"
    db.commit()
    return row.sequence


def test_a_refused_question_leaves_what_was_typed_where_it_was(client, amqp_url, db):
    (letter,) = bury(amqp_url, order_created())
    business, dead, why = account(db, status="pending"), f"/dead/{INTAKE.name}", "as Ada says"
    kyc = f"/kyc/{business.id}"
    for path, action, typed, status, said in (
        (dead, f"{dead}/discard", {"why": why}, 400, "Select at least one message."),
        (
            dead,
            f"{dead}/replay",
            {"why": why, "id": letter.message_id},
            400,
            "A replay has no reason",
        ),
        ("/kyc", kyc, {"reason": why, "decision": "approve"}, 400, "An approval has no reason"),
        (
            "/kyc",
            kyc,
            {"reason": why, "decision": "reject", "looked_at": "rejected"},
            409,
            "look at it again",
        ),
    ):
        fields = hidden(
            client.get(path).text, action if "replay" not in action else f"{dead}/discard"
        )
        answer = client.post(action, data=fields | typed)
        assert answer.status_code == status, answer.text
        assert f'value="{why}"' in answer.text
        assert re.search(
            f'role="alert" tabindex="-1" autofocus>{said}|autofocus>[^<]*{said}', answer.text
        )
        assert "<title>Error: " in answer.text


@pytest.mark.parametrize(
    ("what", "meanwhile"),
    [("reason", "approved"), ("reason", "applied again"), ("note", "applied again")],
)
def test_what_was_typed_of_an_application_that_is_another_by_now_stays(client, db, meanwhile, what):
    business, typed = account(db, status="pending"), f"a <{what}> of it"
    page = client.get("/kyc").text
    first = db.query(KycApplication).filter_by(account_id=business.id).one()
    first.status = "approved" if meanwhile == "approved" else "rejected"
    if meanwhile == "applied again":
        db.flush()
        db.add(application(business))
    db.commit()
    action, more = f"/kyc/{business.id}", {"decision": "reject"}
    if what == "note":
        action, more = f"{action}/notes", {}
    answer = client.post(action, data=hidden_beside(page, action, what) | {what: typed} | more)
    assert answer.status_code == 409, answer.text
    assert answer.text.count(html.escape(typed)) == 1


def test_who_answers_no_is_back_at_the_form_with_what_was_typed(client, amqp_url, db):
    first, second = bury(amqp_url, order_created(), order_created())
    business = account(db, status="pending")
    account(db, status="pending")
    number, dead = parked(db), f"/dead/{INTAKE.name}"
    letter = f"{dead}/letter?id={first.message_id}"
    why = 'a "test" of <it>'
    escaped = html.escape(why).replace("&quot;", "&#34;")
    body = first.body.decode().replace("{", "{ ", 1)
    for path, action, typed, kept, not_kept in (
        (
            f"{dead}?type=order.created",
            f"{dead}/discard",
            {"why": why, "id": first.message_id},
            (
                f'value="{escaped}"',
                f'Tick {first.message_id}" checked',
                "<option selected>order.created",
            ),
            (f'Tick {second.message_id}" checked',),
        ),
        (letter, f"{dead}/discard", {"why": why}, (f'value="{escaped}"',), ()),
        (letter, f"{dead}/edit", {"type": first.type, "body": body}, (body,), ()),
        (
            "/kyc?sort=newest",
            f"/kyc/{business.id}",
            {"reason": why, "decision": "reject"},
            (f'value="{escaped}"', '<option value="newest" selected'),
            (),
        ),
        ("/kyc", f"/kyc/{business.id}/notes", {"note": why}, (f'value="{escaped}"',), ()),
        (
            f"/accounts/{business.id}",
            f"/accounts/{business.id}",
            {"reason": why, "command": "block"},
            (f'value="{escaped}"',),
            (),
        ),
        (
            f"/outbox/messages/{number}",
            f"/outbox/messages/{number}/discard",
            {"why": why},
            (f'value="{escaped}"',),
            (),
        ),
        (
            f"/outbox/messages/{number}",
            f"/outbox/messages/{number}/edit",
            {"about": "A-7", "body": body},
            ('value="A-7"', body),
            (),
        ),
    ):
        shown = client.get(path).text
        question = sent(client, shown, action, **typed)
        assert 'name="sure" value="no"' in question.text, (path, question.text)
        fields = hidden(question.text, action)
        back = client.post(action, data=fields | {"sure": ["yes", "no"]})
        assert back.status_code == 200, back.text
        title = re.search("<title>(.+)</title>", shown)[1]
        assert f"<title>{title}</title>" in back.text
        for value in kept:
            text = back.text if value.startswith("value") else html.unescape(back.text)
            assert text.count(value) == 1, (path, value)
        for value in not_kept:
            assert value not in back.text, (path, value)
        assert escaped not in client.get(path).text
    assert depth(amqp_url, INTAKE.dead) == 2
