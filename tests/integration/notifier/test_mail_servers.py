"""What mail servers say and do not say, by one that says what it is told to."""

import socket
import threading
import time
from contextlib import contextmanager
from datetime import datetime
from socketserver import StreamRequestHandler, ThreadingTCPServer

import msgspec
import pytest

from services.notifier import handlers
from services.notifier.__main__ import wire
from services.notifier.mail import client
from services.notifier.mail.connection import MailConnection, Reach
from services.notifier.mail.mailer import Mailer
from services.notifier.mail.outgoing import Outgoing, SinkAwayError, UndeliverableError
from shared.bus.contract.errors import Hold, Retry
from shared.synthetic import DOMAIN
from tests.integration.arrange import PATIENCE, consuming, until
from tests.integration.notifier.test_once import on_the_ladder, recipients
from tests.integration.notifier.test_sending import deliveries, send, tell
from tests.unit.notifier.facts import FACTS

CONTENT = Outgoing("a@shop.example", b"Subject: x\r\n\r\nx\r\n")
SILENT = "nothing"  # until the test is over


class Conversation(StreamRequestHandler):
    """One connection; `server.says` may say something else than what is usual."""

    disable_nagle_algorithm = True

    def handle(self):
        self.server.conversations.append(self)
        self.mails = 0
        if not self.say("greeting", "220 hello"):
            return
        for line in self.rfile:
            verb = line[:4].decode().upper().strip()
            usual = {
                "EHLO": "250-here\r\n250 PIPELINING" if self.server.pipelines else "250 here",
                "DATA": "354 go on",
                "QUIT": "221 bye",
            }
            self.mails += verb == "MAIL"
            if verb == "MAIL":
                self.recipient = ""
            if verb == "RCPT":
                self.recipient = line.decode().partition("<")[2].partition(">")[0]
            if not self.say(verb, usual.get(verb, "250 ok")):
                return
            if verb == "DATA" and self.said.startswith("3"):
                while self.rfile.readline() not in (b".\r\n", b""):
                    pass
                self.server.taken.append(self.recipient)
                if not self.say("content", "250 taken"):
                    return

    def say(self, moment, usual):
        """Returns whether the conversation goes on."""
        said = self.server.says(moment, self)
        self.said = usual if said is None else said
        if self.said == SILENT:
            self.server.over.wait()
            return False
        self.wfile.write(self.said.encode() + b"\r\n")
        return True

    def leave(self, word):
        self.wfile.write(word.encode() + b"\r\n")
        self.connection.shutdown(socket.SHUT_WR)
        self.server.left += 1


class Server(ThreadingTCPServer):
    daemon_threads = True
    pipelines = False

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Conversation)
        self.conversations, self.taken, self.left = [], [], 0
        self.over = threading.Event()
        self.says = lambda moment, conversation: None

    def handle_error(self, *_):
        """Whoever drops a connection may."""


