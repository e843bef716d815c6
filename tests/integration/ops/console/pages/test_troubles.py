"""A trouble on the console: acknowledged and muted by name, in two steps, for everybody to see."""

import html
import re

import pytest

from shared.bus.contract.events import OpsTroubleChanged, decode
from shared.db.models import OpsTrouble, OutboxMessage
from tests.integration.arrange import until
from tests.integration.ops.console.pages.test_masked_pages import signed_in
from tests.integration.ops.console.running import form_token, running_console

KEY = "services.kyc: silent"


@pytest.fixture
def service():
    return "ops"


@pytest.fixture
def console(settings, amqp_url, database_url, tmp_path):
    with running_console(tmp_path, amqp_url, database_url) as (url, _):
        yield url


def trouble(db):
    """The console has seen that nothing runs."""

    def found():
        db.rollback()
        return db.query(OpsTrouble).filter_by(key=KEY, ended_at=None).one_or_none()

    return until(found, "it is written down")


def shown(answer):
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", answer.text)).split())


def post(client, path, **form):
    token = form_token(client, path.rpartition("/")[0])
    return client.post(path, data={"form_token": token} | form)


def test_it_is_acknowledged_and_muted(console, db):
    path = f"/troubles/{trouble(db).id}"
    with signed_in(console, db, "messages") as client:
        for note, wrong in (
            ("zoe@shop.example complains", "Your note must be without an email address"),
            ("n" * 501, "Your note must be of at most 500 characters"),
        ):
            refused = post(client, f"{path}/acknowledge", note=note, back=path)
            assert (refused.status_code, wrong in shown(refused)) == (400, True)
            assert f'value="{note}"' in refused.text
            assert post(client, f"{path}/acknowledge", note=note, sure="yes").status_code == 400
        question = shown(post(client, f"{path}/acknowledge", note="I restart it."))
        assert "Acknowledge this trouble?" in question
        assert "services.kyc was never heard of" in question
        assert trouble(db).acknowledged_by == ""
        post(client, f"{path}/acknowledge", note="I restart it.", sure="yes")
        said = "ada looks after it since"
        assert said in shown(client.get(path))
        assert "I restart it." in shown(client.get("/troubles"))
        until(lambda: said in shown(client.get("/")), "it is on the overview")
        assert "Mute this trouble for eight hours?" in shown(post(client, f"{path}/mute", **EIGHT))
        post(client, f"{path}/mute", **EIGHT, sure="yes")
        assert "Muted by ada until" in shown(client.get(path))
        post(client, f"{path}/mute", **{"for": "end"}, sure="yes")
        assert "Muted by ada until it ends" in shown(client.get(path))
        assert "Unmute this trouble?" in shown(post(client, f"{path}/unmute"))
        post(client, f"{path}/unmute", sure="yes")
        assert "Muted by" not in shown(client.get(path))
        assert post(client, f"{path}/mute", **{"for": "ever"}).status_code == 400
    rows = db.query(OutboxMessage).filter_by(type=OpsTroubleChanged.TYPE)
    facts = [decode(row.type, row.body) for row in rows.order_by(OutboxMessage.sequence)]
    assert [(fact.by, fact.action, fact.trouble) for fact in facts] == [
        ("ada", "acknowledged", KEY),
        ("ada", "muted", KEY),
        ("ada", "muted", KEY),
        ("ada", "unmuted", KEY),
    ]


EIGHT = {"for": "8h"}


def test_who_watches_looks_after_one_and_silences_none(console, db):
    path = f"/troubles/{trouble(db).id}"
    with signed_in(console, db, "watch") as client:
        assert "Mute" not in shown(client.get(path))
        assert post(client, f"{path}/mute", **EIGHT, sure="yes").status_code == 403
        post(client, f"{path}/acknowledge", sure="yes")
    assert trouble(db).acknowledged_by == "ada"
    assert trouble(db).muted_by == ""
