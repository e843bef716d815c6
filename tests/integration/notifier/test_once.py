"""Each email once: whatever the mail server does, and whenever the notifier is stopped."""

import asyncio
import threading
from collections import Counter
from contextlib import contextmanager, suppress

import msgspec
import pytest
from kombu import Connection
from prometheus_client import REGISTRY
from sqlalchemy import select, text

from services.notifier import deliveries as email_rows
from services.notifier import handlers, leases
from services.notifier.__main__ import wire
from services.notifier.mail import client, mailer
from services.notifier.mail.connection import MailConnection
from services.notifier.mail.outgoing import Sending
from services.notifier.suppression import leaving
from shared import erased
from shared.bus.consume.consumer import Consumer
from shared.bus.consume.session import SUSPICIOUS_DELIVERIES
from shared.bus.contract import topology
from shared.bus.contract.errors import UnderWay
from shared.bus.contract.events import encode
from shared.db.models import EmailDelivery
from shared.db.session import transaction
from shared.security.unsubscribe_tokens import unsubscribe_tokens
from stack.mailbox import Handler
from tests.integration.arrange import PATIENCE, account, consuming, depth, join, publish, until
from tests.integration.gate import Gate
from tests.integration.notifier.test_leaving import recorded, told
from tests.integration.notifier.test_sending import deliveries, order_fact, tell
from tests.unit.notifier.facts import FACTS


class Moody(Handler):
    """A mail server that goes away after some emails, and thinks about those for some people.

    It goes between two emails, as one does that is restarted: whoever was told 250 was told.
    """

    goes_after = None
    thinks_of = "nobody"
    verdict = ""  # on these; taken where it is empty
    tarpits = "nobody"  # these it thinks about before it has the content

    def __init__(self, maildir):
        super().__init__(maildir)
        self.taken = 0
        self.thinking = threading.Event()
        self.decided = threading.Event()

    def is_away(self):
        return self.goes_after is not None and self.taken >= self.goes_after

    async def handle_EHLO(self, server, session, __, hostname, responses):  # noqa: N802
        if self.is_away():
            server.transport.abort()
        session.host_name = hostname
        return responses

    async def handle_MAIL(self, server, _, envelope, address, __):  # noqa: N802
        if self.is_away():
            server.transport.abort()
        envelope.mail_from = address
        return "250 OK"

    async def handle_RCPT(self, server, session, envelope, address, options):  # noqa: N802
        if address.startswith(self.tarpits):
            await asyncio.to_thread(self.decided.wait)
        return await super().handle_RCPT(server, session, envelope, address, options)

    async def handle_DATA(self, server, session, envelope):  # noqa: N802
        self.taken += 1
        answer = await super().handle_DATA(server, session, envelope)
        if envelope.rcpt_tos[0].startswith(self.thinks_of):
            self.thinking.set()
            await asyncio.to_thread(self.decided.wait)
            return self.verdict or answer
        return answer


@pytest.fixture
def server(mailbox):
    mailbox.stop()
    mailbox.handler = Moody(mailbox.maildir)
    mailbox.start()
    yield mailbox.handler
    mailbox.handler.decided.set()


@pytest.fixture
def config(settings, configure, mailbox, server):
    return configure(smtp_port=str(mailbox.port), smtp_timeout="5")


@pytest.fixture
def soon(monkeypatch):
    """What the mail server thinks about is known to be so after half a second, not after five."""
    monkeypatch.setattr(handlers, "RECORD_SECONDS", 0.5)
    monkeypatch.setattr(client, "THINKING_SECONDS", 0.5)


@pytest.fixture
def looks(monkeypatch):
    """What was looked up in the books, each time."""
    found, known = [], email_rows.known

    def look(session, emails):
        if emails:  # `keep` looks as well, from the start, for none
            found.append(emails)
        return known(session, emails)

    monkeypatch.setattr(email_rows, "known", look)
    return found


@pytest.fixture
def last_seconds(monkeypatch, request):
    """To be called before a stop, which then waits for it as long as ever."""
    as_ever = handlers.RECORD_SECONDS
    request.getfixturevalue("soon")
    return lambda: monkeypatch.setattr(handlers, "RECORD_SECONDS", as_ever)