@pytest.fixture
def server():
    with Server() as opened:
        thread = threading.Thread(target=opened.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        yield opened
        opened.over.set()
        opened.shutdown()
        thread.join()


@pytest.fixture
def alone(configure, server):
    """Settings for mail alone."""
    return configure(smtp_port=str(server.server_address[1]), smtp_timeout="5")


@pytest.fixture
def config(settings, configure, server):
    return configure(smtp_port=str(server.server_address[1]), smtp_timeout="5")


@pytest.fixture
def brisk(monkeypatch):
    monkeypatch.setattr(handlers, "RECORD_SECONDS", 0.5)
    monkeypatch.setattr(client, "THINKING_SECONDS", 0.5)


def mailer(config):
    return Mailer(config, 1, "no-reply@order-fellow.example")


@contextmanager
def sink():
    with Server() as opened:
        thread = threading.Thread(target=opened.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        yield opened
        opened.shutdown()
        thread.join()


@pytest.mark.parametrize("word", ["451 4.4.2 Timeout waiting for data from client.", "421 bye"])
@pytest.mark.parametrize("pipelines", [True, False])
def test_a_server_that_says_goodbye_to_who_is_idle_costs_no_attempt(alone, server, word, pipelines):
    """It half closes; what it said lies there when the next email begins."""
    server.pipelines = pipelines
    given = mailer(alone)
    for number in range(3):
        assert send(given, CONTENT) == [None]
        server.conversations[-1].leave(word)
        assert server.left == number + 1
    assert len(server.conversations) == len(server.taken) == 3


def test_nor_does_it_cost_the_proof_an_attempt(alone, server):
    with sink() as opened:
        host, port = opened.server_address
        given = mailer(msgspec.structs.replace(alone, proof_sink=f"{host}:{port}"))
        for _ in range(2):
            assert send(given, CONTENT._replace(recipient=f"a@{DOMAIN}")) == [None]
            server.conversations[-1].leave("451 4.4.2 Timeout waiting for data from client.")
        assert len(opened.taken) == 2
    assert (len(server.conversations), server.taken) == (2, [])


def test_a_sink_that_hangs_delays_no_other_email(alone, server, monkeypatch):
    """Its emails are dropped without a connection each; it is tried again after a while."""
    waits = "services.notifier.mail.connection.SINK_SECONDS"
    with sink() as opened, monkeypatch.context() as brief:
        brief.setattr(waits, 0.5)
        opened.says = lambda *_: SILENT
        host, port = opened.server_address
        config = msgspec.structs.replace(alone, proof_sink=f"{host}:{port}")
        given = Mailer(config, 2, "no-reply@order-fellow.example")
        proof = CONTENT._replace(recipient=f"a@{DOMAIN}")
        *dropped, outcome = send(given, *([proof] * 40), CONTENT)
        assert outcome is None
        assert {type(error) for error in dropped} == {SinkAwayError}
        assert len(opened.conversations) <= 2
        opened.says = lambda *_: None
        brief.setattr(waits, PATIENCE)  # now it answers, however busy the machine is
        given._reach.sink_retry_at = time.monotonic()
        assert send(given, proof) == [None]
        assert send(given, proof, proof) == [None, None]
        opened.over.set()


@pytest.mark.parametrize("word", ["421 too many messages in this connection", "452 4.5.3 too many"])
@pytest.mark.parametrize("pipelines", [True, False])
def test_a_server_that_takes_so_many_emails_by_a_connection_is_asked_by_another(
    alone, server, word, pipelines
):
    def says(moment, conversation):
        if conversation.mails < 3:
            return None
        return word if moment == "MAIL" else None if moment == "RSET" else "503 no"

    server.says, server.pipelines = says, pipelines
    assert send(mailer(alone), *[CONTENT] * 6) == [None] * 6
    assert len(server.conversations) == 3


@pytest.mark.parametrize(
    ("moment", "word", "expected"),
    [
        ("MAIL", "421 4.7.0 Try again later, closing connection.", Hold),
        ("MAIL", "550 5.7.1 not you", Hold),
        ("RCPT", "550 5.7.1 we do not relay", UndeliverableError),
    ],
)
@pytest.mark.parametrize("pipelines", [True, False])
def test_a_refusal_is_heard_of_who_leaves_with_it(alone, server, moment, word, expected, pipelines):
    """What was said already, in one packet with it, has no reply of its own."""

    def says(about, conversation):
        if about != moment:
            return None
        conversation.leave(word)
        return SILENT

    server.says, server.pipelines = says, pipelines
    (outcome,) = send(mailer(alone), CONTENT)
    assert type(outcome) is expected
    assert word in str(outcome)


@pytest.mark.parametrize("moment", ["MAIL", "RCPT", "DATA", "content", "RSET"])
def test_a_server_that_does_not_answer_about_one_email_holds_up_no_other(
    alone, server, brisk, moment
):
    """Whatever it is asked: such as an unknown recipient, whom it looks for elsewhere."""
    known = []

    def says(about, conversation):
        if moment == "RSET" and about == "RCPT" and not known:
            known.append(conversation)
            return "550 no"
        if about == moment != "RSET" and not known:
            known.append(conversation)
            return SILENT
        return SILENT if about == moment and conversation in known else None

    server.says = says
    given = mailer(alone)
    first = given.send([CONTENT])
    until(lambda: known, "it does not answer")
    assert send(given, *[CONTENT] * 3) == [None] * 3
    assert not first.wait(0)


def test_codes_do_not_wait_for_who_is_looked_for(
    config, server, configure, brisk, engine, amqp_url
):
    config = configure(smtp_timeout="300")

    def says(moment, conversation):
        is_slow = moment == "RCPT" and conversation.recipient.startswith("slow")
        return SILENT if is_slow and not server.over.is_set() else None

    server.says = says
    code = FACTS["one_time_code"]
    named = [
        msgspec.structs.replace(code, email=f"{name}@kettle.example")
        for name in ("slow", "slow2", "slow3", "zoe", "ola")
    ]
    tell(amqp_url, *named)
    with consuming(config, *wire(config).subscriptions):
        until(lambda: len(deliveries(engine)) == 2, "the others")
        assert set(server.taken) == {"zoe@kettle.example", "ola@kettle.example"}
        server.over.set()


@pytest.mark.parametrize("moment", ["greeting", "EHLO", "MAIL", "content"])
@pytest.mark.parametrize("how", ["lines", "time", "one line"])
def test_a_reply_without_end_is_none(alone, server, moment, how):
    # What comes too fast, or is too long, is ended by its size; what drops in, by the clock alone.
    # Until then each of the other replies has to come in that time, on a busy machine too.
    seconds = 3.0 if how == "time" else PATIENCE
    config = msgspec.structs.replace(alone, smtp_timeout=seconds, smtp_content_timeout=seconds)

    def says(about, conversation):
        if about != moment:
            return None
        line = {"lines": b"250-more\r\n", "time": b"250-more\r\n", "one line": b"2" * 100}[how]
        try:
            while not server.over.wait(0.1 if how == "time" else 0):
                conversation.connection.sendall(line)
        except OSError:
            pass
        return SILENT

    server.says = says
    (outcome,) = send(mailer(config), CONTENT)
    assert isinstance(outcome, Hold if moment in ("greeting", "EHLO") else Retry)
    assert "no end of a reply" in str(outcome)
    server.over.set()


def test_a_machine_that_vanishes_while_it_is_written_to_is_noticed(alone):
    connection = MailConnection(alone, "no-reply@order-fellow.example", Reach())
    connection._connected(None)
    option = connection._smtp.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
    assert option == 30_000
    connection.close()


@pytest.mark.parametrize(
    ("moment", "reply", "expected"),
    [
        ("MAIL", "251 well", None),
        ("RCPT", "252 cannot say, but take it", None),
        ("DATA", "355 go on", None),
        ("content", "252 taken", None),
        ("content", "200 taken", None),
        ("MAIL", "550 5.7.1 not you", Hold),
        ("MAIL", "421 not now", Hold),
        ("DATA", "454 4.7.0 Throttling failure: Daily message quota exceeded", Hold),
        ("content", "454 4.7.0 Throttling failure: Maximum sending rate exceeded", Hold),
        ("content", "550 5.4.5 Daily sending quota exceeded", Hold),
        ("RCPT", "450 4.7.1 greylisted", Retry),
        ("content", "451 4.3.0 the filter stumbled", Retry),
        ("content", "451 4.7.1 come back", Retry),
        ("content", "421 4.3.2 closing", Retry),
        ("RCPT", "550 5.7.1 we do not relay", UndeliverableError),
        ("content", "550 5.7.1 that is spam", UndeliverableError),
    ],
)
@pytest.mark.parametrize("pipelines", [True, False])
def test_what_a_reply_means(alone, server, moment, reply, expected, pipelines):
    server.pipelines = pipelines
    server.says = lambda about, _: reply if about == moment else None
    (outcome,) = send(mailer(alone), CONTENT)
    assert type(outcome) is (type(None) if expected is None else expected)
    if expected is Hold:
        assert outcome.lacks == "mail"
    if expected is None:
        assert server.taken == ["a@shop.example"]


def test_a_look_does_not_say_that_our_sender_is_taken(alone, server, monkeypatch):
    """It greets, and signs in."""
    monkeypatch.setattr(client, "THINKING_SECONDS", 0)
    server.says = lambda moment, _: "451 4.7.1 too much mail of you" if moment == "MAIL" else None
    reach = Reach()
    connection = MailConnection(alone, "no-reply@order-fellow.example", reach)
    connection.check()
    assert reach.lacks() == ""
    with pytest.raises(Hold):
        connection.deliver(CONTENT, lambda: None)
    connection.check()
    assert reach.lacks() == "mail"
    server.says = lambda *_: None
    connection.deliver(CONTENT, lambda: None)
    assert reach.lacks() == ""
    connection.close()


def test_a_refusal_of_ours_burns_no_message(config, server, engine, amqp_url):
    asked, allowed = [], threading.Event()

    def says(moment, conversation):
        if moment != "MAIL" or allowed.is_set():
            return None
        asked.append(conversation)
        return "451 4.7.1 too much mail of you"

    server.says = says
    tell(amqp_url, *recipients(100))
    with consuming(config, *wire(config).subscriptions) as consumers:
        until(lambda: any(c.standing.status.lacks == "mail" for c in consumers), "it is said")
        until(lambda: len(asked) > config.smtp_connections, "it is asked again")
        assert on_the_ladder(amqp_url) == 0
        allowed.set()
        until(lambda: len(deliveries(engine)) == 100, "all are sent")
    assert on_the_ladder(amqp_url) == 0
    assert len(set(server.taken)) == len(server.taken) == 100


def test_a_server_that_is_silent_is_said_to_be_away_for_as_long_as_it_is(
    config, server, configure, brisk, engine, amqp_url
):
    config = configure(smtp_timeout="2")
    (orders,) = [s for s in wire(config).subscriptions if s.queue.name == "notifier.orders"]
    with consuming(config, orders) as (consumer,):
        until(lambda: server.conversations, "it is looked at")
        until(lambda: consumer.standing.status.state == "working", "and is there")
        server.says = lambda *_: None if server.over.is_set() else SILENT
        tell(amqp_url, *recipients(5))
        until(lambda: consumer.standing.status.lacks == "mail", "it is said")
        seen: set[tuple[str, datetime | None]] = set()
        before = len(server.conversations)

        def goes_on():
            seen.add((consumer.standing.status.lacks, consumer.standing.status.since))
            return len(server.conversations) >= before + 8

        until(goes_on, "it is tried again and again", PATIENCE)
        server.over.set()
        until(lambda: len(deliveries(engine)) == 5, "all are sent")
    assert len(seen) == 1
    assert consumer.standing.status.state == "working"
