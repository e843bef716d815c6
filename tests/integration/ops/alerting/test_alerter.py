"""Alerts to a real HTTP server and a real mail server, from troubles in a real database."""

import contextlib
import json
import socket
import threading
import time
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import structlog
from sqlalchemy import text

from services.ops.alerting import alerter, due
from services.ops.alerting.alerter import Alerter
from services.ops.alerting.channels import Mail, NotSentError, Webhook, channels
from services.ops.audit.actions import Actor
from services.ops.monitoring import episodes
from services.ops.monitoring.alerts import Trouble
from services.ops.monitoring.snapshot import Snapshot
from shared.db.models import OpsTrouble
from shared.db.session import transaction
from stack.mailbox import text_of
from tests.integration.arrange import PATIENCE, only_read, until
from tests.integration.ops.cli.test_cli import fellow
from tests.integration.ops.console.running import running_console
from tests.unit.ops.monitoring.samples import sample

SECRET = "/services/T0001/B0002/a-token-nobody-may-read"
MAIL = Trouble("down", "mail", "The mail server does not answer.", "away")
AWAY = Trouble("down", "database", "The database does not answer: it is gone", "away")
TEN = [Trouble("warning", f"q{n}", f"{n} dead letters in q{n} <&>", "dead") for n in range(9)]


@pytest.fixture
def service():
    return "ops"


class Hook:
    """An incoming webhook."""

    def __init__(self):
        self.got, self.status, self.headers = [], 200, {}
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                hook.got.append((self.path, json.loads(body)))
                self.send_response(hook.status)
                for name, value in hook.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def do_GET(self):
                hook.got.append((self.path, None))

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.base = f"http://127.0.0.1:{self.server.server_port}"
        self.url = f"{self.base}{SECRET}"
        self._thread = threading.Thread(target=self.server.serve_forever)
        self._thread.start()

    def stop(self):
        self.server.shutdown()
        self._thread.join()
        self.server.server_close()

    @property
    def texts(self):
        return [body["text"] for _, body in self.got]


@pytest.fixture
def hook():
    made = Hook()
    yield made
    made.stop()


@pytest.fixture
def config(settings, configure, mailbox, hook):
    return configure(
        smtp_host="127.0.0.1",
        smtp_port=str(mailbox.port),
        alert_email_to="ada@ops.example, ola@ops.example",
        alert_webhook_url=hook.url,
    )


class All:
    """The tellers of all channels."""

    def __init__(self, config):
        self.alerters = [Alerter(config, channel) for channel in channels(config)]

    def notify(self, snapshot):
        for all_alerters in self.alerters:
            all_alerters.notify(snapshot)


@pytest.fixture
def all_alerters(config):
    return All(config)


def snapshot(*troubles, ago=0, database_error=None):
    """A look some seconds ago, written down as the console does."""
    seen = replace(sample(0), at=datetime.now(UTC) - timedelta(seconds=ago))
    seen = replace(seen, database_error=database_error)
    if database_error is None:
        with transaction() as session:
            episodes.keep(session, [seen], troubles)
    return Snapshot(seen, {}, list(troubles), None)


def earlier(db, seconds):
    """Have been told so much earlier."""
    db.rollback()
    for row in db.query(OpsTrouble):
        row.told = {
            channel: said | {"at": _earlier(said["at"], seconds)}
            for channel, said in row.told.items()
        }
        row.began_at -= timedelta(seconds=seconds)
    db.commit()


def _earlier(time, seconds):
    return (datetime.fromisoformat(time) - timedelta(seconds=seconds)).isoformat()


def end(db):
    db.execute(text("UPDATE ops_troubles SET ended_at = now() WHERE ended_at IS NULL"))
    db.commit()


def test_ten_that_begin_at_once_are_one_message_on_each_channel(all_alerters, hook, mailbox, db):
    begun = snapshot(MAIL, *TEN, ago=30)
    all_alerters.notify(begun)
    assert (hook.got, mailbox.maildir.emails()) == ([], [])
    earlier(db, 60)
    for _ in range(3):
        all_alerters.notify(snapshot(MAIL, *TEN))
    ((path, body),) = hook.got
    assert path == SECRET
    assert list(body) == ["text"]
    assert body["text"].startswith("Order Fellow: 10 new: The mail server does not answer.\nNew:\n")
    assert "4 dead letters in q4 &lt;&amp;&gt;" in body["text"]
    (email,) = mailbox.maildir.emails()
    assert email["To"] == "ada@ops.example, ola@ops.example"
    assert email["Subject"] == "Order Fellow: 10 new: The mail server does not answer."
    assert email["Auto-Submitted"] == "auto-generated"
    for trouble in (MAIL, *TEN):
        assert trouble.text in text_of(email)