@contextmanager
def one_notifier(config):
    """A notifier of order emails until it is stopped, in the middle of whatever it does."""
    stopping = threading.Event()
    (orders,) = [s for s in wire(config).subscriptions if s.queue.name == "notifier.orders"]
    consumer = Consumer(config.amqp_url, config.amqp_heartbeat, orders, stopping)
    thread = threading.Thread(target=consumer.run, daemon=True)
    thread.start()
    try:
        yield consumer
    finally:
        stopping.set()
        thread.join(PATIENCE)
        assert not thread.is_alive()


def on_the_ladder(amqp_url):
    return sum(depth(amqp_url, rung.name) for rung in topology.RETRY_DELAYS)


def notifying(config):
    return consuming(config, *wire(config).subscriptions)


def copies(server):
    """How many emails have come, by their Message-ID."""
    return Counter(email["Message-ID"] for email in server.maildir.emails())


def recipients(count):
    return [order_fact(customer_email=f"c{number}@shop.example") for number in range(count)]


def test_what_was_taken_is_written_down_while_the_rest_is_held(config, server, engine, amqp_url):
    server.goes_after = 20
    tell(amqp_url, *recipients(64))
    with notifying(config):
        until(lambda: len(deliveries(engine)) == server.taken >= 20, "all of them are written down")
        assert server.taken < 64
        server.goes_after = None
        until(lambda: len(deliveries(engine)) == 64, "all sent")
    assert set(copies(server).values()) == {1}


def test_a_clean_restart_while_the_mail_server_is_away_doubles_nothing(
    config, server, engine, amqp_url
):
    server.goes_after = 20
    tell(amqp_url, *recipients(64))
    with one_notifier(config):
        until(server.is_away, "the mail server has gone")
    # What was not sent goes back as it was, and nobody waits for it longer than the restart takes.
    until(lambda: depth(amqp_url, "notifier.orders") == 64 - server.taken, "given back")
    assert on_the_ladder(amqp_url) == 0
    server.goes_after = None
    with notifying(config):
        until(lambda: len(deliveries(engine)) == 64, "all sent")
    assert set(copies(server).values()) == {1}


def test_a_server_may_think_about_the_content_longer_than_about_a_command(
    config, server, configure, engine, amqp_url
):
    config = configure(smtp_timeout="2")
    server.thinks_of = "c0@"
    tell(amqp_url, *recipients(1))
    with notifying(config):
        until(server.thinking.is_set, "it has the content")
        threading.Timer(1.5 * config.smtp_timeout, server.decided.set).start()
        until(lambda: len(deliveries(engine)) == 1, "sent")
        assert on_the_ladder(amqp_url) == 0
    assert set(copies(server).values()) == {1}


def test_a_server_that_thinks_about_one_email_holds_up_no_other(
    config, server, engine, amqp_url, monkeypatch
):
    monkeypatch.setattr(handlers, "RECORD_SECONDS", 0.5)
    server.thinks_of = "c5@"
    tell(amqp_url, *recipients(64))
    with notifying(config):
        until(lambda: len(deliveries(engine)) == 63, "the others are sent and written down")
        server.decided.set()
        until(lambda: len(deliveries(engine)) == 64, "all")
    assert set(copies(server).values()) == {1}


