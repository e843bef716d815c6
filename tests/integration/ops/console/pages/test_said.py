"""What a page says of what it does not show: the rest of a list, the end of a session."""

import html
import re
from datetime import UTC, datetime
from urllib.parse import parse_qs, urlsplit

from sqlalchemy import delete, select

from services.ops.console.web.mount import SESSION
from services.ops.dead_letters.digest import FEW
from services.ops.users import sessions
from shared.db.models import AuditEntry, OpsSession, OpsUser
from shared.ids import new_id
from shared.security.audit_chain import GENESIS
from shared.web.arrivals import ENDED
from tests.integration.arrange import account, order_created, until
from tests.integration.of_a_file import amqp_url, database_url
from tests.integration.ops.cli.test_cli import fellow
from tests.integration.ops.console.pages.test_asked_about import client, hidden
from tests.integration.ops.console.pages.test_masked_pages import form
from tests.integration.ops.console.running import console, service
from tests.integration.ops.dead_letters.test_dead_letters import INTAKE, bury

__all__ = ["amqp_url", "client", "console", "database_url", "service"]


def test_after_the_last_of_a_list_it_is_not_said_that_there_are_none(client, db, amqp_url):
    business = account(db, status="pending")
    bury(amqp_url, order_created())
    for path in (
        f"/kyc?after={new_id()}",
        f"/dead/{INTAKE.name}?start=7",
        f"/emails?after={new_id()}",
        f"/accounts/{business.id}/orders?after={new_id()}",
        "/outbox?after=7",
        f"/accounts/{business.id}/requests?before=7.7",
        "/audit?before=7",
    ):
        page = client.get(path).text
        assert re.search("None (after|before) these|None from here on", page), path
        for none in (
            "Nobody waits",
            "No dead letters here",
            "No email was",
            "None is recorded",
            "Nothing is parked",
            "None.",
            "Nothing fits",
        ):
            assert none not in page, path


def test_a_form_that_came_after_the_session_says_that_nothing_was_done(client, db):
    business = account(db, status="pending")
    asked = {"application_id": "", "decision": "approve"}
    listed = client.get("/kyc").text
    path = f"/kyc/{business.id}"
    question = client.post(path, data=hidden(listed, path) | asked | form(client))
    assert question.status_code == 200, question.text
    db.execute(delete(OpsSession))
    db.commit()
    for answer, back in (
        (client.post(path, data=hidden(question.text, path)), "/kyc"),
        (
            client.post(
                "/outbox/retry",
                data=form(client),
                headers={"Referer": f"{str(client.base_url).rstrip('/')}/outbox?x=1"},
            ),
            "/outbox?x=1",
        ),
        (
            client.post("/outbox/retry", data=form(client), headers={"Referer": "http://x/y"}),
            "",
        ),
    ):
        to = urlsplit(answer.headers["Location"])
        assert (answer.status_code, to.path) == (303, "/sign-in")
        assert parse_qs(to.query).get("next", [""])[0].startswith(back)
        assert ENDED in client.get(answer.headers["Location"]).text
    assert client.cookies[SESSION]
    assert ENDED not in client.get("/sign-in").text


def test_what_is_left_to_be_said_waits_for_a_page_that_has_a_place_for_it(client, db):
    """A piece that asks by itself, or that another page fetches, shows no note."""
    ada = db.scalars(select(OpsUser.id)).one()
    sessions.note_for_all(db, ada, "You have signed in from 203.0.113.7, too.")
    db.commit()
    for path, headers in (
        (f"/kyc/outcomes/{new_id()}", {}),
        (f"/orders/{new_id()}", {"HX-Request": "true"}),
        ("/outbox", {"HX-Request": "true"}),
    ):
        assert "203.0.113.7" not in client.get(path, headers=headers).text, path
    assert "You have signed in from 203.0.113.7, too." in client.get("/").text
    assert "203.0.113.7" not in client.get("/").text


def test_an_error_has_the_way_to_the_other_pages(client):
    page = client.get("/nowhere")
    assert page.status_code == 404
    assert '<a href="/kyc">KYC</a>' in page.text


def test_a_list_of_the_audit_log_that_is_cut_says_so(settings, db):
    for number in (1, 2):
        db.add(
            AuditEntry(
                sequence=number,
                event_id=new_id(),
                type="account.signed_in",
                happened_at=datetime.now(UTC),
                actor="it@kettle.example",
                address="203.0.113.7",
                correlation_id="",
                data="{}",
                previous_hash=GENESIS,
                hash=GENESIS,
            )
        )
    db.commit()
    for more in ((), ("--csv",), ("--json",)):
        code, out, said = fellow(settings, "audit", "list", "--limit", "1", *more)
        assert (code, out.count("it@kettle.example")) == (0, 1)
        assert "These are the newest 1: there are more (--limit)." in said
        assert "there are more" not in fellow(settings, "audit", "list", "--limit", "2", *more)[2]


def test_a_long_dead_queue_is_shown_as_it_was_seen_and_a_letter_as_it_is(client, amqp_url):
    buried = bury(amqp_url, *(order_created() for _ in range(FEW + 1)))
    last, path = buried[-1], f"/dead/{INTAKE.name}"
    seen = "Looked through"
    until(lambda: seen in client.get(path).text, "it was looked through")
    for asked in (f"?about={last.correlation_id}", "?reason=no+such", "/reasons"):
        page = client.get(path + asked).text
        assert seen in page, asked
        assert "No letter fits" not in page, asked
    assert seen not in client.get(f"{path}?about={last.correlation_id}&now=yes").text
    assert "were looked through" in client.get(f"/orders/{last.correlation_id}?everywhere=yes").text

    letter = client.get(f"{path}/letter", params={"id": last.message_id}).text
    assert "It is fetched" in letter
    assert "<textarea" not in letter
    itself = client.get(html.unescape(re.search(r'hx-get="([^"]+)"', letter)[1])).text
    assert "<textarea" in itself
    assert client.get(f"{path}/letter", params={"id": str(new_id())}).status_code == 404

    (newest,) = bury(amqp_url, order_created())
    behind = {"id": [last.message_id, newest.message_id]}
    assert (
        "Replay 2 dead letters of" in client.post(f"{path}/replay", data=form(client) | behind).text
    )
    about = {"all": "yes", "about": newest.correlation_id}
    assert (
        "Replay 1 dead letter of" in client.post(f"{path}/replay", data=form(client) | about).text
    )
    take_it = form(client) | {"id": newest.message_id, "why": "a test"}
    question = client.post(f"{path}/discard", data=take_it).text
    assert client.post(f"{path}/discard", data=hidden(question, f"{path}/discard")).is_redirect
    until(lambda: seen in client.get(path).text, "it was looked through")
    looked = "dead letters were looked through"
    until(lambda: looked in client.get("/find?q=nobody@shop.example").text, "and so for a search")

    which = {"id": last.message_id, "why": "a test"}
    question = client.post(f"{path}/discard", data=form(client) | which).text
    assert seen in question
    assert client.post(f"{path}/discard", data=hidden(question, f"{path}/discard")).is_redirect
    until(lambda: f"{FEW} dead" in client.get(path).text, "it is gone")
    page = client.get(f"{path}?about={last.correlation_id}").text
    assert seen not in page
    assert "No letter fits" in page
