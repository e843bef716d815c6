"""Facts in, emails out: a real consumer, a real mail server."""

import shutil
import ssl
import subprocess
from contextlib import closing

import msgspec
import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult
from sqlalchemy import select
from sqlalchemy.orm import Session

from services.notifier.__main__ import wire
from services.notifier.bounds import OF_A_KIND, Bounds
from services.notifier.handlers import Notifier
from services.notifier.mail.mailer import Mailer
from services.notifier.mail.outgoing import Outgoing, UndeliverableError
from services.ops.console.pages.overview import tiles
from services.ops.console.pages.runbook import section
from services.ops.monitoring.snapshot import SnapshotCollector
from shared.bus.contract import topology
from shared.bus.contract.errors import Hold, Retry
from shared.bus.contract.message import message_for
from shared.db.models import EmailDelivery
from shared.db.session import transaction
from shared.ids import new_id
from stack.mailbox import Handler, Maildir, MailServer, in_thread, text_of
from stack.servers.ports import Port
from tests.integration.arrange import (
    PATIENCE,
    consuming,
    depth,
    headers,
    publish,
    received,
    take,
    until,
)
from tests.integration.arrange import facts as facts_of
from tests.unit.notifier.facts import CODE, FACTS


@pytest.fixture
def config(settings, configure, mailbox):
    return configure(smtp_port=str(mailbox.port), smtp_timeout="5")


def order_fact(**changes):
    values = {"order_id": new_id()} | changes
    return msgspec.structs.replace(FACTS["order_received"], **values)


def tell(amqp_url, *facts):
    messages = [
        message_for(
            fact,
            source="tests",
            correlation_id=getattr(fact, "order_id", None) or fact.account_id,
        )
        for fact in facts
    ]
    publish(amqp_url, *messages)
    return messages


def notifying(config):
    return consuming(config, *wire(config).subscriptions)


def deliveries(engine):
    with engine.connect() as connection:
        return connection.execute(select(EmailDelivery.__table__)).mappings().all()


def facts(engine):
    with Session(engine) as session:
        return facts_of(session)


def send(mailer, *emails):
    """Send emails; returns what became of each."""
    sending = mailer.send(emails)
    assert sending.wait(PATIENCE)
    return [sending.outcome(number) for number in range(len(emails))]


def test_every_fact_of_interest_arrives_as_one_email(config, mailbox, engine, amqp_url):
    tell(amqp_url, *FACTS.values())
    with notifying(config):
        until(lambda: len(deliveries(engine)) == len(FACTS), "all sent")
    emails = mailbox.maildir.emails()
    assert len(emails) == len(FACTS)
    assert {row["template"] for row in deliveries(engine)} == set(FACTS)
    assert {row["message_id"] for row in deliveries(engine)} == {e["Message-ID"] for e in emails}
    for email in emails:
        assert email.get_content_type() == "multipart/alternative"
        assert text_of(email)
        assert email["Auto-Submitted"] == "auto-generated"
    (code,) = [e for e in emails if e["Subject"] == "Your Order Fellow code"]
    assert CODE in text_of(code)


def test_no_email_carries_a_secret(config, mailbox, engine, amqp_url):
    tell(amqp_url, *FACTS.values())
    with notifying(config):
        until(lambda: len(deliveries(engine)) == len(FACTS), "all sent")
    emails = mailbox.maildir.emails()
    assert len(emails) == len(FACTS)
    for email in emails:
        assert b"whsk_" not in email.as_bytes()
        assert b"whsec_" not in email.as_bytes()


def test_a_redelivered_fact_is_told_once(config, mailbox, engine, amqp_url):
    messages = tell(amqp_url, *(order_fact() for _ in range(20)))
    publish(amqp_url, *messages, *messages)
    with notifying(config), notifying(config):
        until(lambda: len(deliveries(engine)) == 20, "all sent")
    publish(amqp_url, *messages)
    with notifying(config):
        pass
    assert len(mailbox.maildir.emails()) == 20