@pytest.mark.parametrize("how", ["erased", "left"])
def test_what_is_not_begun_is_asked_about_again_before_it_is(
    config, db, server, engine, amqp_url, monkeypatch, how
):
    """Between two looks at the books nothing begins: who is gone by then is not mailed."""
    monkeypatch.setattr(handlers, "RECORD_SECONDS", 0.5)
    monkeypatch.setattr(client, "THINKING_SECONDS", 3600)
    looks, known = [], email_rows.known
    monkeypatch.setattr(email_rows, "known", lambda *a: looks.append(a) or known(*a))
    business = account(db, status="approved")
    server.thinks_of = tuple(f"c{number}@" for number in range(config.smtp_connections))
    orders = [recorded(db, business, f"c{number}@shop.example")[1] for number in range(8)]
    last = orders[-1]
    tell(amqp_url, *(told("order_status", order) for order in orders))
    with notifying(config):
        until(
            lambda: len(leases_in(engine)) >= config.smtp_connections, "the first are thought about"
        )
        until(lambda: len(looks[-1][1]) == 8, "and the others wait for their turn")
        if how == "erased":
            last.customer_email = erased.ADDRESS
        else:
            links = unsubscribe_tokens()
            leaver = links.read(links.make(last.account_id, last.id, last.customer_email))
            leaving.leave(db, leaver, "order")
        db.commit()
        seen = len(looks)
        until(lambda: len(looks) >= seen + 2, "whoever looked before that has ended")
        server.decided.set()
        until(lambda: depth(amqp_url, "notifier.orders") == 0, "all is settled")
        until(lambda: len(deliveries(engine)) >= 7, "and written down")
    assert set(copies(server).values()) == {1}
    assert len(copies(server)) == 7
    assert not [email for email in server.maildir.emails() if "c7@" in email["To"]]


def leases_in(engine):
    with engine.connect() as connection:
        return connection.execute(text("SELECT fact_id FROM email_leases")).all()


@pytest.mark.usefixtures("soon")
def test_a_server_that_thinks_about_one_email_holds_up_no_later_one(
    config, server, engine, amqp_url
):
    server.thinks_of = "c5@"
    tell(amqp_url, *recipients(300))
    with notifying(config):
        until(lambda: len(deliveries(engine)) == 299, "what came with it and what came after")
        tell(amqp_url, order_fact(customer_email="later@shop.example"))
        until(lambda: len(deliveries(engine)) == 300, "and what came much later")
        server.decided.set()
        until(lambda: len(deliveries(engine)) == 301, "all")
    assert set(copies(server).values()) == {1}


@pytest.mark.usefixtures("soon")
def test_a_server_that_thinks_about_as_many_as_there_are_connections_holds_up_no_other(
    config, server, engine, amqp_url
):
    thinks = 2 * config.smtp_connections
    server.thinks_of = tuple(f"c{number}@" for number in range(thinks))
    tell(amqp_url, *recipients(100))
    with notifying(config):
        until(lambda: len(deliveries(engine)) == 100 - thinks, "the others")
        server.decided.set()
        until(lambda: len(deliveries(engine)) == 100, "all")
    assert set(copies(server).values()) == {1}


@pytest.mark.usefixtures("soon")
def test_an_email_that_is_thought_about_at_each_restart_holds_up_no_other(
    config, server, engine, amqp_url
):
    """Delivered so often without an answer it might kill its consumer, and is begun alone."""
    server.thinks_of = "c0@"
    tell(amqp_url, *recipients(1))
    for _ in range(SUSPICIOUS_DELIVERIES):
        with Connection(amqp_url) as connection:
            assert connection.default_channel.basic_get("notifier.orders")
        until(lambda: depth(amqp_url, "notifier.orders") == 1, "given back")
    tell(amqp_url, *recipients(20)[1:])
    with notifying(config):
        until(lambda: len(deliveries(engine)) == 19, "the others")
        server.decided.set()
        until(lambda: len(deliveries(engine)) == 20, "all")
    assert set(copies(server).values()) == {1}


@pytest.mark.parametrize("thinks", [1, 25])
def test_codes_do_not_wait_for_those_that_a_server_thinks_about(
    config, server, engine, amqp_url, monkeypatch, thinks
):
    """They have a single connection; many are what a registration for each at a tarpit makes."""
    monkeypatch.setattr(handlers, "RECORD_SECONDS", 0.5)
    monkeypatch.setattr(client, "THINKING_SECONDS", 0.2)
    server.thinks_of = "slow"
    code = FACTS["one_time_code"]
    *slow, zoe, ola = [
        msgspec.structs.replace(code, email=f"{name}@kettle.example")
        for name in (*(f"slow{number}" for number in range(thinks)), "zoe", "ola")
    ]
    tell(amqp_url, *slow)
    with notifying(config):
        until(lambda: len(leases_in(engine)) == thinks, "it thinks of all of them")
        tell(amqp_url, zoe, ola)
        until(lambda: len(deliveries(engine)) == 2, "the others")
        server.decided.set()
        until(lambda: len(deliveries(engine)) == thinks + 2, "all")