def test_a_workflow_of_teams_gets_a_card(hook, monkeypatch):
    """It answers 202 to whatever comes, and posts what has a card in it alone."""
    resolve, host = socket.getaddrinfo, "prod-01.westeurope.logic.azure.com"
    there = lambda name, *more, **options: resolve(  # noqa: E731
        "127.0.0.1" if name == host else name, *more, **options
    )
    monkeypatch.setattr(socket, "getaddrinfo", there)
    hook.status = 202
    url = f"http://{host}:{hook.server.server_port}{SECRET}"
    said = Webhook(url).send("Order Fellow: 1 new", "New:\n- down: [a link](x) <&>")
    assert said == f"{host} answered 202: that is before its flow has posted anything"
    ((_, message),) = hook.got
    # Who has built a workflow of their own posts that.
    assert message["text"].startswith("Order Fellow: 1 new\nNew:\n")
    (attached,) = message["attachments"]
    assert attached["contentType"] == "application/vnd.microsoft.card.adaptive"
    assert attached["content"]["type"] == "AdaptiveCard"
    runs = [run for block in attached["content"]["body"] for run in block["inlines"]]
    # In none that reads Markdown: what somebody wrote is no link.
    assert {run["type"] for run in runs} == {"TextRun"}
    words = [run["text"] for run in runs]
    assert words == ["Order Fellow: 1 new", "New:", "- down: [a link](x) <&>"]


def test_where_nobody_is_told_there_is_no_way_to_try(config):
    code, _, err = fellow(config, "alerts", "test", ALERT_EMAIL_TO="", ALERT_WEBHOOK_URL="")
    assert (code, err) == (
        2,
        "There is no channel: set ALERT_EMAIL_TO, ALERT_WEBHOOK_URL, or both.\n",
    )


@pytest.mark.parametrize(("status", "code"), [(200, 0), (410, 1)])
def test_a_way_can_be_tried(config, hook, mailbox, status, code):
    hook.status = status
    found, out, _ = fellow(config, "alerts", "test")
    assert found == code
    assert "email: 127.0.0.1 took it for 2 of 2 addresses" in out
    assert ("webhook: not sent: " in out) is bool(code)
    assert f"127.0.0.1 answered {status}" in out
    assert SECRET not in out
    assert len(mailbox.maildir.emails()) == len(hook.got) == 1


def test_a_reminder_then_nothing_once_it_is_acknowledged_then_its_end(all_alerters, hook, db):
    snapshot(MAIL, ago=90)
    all_alerters.notify(snapshot(MAIL))
    earlier(db, 4 * 3_600)
    all_alerters.notify(snapshot(MAIL))
    assert "Still there, and nobody has acknowledged it" in hook.texts[1]
    with transaction() as session:
        id_ = session.query(OpsTrouble.id).scalar()
        episodes.acknowledge(session, id_, Actor("ada", ""), "", datetime.now(UTC))
    earlier(db, 5 * 3_600)
    all_alerters.notify(snapshot(MAIL))
    assert len(hook.got) == 2
    end(db)
    for _ in range(2):
        all_alerters.notify(snapshot())
    assert [text.splitlines()[1] for text in hook.texts] == [
        "New:",
        "Still there, and nobody has acknowledged it:",
        "Over:",
    ]


def test_what_is_muted_is_silent(all_alerters, hook, mailbox, db):
    snapshot(MAIL, ago=90)
    with transaction() as session:
        id_ = session.query(OpsTrouble.id).scalar()
        episodes.mute(session, id_, Actor("ada", ""), None)
    all_alerters.notify(snapshot(MAIL))
    end(db)
    all_alerters.notify(snapshot())
    assert (hook.got, mailbox.maildir.emails()) == ([], [])