def test_one_person_gets_so_many_emails_of_one_account_and_no_more(
    config, configure, mailbox, engine, amqp_url
):
    """Whoever may send orders must not be able to fill anybody's mailbox."""
    bounded = configure(recipient_emails_per_day="3", email_batch_size="1")
    business, others = new_id(), new_id()
    told = [(business, "zoe@shop.example"), (business, "ZOE@shop.example")] * 4
    told += [(others, "zoe@shop.example"), (business, "bola@shop.example")]
    tell(amqp_url, *(order_fact(account_id=of, customer_email=to) for of, to in told))
    with notifying(bounded):
        until(lambda: len(deliveries(engine)) == len(told), "all are written down")
    states = [row["state"] for row in deliveries(engine)]
    assert (states.count("sent"), states.count("undeliverable")) == (3 + 2, 5)
    refused = {row["response"] for row in deliveries(engine) if row["state"] == "undeliverable"}
    assert refused == {"550 not sent: 3 emails a day are what one address gets of you"}
    assert len(mailbox.maildir.emails()) == 5
    # Nobody is to look into it: that is what was asked for.
    assert depth(amqp_url, topology.NOTIFIER_ORDERS.dead) == 0


def test_a_business_gets_so_many_emails_of_a_kind_and_a_code_waits_for_none(
    config, mailbox, engine, amqp_url
):
    """Whoever is signed in can change a setting again and again; codes go by the same queue."""
    changed = msgspec.structs.replace(
        FACTS["account_changed"], what="display_name_changed", value="ours"
    )
    others = msgspec.structs.replace(changed, account_id=new_id())
    told = [changed] * (OF_A_KIND + 15)
    password = msgspec.structs.replace(changed, what="password_changed")
    told += [password, FACTS["one_time_code"], others]
    told += [FACTS["one_time_code"]] * OF_A_KIND
    tell(amqp_url, *told)
    with notifying(config):
        until(lambda: len(deliveries(engine)) == len(told), "all are written down")
    found = [(row["template"], row["state"]) for row in deliveries(engine)]
    refused = found.count(("account_changed", "undeliverable"))
    # What is sent at once is counted when it is out.
    assert 0 < refused <= 15
    assert found.count(("account_changed", "sent")) == OF_A_KIND + 15 - refused + 2
    assert found.count(("one_time_code", "sent")) == 1 + OF_A_KIND
    assert depth(amqp_url, topology.NOTIFIER_URGENT.dead) == 0


def test_what_the_mail_server_does_not_take_yet_uses_nothing_up(config, mailbox, engine, amqp_url):
    notifier = Notifier(
        Mailer(config, 1, "no-reply@order-fellow.example"), "a@b.example", Bounds(2)
    )
    batch = [received(order_fact(account_id=new_id())) for _ in range(2)]
    mailbox.handler.respond = lambda _: "451 4.7.1 later"
    for _ in range(5):
        with transaction() as session:
            assert len(notifier(session, batch)) == 2
    mailbox.handler.respond = None
    with transaction() as session:
        assert not notifier(session, batch)
    assert len(mailbox.maildir.emails()) == 2


def test_a_second_try_after_a_rollback_sends_no_second_email(config, mailbox, engine):
    mailer = Mailer(config, 2, "no-reply@order-fellow.example")
    notifier = Notifier(mailer, config.email_from, Bounds(500))
    batch = [received(order_fact()) for _ in range(5)]

    def once():
        with transaction() as session:
            notifier(session, batch)
            raise RuntimeError("the commit fails")

    with pytest.raises(RuntimeError):
        once()
    with transaction() as session:
        assert not notifier(session, batch)
    assert len(mailbox.maildir.emails()) == 5
    assert len(deliveries(engine)) == 5


def test_a_refused_recipient_is_dead_and_known_and_harms_no_neighbour(
    config, mailbox, engine, amqp_url
):
    mailbox.handler.respond = lambda address: "550 no such user" if "gone" in address else None
    gone = order_fact(customer_email="gone@shop.example")
    tell(amqp_url, order_fact(), gone, order_fact())
    with notifying(config):
        until(lambda: len(deliveries(engine)) == 3, "all settled")
    assert len(mailbox.maildir.emails()) == 2
    dead = take(amqp_url, topology.NOTIFIER_ORDERS.dead)
    assert "550 no such user" in headers(dead)["x-reason"]
    states = {row["recipient"]: (row["state"], row["response"]) for row in deliveries(engine)}
    assert states["gone@shop.example"] == ("undeliverable", "550 no such user")
    (fact,) = facts(engine)
    assert (fact.TYPE, fact.smtp_code) == ("email.undeliverable", 550)
    assert "gone@" not in fact.reason