@pytest.mark.usefixtures("soon", "retried_soon")
@pytest.mark.parametrize("amid", ["the address", "the content"])
def test_codes_do_not_wait_for_more_addresses_than_a_server_may_think_about(
    server, configure, mailbox, engine, amqp_url, monkeypatch, looks, amid
):
    """What it was given no content of makes way, and comes again; what it was never goes twice."""
    monkeypatch.setattr(mailer, "MOST_SLOW", 3)
    config = configure(smtp_port=str(mailbox.port), smtp_timeout="3600")
    setattr(server, "tarpits" if amid == "the address" else "thinks_of", "slow")
    code = FACTS["one_time_code"]
    *slow, zoe, ola = [
        msgspec.structs.replace(code, email=f"{name}@kettle.example")
        for name in (*(f"slow{number}" for number in range(4)), "zoe", "ola")
    ]
    tell(amqp_url, *slow)
    with notifying(config):
        until(lambda: len(leases_in(engine)) == len(slow), "no thread is left")
        tell(amqp_url, zoe, ola)
        if amid == "the address":
            until(lambda: len(deliveries(engine)) == 2, "the others")
        else:
            until(lambda: {e.recipient for e in looks[-1]} >= {zoe.email, ola.email}, "in hand")
            seen = len(looks)
            until(lambda: len(looks) > seen + 2, "and asked about again and again")
            assert on_the_ladder(amqp_url) == 0
        server.decided.set()
        until(lambda: len(deliveries(engine)) == len(slow) + 2, "all")
    assert set(copies(server).values()) == {1}


@pytest.mark.usefixtures("retried_soon")
def test_an_email_that_fails_in_an_unforeseen_way_is_tried_again(
    config, server, engine, amqp_url, monkeypatch
):
    deliver, failed = MailConnection.deliver, []

    def fail_at_first(self, email, thinks):
        if email.recipient not in failed:
            failed.append(email.recipient)
            raise AttributeError("unforeseen")
        deliver(self, email, thinks)

    monkeypatch.setattr(MailConnection, "deliver", fail_at_first)
    tell(amqp_url, *recipients(10))
    with notifying(config):
        until(lambda: len(deliveries(engine)) == 10, "all")
    assert set(copies(server).values()) == {1}


def test_an_answer_that_comes_between_two_looks_is_not_forgotten(
    config, server, engine, amqp_url, monkeypatch
):
    monkeypatch.setattr(handlers, "RECORD_SECONDS", 0.5)
    server.thinks_of = "c5@"
    look = Sending.outcome

    def look_before_it_answers(self, number):
        outcome = look(self, number)
        if isinstance(outcome, UnderWay):
            server.decided.set()
            assert self.wait(PATIENCE)
        return outcome

    monkeypatch.setattr(Sending, "outcome", look_before_it_answers)
    tell(amqp_url, *recipients(64))
    with notifying(config):
        until(lambda: len(deliveries(engine)) == 64, "all")
        until(lambda: depth(amqp_url, "notifier.orders") == 0, "and told the broker")
    assert set(copies(server).values()) == {1}


def test_a_clean_stop_gives_an_email_that_is_under_way_for_long_its_last_seconds(
    config, server, engine, amqp_url, last_seconds
):
    server.thinks_of = "c5@"
    tell(amqp_url, *recipients(300))
    with one_notifier(config):
        until(lambda: len(deliveries(engine)) == 299, "the others")
        last_seconds()
        threading.Timer(1, server.decided.set).start()
    assert len(deliveries(engine)) == 300
    assert depth(amqp_url, "notifier.orders") == 0
    assert set(copies(server).values()) == {1}