def test_of_two_consoles_one_tells(config, hook, mailbox, db):
    """While one sends, the other finds the lock held; afterwards it finds it told."""
    snapshot(MAIL, ago=90)
    entered, go = threading.Event(), threading.Event()

    class Slow(Webhook):
        def send(self, subject, text):
            entered.set()
            assert go.wait(PATIENCE)
            super().send(subject, text)

    slow = threading.Thread(target=Alerter(config, Slow(hook.url)).notify, args=(snapshot(MAIL),))
    slow.start()
    assert entered.wait(PATIENCE)
    other = Alerter(config, Webhook(hook.url))
    other.notify(snapshot(MAIL))
    assert hook.got == []
    go.set()
    slow.join()
    other.notify(snapshot(MAIL))
    assert len(hook.got) == 1


@pytest.mark.parametrize("status", [302, 307, 404, 500])
def test_a_redirect_is_not_followed_and_a_failure_is_no_success(hook, status):
    hook.status, hook.headers = status, {"Location": f"{hook.base}/elsewhere"}
    with pytest.raises(NotSentError, match=rf"127\.0\.0\.1 answered {status}"):
        Webhook(hook.url).send("a", "b")
    assert [path for path, _ in hook.got] == [SECRET]


def test_what_fails_is_tried_again_and_the_log_keeps_the_secret(
    all_alerters, hook, mailbox, db, monkeypatch
):
    snapshot(MAIL, ago=90)
    hook.status = 500
    with structlog.testing.capture_logs() as said:
        all_alerters.notify(snapshot(MAIL))
        # On one channel, whatever becomes of the other; and not again at once.
        all_alerters.notify(snapshot(MAIL))
    assert (len(hook.got), len(mailbox.maildir.emails())) == (1, 1)
    (failed,) = [line for line in said if line["event"] == "alert_not_sent"]
    assert (failed["channel"], failed["error"]) == ("webhook", "127.0.0.1 answered 500")
    assert "token" not in str(said)
    hook.status = 200
    monkeypatch.setattr(alerter.time, "monotonic", lambda: 1e12)
    all_alerters.notify(snapshot(MAIL))
    all_alerters.notify(snapshot(MAIL))
    assert (len(hook.got), len(mailbox.maildir.emails())) == (2, 1)


def later(monkeypatch, seconds):
    now = time.monotonic()
    monkeypatch.setattr(alerter.time, "monotonic", lambda: now + seconds)


def test_what_was_sent_and_cannot_be_noted_is_not_sent_again(
    all_alerters, hook, mailbox, db, engine, monkeypatch
):
    """The lock and the reading work, the writing does not; and the looks do not know it yet."""
    began = snapshot(MAIL, ago=90)
    db.rollback()
    with only_read(engine):
        for _ in range(3):
            all_alerters.notify(began)
            later(monkeypatch, 1e6)
        # Then they do.
        gone = replace(began.sample, database_error="it only reads")
        all_alerters.notify(replace(began, sample=gone))
    assert (len(hook.got), len(mailbox.maildir.emails())) == (1, 1)
    all_alerters.notify(snapshot(MAIL))
    assert (len(hook.got), len(mailbox.maildir.emails())) == (1, 1)
    (row,) = db.query(OpsTrouble).filter_by(key=MAIL.key)
    assert {name: said["what"] for name, said in row.told.items()} == {
        "email": "began",
        "webhook": "began",
    }


def test_a_connection_that_is_lost_while_it_is_sent_has_nobody_told_twice(
    config, hook, db, engine, monkeypatch
):
    class Losing(Webhook):
        def send(self, subject, text_):
            super().send(subject, text_)
            with engine.begin() as connection:
                connection.exec_driver_sql(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE state = "
                    "'idle in transaction' AND datname = current_database() "
                    "AND pid <> pg_backend_pid()"
                )

    snapshot(MAIL, ago=90)
    db.rollback()
    one = Alerter(config, Losing(hook.url))
    for _ in range(3):
        one.notify(snapshot(MAIL))
        later(monkeypatch, 1e6)
    assert len(hook.got) == 1
    assert db.query(OpsTrouble).one().told["webhook"]["what"] == "began"


class Dribbling:
    """A mail server whose greeting never ends: each of its bytes comes in time."""

    def __init__(self):
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self._stopping = threading.Event()
        self.is_met = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self):
        with contextlib.suppress(OSError):
            client, _ = self._listening.accept()
            self.is_met.set()
            with client:
                while not self._stopping.wait(0.1):
                    client.sendall(b"2")

    def stop(self):
        self._stopping.set()
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._thread.join()