def test_a_server_that_refuses_all_for_good_is_a_trouble_that_people_are_told_of(
    config, mailbox, amqp_url, database_url
):
    """Nothing waits then: every queue is empty, and as many emails are written down as ever."""

    async def refuse(*_):
        return "550 5.7.1 policy"

    mailbox.handler.handle_DATA = refuse
    tell(amqp_url, *(order_fact() for _ in range(30)))
    with notifying(config):
        until(lambda: depth(amqp_url, topology.NOTIFIER_ORDERS.dead) == 30, "dead")
    console = msgspec.structs.replace(config, amqp_url=amqp_url, database_url=database_url)
    with closing(SnapshotCollector(console)) as looker:
        looks = looker.collect(), looker.collect()
    look = looks[-1]
    (trouble,) = [one for one in look.troubles if one.about == "mail"]
    assert (trouble.level, trouble.figure) == ("down", 30)
    assert trouble.text.startswith("Of the last 30 emails 30 were refused for good, the first of ")
    assert "“550 5.7.1 policy”" in trouble.text
    assert section(trouble.about, trouble.kind) == "EmailsRefused"
    (tile,) = [one for one in tiles(look, looks) if one.title == "Emailed"]
    assert (tile.more, tile.is_well) == ("30 of the last 30 refused for good", False)


def test_a_reply_with_a_nul_is_a_reply(config, mailbox, engine, amqp_url):
    """A relay may repeat whatever another server said; PostgreSQL takes no NUL."""
    mailbox.handler.respond = lambda _: "550 5.1.1 no \0such\x1b user"
    tell(amqp_url, order_fact())
    with notifying(config):
        until(lambda: depth(amqp_url, topology.NOTIFIER_ORDERS.dead) == 1, "dead")
    (row,) = deliveries(engine)
    assert (row["state"], row["response"]) == ("undeliverable", "550 5.1.1 no such user")


def test_a_refused_recipient_may_be_replayed_when_it_is_mended(config, mailbox, engine, amqp_url):
    mailbox.handler.respond = lambda _: "550 no such user"
    (message,) = tell(amqp_url, order_fact())
    with notifying(config):
        until(lambda: depth(amqp_url, topology.NOTIFIER_ORDERS.dead) == 1, "dead")
    mailbox.handler.respond = None
    publish(amqp_url, message)
    with notifying(config):
        until(lambda: len(mailbox.maildir.emails()) == 1, "sent")
    (row,) = deliveries(engine)
    assert row["state"] == "sent"


@pytest.mark.usefixtures("retried_late")
def test_what_is_refused_for_now_comes_back(config, mailbox, engine, amqp_url):
    mailbox.handler.respond = lambda _: "451 try again later"
    tell(amqp_url, order_fact())
    with notifying(config):
        until(lambda: depth(amqp_url, "retry.1h") == 1, "on the ladder")
    assert deliveries(engine) == []
    assert depth(amqp_url, topology.NOTIFIER_ORDERS.dead) == 0


def test_a_mail_server_that_is_away_blames_no_message(
    settings, configure, tmp_path, engine, amqp_url
):
    server = MailServer(tmp_path / "late")
    config = configure(smtp_port=str(server.port), smtp_timeout="5")
    tell(amqp_url, *(order_fact() for _ in range(10)))
    with notifying(config) as consumers:
        until(lambda: any(c.standing.status.lacks == "mail" for c in consumers), "it waits")
        assert depth(amqp_url, topology.NOTIFIER_ORDERS.name) == 10
        server.start()
        try:
            until(lambda: len(deliveries(engine)) == 10, "all sent")
        finally:
            server.stop()
    assert len(server.maildir.emails()) == 10


def test_a_connection_that_the_server_closed_is_opened_again(config, mailbox):
    mailer = Mailer(config, 1, "no-reply@order-fellow.example")
    assert send(mailer, Outgoing("a@shop.example", b"Subject: 1\r\n\r\n1\r\n")) == [None]
    mailbox.stop()
    assert isinstance(send(mailer, Outgoing("a@shop.example", b"x"))[0], Hold)
    mailbox.start()
    assert send(mailer, Outgoing("a@shop.example", b"Subject: 2\r\n\r\n2\r\n")) == [None]
    mailbox.stop()
    mailbox.start()
    # The old connection is gone, which is noticed before anything is lost.
    assert send(mailer, Outgoing("a@shop.example", b"Subject: 3\r\n\r\n3\r\n")) == [None]
    assert len(mailbox.maildir.emails()) == 3