def test_a_clean_stop_waits_for_no_server_and_writes_down_what_it_took(
    config, server, engine, amqp_url, monkeypatch
):
    monkeypatch.setattr(handlers, "RECORD_SECONDS", 0.5)
    monkeypatch.setattr(leases, "SECONDS", 2.0)  # as long as the next notifier leaves it alone
    server.thinks_of = "c5@"
    tell(amqp_url, *recipients(64))
    with one_notifier(config):
        until(server.thinking.is_set, "it thinks")
    # Of the one without an answer nobody can know; all with a 250 are in the books.
    assert len(deliveries(engine)) == server.taken - 1
    server.decided.set()
    with notifying(config):
        until(lambda: len(deliveries(engine)) == 64, "all")
    came = Counter(email["To"] for email in server.maildir.emails())
    assert {number for to, number in came.items() if "c5@" not in to} == {1}


def test_a_database_that_goes_after_the_250_and_comes_back(
    config, server, configure, database_url, engine, amqp_url
):
    with Gate(database_url) as gate:
        config = configure(database_url=gate.url)
        goes_with(server, gate, 30)
        tell(amqp_url, *recipients(64))
        with notifying(config):
            until(lambda: server.taken == 64, "all taken")
            gate.open()
            until(lambda: written_down(engine) == 64, "all written down")
    assert set(copies(server).values()) == {1}


def test_a_clean_stop_while_the_database_is_away_after_the_250(
    config, server, configure, database_url, engine, amqp_url
):
    """What was taken cannot be written down: the broker keeps it in mind.

    Nor can the relay write down what it sent: all comes once more when the database is back.
    """
    facts = recipients(64)
    with Gate(database_url) as gate:
        config = configure(database_url=gate.url, database_connect_timeout="1")
        goes_with(server, gate, 30)
        sent = tell(amqp_url, *facts)
        with one_notifier(config):
            until(lambda: server.taken >= 30, "taken")
        taken = server.taken
        assert len(deliveries(engine)) < taken
        until(lambda: depth(amqp_url, topology.RETRY_DELAYS[0].name) == 0, "back in the queue")
        gate.open()
        publish(amqp_url, *sent)
        with notifying(config):
            until(lambda: len(deliveries(engine)) == 64, "all")
            until(lambda: depth(amqp_url, "notifier.orders") == 0, "the copies too")
    assert set(copies(server).values()) == {1}


def goes_with(server, gate, number):
    """The database goes when the mail server takes this email."""
    original = server.handle_DATA

    async def handle(*given):
        answer = await original(*given)
        if server.taken == number:
            gate.cut()
        return answer

    server.handle_DATA = handle


def written_down(engine):
    with engine.connect() as connection:
        rows = connection.execute(select(EmailDelivery.state)).scalars().all()
    return rows.count("sent")


def test_a_fact_whose_address_was_mended_is_told_once(config, server, engine, amqp_url):
    """Ops staff edit the dead letter; it keeps the id of the fact."""
    fact = order_fact(customer_email="zoe@shop.exampel")
    server.respond = lambda address: "550 no such host" if "exampel" in address else None
    (message,) = tell(amqp_url, fact)
    with notifying(config):
        until(lambda: depth(amqp_url, topology.NOTIFIER_ORDERS.dead) == 1, "refused")
    mended = msgspec.structs.replace(fact, customer_email="zoe@shop.example")
    publish(amqp_url, msgspec.structs.replace(message, body=encode(mended)))
    with notifying(config):
        until(lambda: written_down(engine) == 1, "written down")
    assert on_the_ladder(amqp_url) == 0
    assert set(copies(server).values()) == {1}
    assert [row["recipient"] for row in deliveries(engine)] == ["zoe@shop.example"]