def test_a_mail_server_that_never_comes_to_an_end_holds_up_nobody(
    config, configure, hook, monkeypatch, db
):
    monkeypatch.setattr(alerter, "ENOUGH", 0.5, raising=False)
    server = Dribbling()
    config = configure(smtp_port=str(server.port))
    snapshot(MAIL, ago=90)
    telling_ = threading.Thread(target=All(config).notify, args=(snapshot(MAIL),), daemon=True)
    try:
        telling_.start()
        until(lambda: hook.got, "the other way is used")
        assert server.is_met.is_set()
    finally:
        server.stop()
        telling_.join()


def test_what_gets_through_after_its_time_is_told(config, hook, monkeypatch, db):
    monkeypatch.setattr(alerter, "ENOUGH", 0.1)
    go = threading.Event()

    class Slow(Webhook):
        def send(self, subject, text):
            assert go.wait(PATIENCE)
            super().send(subject, text)

    one = Alerter(config, Slow(hook.url))
    snapshot(MAIL, ago=90)
    with structlog.testing.capture_logs() as said:
        for _ in range(2):
            one.notify(snapshot(MAIL))
            later(monkeypatch, 100)
    assert [line["error"] for line in said] == ["no end within 0.1 s"]
    go.set()
    one._sending.has_ended(30)
    one.notify(snapshot(MAIL))
    assert len(hook.got) == 1
    assert db.query(OpsTrouble).one().told["webhook"]["what"] == "began"


def test_a_refused_address_is_no_reason_to_mail_all_others_again(
    all_alerters, mailbox, db, monkeypatch
):
    mailbox.handler.respond = lambda to: "550 5.1.1 no such user" if to.startswith("ola") else None
    snapshot(MAIL, ago=90)
    with structlog.testing.capture_logs() as said:
        all_alerters.notify(snapshot(MAIL))
        monkeypatch.setattr(alerter.time, "monotonic", lambda: 1e12)
        all_alerters.notify(snapshot(MAIL))
    assert len(mailbox.maildir.emails()) == 1
    (refused,) = [line for line in said if line["event"] == "alert_address_refused"]
    assert (refused["address"], refused["code"]) == ("o•••@ops.example", 550)
    assert "ola@" not in str(said)


def test_it_is_not_told_when_every_address_is_refused(config, mailbox):
    mailbox.handler.respond = lambda _: "550 5.1.1 no such user"
    with pytest.raises(NotSentError, match="SMTPRecipientsRefused"):
        Mail(config).send("a", "b")


def test_what_was_taken_stays_taken_whatever_is_said_to_the_goodbye(config, mailbox):
    async def goodbye(*_):
        return "421 too busy to part"

    mailbox.handler.handle_QUIT = goodbye
    Mail(config).send("a", "b")
    assert len(mailbox.maildir.emails()) == 1


def test_who_does_not_answer_is_no_secret_either(config, hook, mailbox):
    hook.stop()
    mailbox.stop()
    for channel in (Webhook(hook.url), Mail(config)):
        with pytest.raises(NotSentError) as failed:
            channel.send("a", "b")
        assert "token" not in str(failed.value)
        assert str(failed.value).startswith("127.0.0.1: ")
    hook.server = ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    hook._thread = threading.Thread(target=hook.server.serve_forever)
    hook._thread.start()


def test_the_database_s_own_absence_is_told_and_its_end(all_alerters, hook, db):
    """From memory, by what was known before; nothing is told twice when it is back."""
    snapshot(MAIL, ago=90)
    all_alerters.notify(snapshot(MAIL))
    gone = snapshot(AWAY, MAIL, ago=90, database_error="it is gone")
    earlier_on(all_alerters, 90)
    for _ in range(3):
        all_alerters.notify(gone)
    assert len(hook.got) == 2
    assert "The database does not answer" in hook.texts[1]
    assert "mail server" not in hook.texts[1]
    earlier_on(all_alerters, 90)
    all_alerters.notify(snapshot(MAIL))
    assert len(hook.got) == 2
    row = db.query(OpsTrouble).filter_by(key=AWAY.key).one()
    assert row.told["webhook"]["what"] == "began"
    end(db)
    earlier(db, 90)
    all_alerters.notify(snapshot())
    assert "Over:" in hook.texts[2]
    assert "The database does not answer" in hook.texts[2]
    assert len(hook.got) == 3