def test_lines_of_one_dot_arrive(config, mailbox):
    mailer = Mailer(config, 1, "no-reply@order-fellow.example")
    send(
        mailer,
        Outgoing("a@shop.example", b"Subject: dots\r\n\r\nbefore\r\n.\r\n..\r\nafter\r\n"),
    )
    (email,) = mailbox.maildir.emails()
    assert email.get_content().split() == ["before", ".", "..", "after"]


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ("421 closing", Retry),
        ("450 busy", Retry),
        ("552 mailbox full", UndeliverableError),
        ("553 bad name", UndeliverableError),
    ],
)
def test_what_an_answer_means(config, mailbox, reply, expected):
    mailer = Mailer(config, 1, "no-reply@order-fellow.example")
    content = b"Subject: x\r\n\r\nx\r\n"
    mailbox.handler.respond = lambda _: reply
    (error,) = send(mailer, Outgoing("a@shop.example", content))
    assert isinstance(error, expected)
    assert str(error) == reply
    mailbox.handler.respond = None
    assert send(mailer, Outgoing("a@shop.example", content)) == [None]


def test_connections_are_kept_and_are_as_many_as_configured(config, tmp_path):
    peers = set()

    class Counting(Handler):
        async def handle_EHLO(self, _, session, __, hostname, responses):  # noqa: N802
            peers.add(session.peer)
            session.host_name = hostname
            return responses

    port, counting = Port(), Counting(Maildir(tmp_path / "m"))
    server = in_thread(lambda n: Controller(counting, hostname="127.0.0.1", port=n), port)
    try:
        mailer = Mailer(
            msgspec.structs.replace(config, smtp_port=port.number),
            3,
            "no-reply@order-fellow.example",
        )
        content = b"Subject: x\r\n\r\nx\r\n"
        assert send(mailer, *[Outgoing("a@shop.example", content)] * 60) == [None] * 60
    finally:
        server.stop()
    assert 1 <= len(peers) <= 3


@pytest.fixture
def certificate(tmp_path):
    """A certificate for the name of this machine's loopback, and its own authority."""
    openssl = shutil.which("openssl")
    assert openssl, "openssl is needed (Debian's package openssl)"
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    subprocess.run(
        [
            *(openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
            *("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"),
            *("-keyout", str(key), "-out", str(cert)),
        ],
        check=True,
        capture_output=True,
    )
    return key, cert


@pytest.fixture
def secure_server(tmp_path, certificate):
    """A mail server that takes mail only from those who sign in over TLS."""
    key, cert = certificate
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(cert, key)

    def authenticate(_, __, ___, mechanism, data):
        ok = (data.login, data.password) == (b"fellow", b"s3cret")
        return AuthResult(success=ok, handled=ok)

    class Secure(Controller):
        def factory(self):
            return SMTP(
                self.handler,
                hostname="localhost",
                tls_context=context,
                require_starttls=True,
                authenticator=authenticate,
                auth_required=True,
            )

    port, handler = Port(), Handler(Maildir(tmp_path / "secure"))
    server = in_thread(lambda n: Secure(handler, hostname="127.0.0.1", port=n), port)
    yield port.number, handler.maildir
    server.stop()


def secure_config(config, port, **changes):
    values = {
        "smtp_host": "localhost",
        "smtp_port": port,
        "smtp_starttls": True,
        "smtp_username": "fellow",
        "smtp_password": "s3cret",
    }
    return msgspec.structs.replace(config, **(values | changes))


CONTENT = Outgoing("a@shop.example", b"Subject: x\r\n\r\nx\r\n")


def test_starttls_and_login(config, secure_server, certificate, monkeypatch):
    port, maildir = secure_server
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[1]))
    mailer = Mailer(secure_config(config, port), 1, "no-reply@order-fellow.example")
    assert send(mailer, CONTENT, CONTENT) == [None, None]
    assert len(maildir.emails()) == 2


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"smtp_password": "wrong"}, "Authentication"),
        ({"smtp_host": "127.0.0.1"}, "certificate verify failed"),
    ],
)
def test_a_wrong_password_or_certificate_holds(
    config, secure_server, certificate, monkeypatch, changes, word
):
    port, maildir = secure_server
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[1]))
    mailer = Mailer(secure_config(config, port, **changes), 1, "no-reply@order-fellow.example")
    (error,) = send(mailer, CONTENT)
    assert isinstance(error, Hold)
    assert word in str(error)
    assert maildir.emails() == []


def test_an_untrusted_certificate_holds(config, secure_server):
    port, _ = secure_server
    mailer = Mailer(secure_config(config, port), 1, "no-reply@order-fellow.example")
    (error,) = send(mailer, CONTENT)
    assert isinstance(error, Hold)
    assert "certificate verify failed" in str(error)