def test_an_email_that_is_taken_while_the_database_is_away_is_sent_once(
    config, server, configure, database_url, engine, amqp_url, last_seconds
):
    """The process stops before the database is back, and nobody had asked after the email since."""
    server.thinks_of = "c5@"
    tell(amqp_url, *recipients(10))
    with Gate(database_url) as gate:
        config = configure(database_url=gate.url, database_connect_timeout="1")
        with one_notifier(config):
            until(lambda: len(deliveries(engine)) == 9, "the others")
            last_seconds()
            gate.cut()
            threading.Timer(1, server.decided.set).start()
        gate.open()
        with notifying(config):
            until(lambda: len(deliveries(engine)) == 10, "all")
            until(lambda: depth(amqp_url, "notifier.orders") == 0, "the copies too")
    assert set(copies(server).values()) == {1}


@pytest.mark.parametrize("moment", ["in hand", "thought about", "thought about for long"])
def test_a_clean_stop_while_the_broker_goes_writes_down_what_was_taken(
    config, server, configure, engine, amqp_url, moment, last_seconds
):
    """Both are stopped together, as by `docker compose down`; the facts are delivered again."""
    server.thinks_of = "c5@"
    tell(amqp_url, *recipients(64))
    with Gate(amqp_url) as gate:
        config = configure(amqp_url=gate.url)
        with one_notifier(config) as consumer:
            until(server.thinking.is_set, "it thinks")
            if moment != "in hand":
                until(lambda: len(deliveries(engine)) == 63, "the others")
            last_seconds()
            gate.cut()
            if moment == "thought about for long":
                until(lambda: consumer.standing.status.state == "away", "it is known to be away")
            threading.Timer(1, server.decided.set).start()
        # When the thread of a subscription ends, so does its process.
        assert len(deliveries(engine)) == server.taken
    with notifying(configure(amqp_url=amqp_url)):
        until(lambda: len(deliveries(engine)) == 64, "delivered again")
    assert set(copies(server).values()) == {1}


class LostError(Exception):
    """The database is lost before the commit."""


@contextmanager
def a_process(config, is_lost=lambda: False):
    """A notifier of order emails with its jobs, as a process of its own would have them."""
    wiring, stopping = wire(config), threading.Event()
    (orders,) = [s for s in wiring.subscriptions if s.queue.name == "notifier.orders"]
    (leasing,) = [job for job in wiring.jobs if job.name == "leases of notifier.orders"]

    def keep():
        while not stopping.wait(0.5):
            with suppress(LostError), transaction() as session:
                leasing.run(session)
                if is_lost():
                    raise LostError

    consumer = Consumer(config.amqp_url, config.amqp_heartbeat, orders, stopping)
    threads = [threading.Thread(target=run, daemon=True) for run in (consumer.run, keep)]
    for thread in threads:
        thread.start()
    try:
        yield consumer
    finally:
        stopping.set()
        join(threads)


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize(
    "answer",
    [
        "while it is with the other",
        "after the lease was renewed",
        "while the database comes and goes",
    ],
)
def test_what_a_notifier_without_a_broker_waits_for_is_sent_by_no_other(
    config, server, configure, engine, amqp_url, monkeypatch, answer
):
    """The connection is lost while the mail server thinks; the fact comes to another notifier."""
    monkeypatch.setattr(leases, "SECONDS", 5.0)
    server.thinks_of = "c5@"
    tell(amqp_url, *recipients(20))
    counted = sent_by_metrics()
    losses = iter(range(4))

    def is_lost():
        return (
            answer == "while the database comes and goes"
            and server.decided.is_set()
            and next(losses, None) is not None
        )

    with Gate(amqp_url) as gate:
        cut_off = configure(amqp_url=gate.url)
        with a_process(cut_off, is_lost) as first:
            until(lambda: leased(engine), "it is leased")
            gate.cut()
            until(lambda: first.standing.status.state == "away", "the first has no broker")
            with a_process(configure(amqp_url=amqp_url)) as second:
                until(lambda: second.unacknowledged == 1, "the second has the fact")
                if answer == "after the lease was renewed":
                    before = leased(engine)
                    until(lambda: leased(engine) > before, "it is renewed")
                server.decided.set()
                until(lambda: len(deliveries(engine)) == 20, "all are written down")
                until(lambda: second.unacknowledged == 0, "and the fact is done")
                # Which may never come here again, with all that was sent beside it.
                until(lambda: not first.subscription.handle._under_way, "and is kept no more")
    assert set(copies(server).values()) == {1}
    assert leased(engine) is None
    # What was written down behind its batch counts as well, and once.
    assert sent_by_metrics() - counted == 20


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize(("then", "state"), [("", "sent"), ("550 5.1.1 No.", "undeliverable")])
def test_a_refusal_whose_fact_was_lost_with_the_broker_is_not_told_of_a_later_try(
    config, server, configure, engine, amqp_url, then, state
):
    """Meanwhile another notifier may have tried it, and somebody may have mended the address."""
    server.thinks_of, server.verdict = "c0@", "550 5.1.1 Nobody has this address."
    tell(amqp_url, *recipients(1))
    with Gate(amqp_url) as gate, a_process(configure(amqp_url=gate.url)) as notifier:
        until(lambda: leased(engine), "it is leased")
        gate.cut()
        until(lambda: notifier.standing.status.state == "away", "it has no broker")
        server.decided.set()
        until(lambda: leased(engine) is None, "the refusal has come")
        server.verdict = then
        gate.open()
        until(lambda: deliveries(engine), "it comes again")
        until(lambda: notifier.unacknowledged == 0, "and is done")
        assert server.taken == 2
        (row,) = deliveries(engine)
        assert (row["state"], row["response"]) == (state, then)
    # Nor is it tried once more when the process stops, for which it has ended.
    assert server.taken == 2


