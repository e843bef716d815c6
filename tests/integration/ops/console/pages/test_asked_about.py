"""What is done to dead letters is what was asked about, and nothing that came since."""

import html
import re
from datetime import UTC, datetime, timedelta

import pytest

from shared.bus.contract.events import encode
from tests.integration.arrange import depth, order_created, publish_raw, until
from tests.integration.ops.console.pages.test_masked_pages import form, signed_in
from tests.integration.ops.console.test_broker_work import console
from tests.integration.ops.dead_letters.test_dead_letters import INTAKE, bury


@pytest.fixture
def service():
    return "ops"


@pytest.fixture
def client(settings, amqp_url, database_url, tmp_path, db):
    with (
        console(settings, amqp_url, database_url, tmp_path) as url,
        signed_in(url, db, "act") as client,
    ):
        yield client


def hidden(page, action):
    """The fields that a form of a page has and nobody sees."""
    of_it = page.split(f'action="{action}"', 1)[1].split("</form>")[0]
    return {
        name: html.unescape(value)
        for name, value in re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', of_it)
    }


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
    before = depth(amqp_url, INTAKE.dead)
    answer = client.post(path, data=fields)
    assert answer.status_code == 303, answer.text
    told = client.get(answer.headers["Location"]).text
    count = 2 if chosen == "all" else 1
    assert f"{count} message{'s' if count > 1 else ''} {done}" in told
    left = before - count
    until(lambda: depth(amqp_url, INTAKE.dead) == left, "what came since is left")


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