LETTERS = Trouble("warning", "orders.intake", "3 dead letters in orders.intake", "dead letters", 3)


def snapshots_without_database(*seen_ago):
    """Every ten seconds of the last two minutes, with a trouble at some of them."""
    now, samples = datetime.now(UTC), []
    for ago in range(120, -1, -10):
        gone = {"beats": None, "database_error": "it is gone"}
        samples.append(replace(sample(0), at=now - timedelta(seconds=ago), **gone))
        found = [AWAY, LETTERS] if ago in seen_ago else [AWAY]
        yield Snapshot(samples[-1], {}, found, None, {}, tuple(samples))


def test_what_recovered_while_the_database_was_away_is_not_told_as_new(configure, config, hook):
    config = configure(alert_email_to="", alert_after_seconds="3600")
    all_alerters = All(config)
    for seen in snapshots_without_database(80, 70):
        all_alerters.notify(seen)
    (one,) = all_alerters.alerters
    for key, known in one._open.items():
        one._open[key] = replace(known, began_at=known.began_at - timedelta(hours=2))
    all_alerters.notify(seen)
    assert len(hook.texts) == 1
    assert AWAY.text in hook.texts[0]
    assert LETTERS.text not in hook.texts[0]


def test_the_end_of_what_was_told_is_told_without_the_database_too(
    configure, config, hook, db, monkeypatch
):
    monkeypatch.setattr(due, "SPACING", timedelta(0))
    all_alerters = All(configure(alert_email_to="", alert_after_seconds="0.001"))
    all_alerters.notify(snapshot(LETTERS, ago=121))
    assert LETTERS.text in hook.texts[0]
    for seen in snapshots_without_database(120, 110):
        all_alerters.notify(seen)
    (over,) = [told for told in hook.texts if "Over:" in told]
    assert LETTERS.text in over
    assert AWAY.text not in over
    # It is back, and so are the letters, of which everybody has heard that they are over.
    for _ in range(3):
        all_alerters.notify(snapshot(LETTERS))
    row = db.query(OpsTrouble).filter_by(key=LETTERS.key, ended_at=None).one()
    assert row.told["webhook"]["what"] == "began"
    assert len([told for told in hook.texts if "New:" in told and LETTERS.text in told]) == 2


def test_a_stamp_of_a_wrong_clock_silences_no_channel(configure, config, hook, db):
    all_alerters = All(configure(alert_email_to="", alert_after_seconds="0.001"))
    all_alerters.notify(snapshot(LETTERS, ago=1))
    assert len(hook.texts) == 1
    ahead = "jsonb_set(told, '{webhook,at}', to_jsonb(now() + interval '1 day'))"
    assert db.execute(text(f"UPDATE ops_troubles SET told = {ahead}")).rowcount == 1
    db.commit()
    all_alerters.notify(snapshot(LETTERS))
    assert len(hook.texts) == 2
    all_alerters.notify(snapshot(LETTERS))
    assert len(hook.texts) == 2, "it is stamped by the right one now"


def earlier_on(all_alerters, seconds):
    """What it remembers to have told was so much earlier."""
    for an_alerter in all_alerters.alerters:
        for key, one in an_alerter._open.items():
            said = {
                channel: of | {"at": _earlier(of["at"], seconds)}
                for channel, of in one.told.items()
            }
            an_alerter._open[key] = replace(one, told=said)


@contextmanager
def alerting_console(tmp_path, amqp_url, database_url, mailbox, hook):
    given = {
        "SMTP_PORT": str(mailbox.port),
        "ALERT_EMAIL_TO": "ada@ops.example",
        "ALERT_WEBHOOK_URL": hook.url,
        "ALERT_AFTER_SECONDS": "1",
    }
    with running_console(tmp_path, amqp_url, database_url, **given):
        yield


def test_the_console_tells(settings, tmp_path, amqp_url, database_url, mailbox, hook):
    """Nothing runs beside it: that is a line for each service and queue, and one message."""
    with alerting_console(tmp_path, amqp_url, database_url, mailbox, hook):
        until(lambda: hook.got and mailbox.maildir.emails(), "it is told")
    (text_,) = hook.texts
    assert "services.orders was never heard of: start it" in text_
    assert "kyc.decisions has no consumer" in text_
    (email,) = mailbox.maildir.emails()
    assert "services.orders was never heard of" in text_of(email)
    assert SECRET not in (tmp_path / "console.log").read_text()