def sent_by_metrics():
    labels = {"template": "order_received", "outcome": "sent"}
    return REGISTRY.get_sample_value("fellow_emails_total", labels) or 0.0


@pytest.mark.usefixtures("soon")
def test_the_lease_of_one_that_is_gone_runs_out(
    config, server, engine, amqp_url, monkeypatch, looks
):
    monkeypatch.setattr(leases, "SECONDS", 1.0)
    (message,) = tell(amqp_url, *recipients(1))
    lease = "INSERT INTO email_leases VALUES (:id, clock_timestamp() + interval '1 hour')"
    with engine.begin() as connection:
        connection.execute(text(lease), {"id": message.message_id})
    with a_process(config):
        until(lambda: len(looks) >= 2 or server.taken, "it is in hand, and asked about again")
        assert server.taken == 0
        run_out(engine)
        until(lambda: len(deliveries(engine)) == 1, "sent")
    assert set(copies(server).values()) == {1}


@pytest.mark.usefixtures("soon")
def test_a_lease_that_could_not_be_renewed_is_not_over(
    config, server, configure, engine, amqp_url, monkeypatch, looks
):
    """The database was away for longer: who comes back to it first may be another than its own."""
    monkeypatch.setattr(leases, "SECONDS", 3600.0)
    server.thinks_of = "c0@"
    tell(amqp_url, *recipients(1))
    away = threading.Event()
    with Gate(amqp_url) as gate, a_process(configure(amqp_url=gate.url), away.is_set) as first:
        until(lambda: leased(engine), "it is leased")
        gate.cut()
        until(lambda: first.standing.status.state == "away", "the first has no broker")
        away.set()
        run_out(engine)
        ran_out = leased(engine)
        with a_process(configure(amqp_url=amqp_url)) as second:
            until(lambda: second.unacknowledged == 1, "the second has the fact")
            seen = len(looks)
            until(lambda: len(looks) > seen + 1, "and has looked")
            assert (server.taken, leased(engine)) == (1, ran_out)
            away.clear()
            until(lambda: leased(engine) > ran_out, "it is renewed")
            server.decided.set()
            until(lambda: len(deliveries(engine)) == 1, "it is written down")
            until(lambda: second.unacknowledged == 0, "and the fact is done")
    assert set(copies(server).values()) == {1}


def run_out(engine):
    with engine.begin() as connection:
        connection.execute(text("UPDATE email_leases SET good_until = clock_timestamp()"))


def leased(engine):
    """Until when an email is leased; None when none is."""
    with engine.connect() as connection:
        return connection.execute(text("SELECT max(good_until) FROM email_leases")).scalar()
