"""A queue, or the journal, that confirms nothing holds up nothing else."""

import asyncio
import itertools
import threading
import time
from collections import Counter
from contextlib import ExitStack, contextmanager

import msgspec
import pytest
from kombu import Connection
from prometheus_client import REGISTRY
from sqlalchemy import text
from sqlalchemy.exc import OperationalError
from structlog.testing import capture_logs

from services.relay import rows
from services.relay.careful import Careful
from services.relay.vetting import Vetting
from shared.bus.contract.message import message_for
from shared.bus.publish.confirms import NackedError, ReturnedError, UnavailableError
from shared.ids import new_id
from tests.integration.arrange import PATIENCE, depth, until
from tests.integration.relay.relaying import (
    QUEUE,
    drain,
    messages,
    relaying,
    waiting,
    write,
)
from tests.unit.notifier.facts import FACTS

STUCK = "notifier.orders"
MEMBER = "{N, _} = amqqueue:get_pid(Q), sys:%s(N)"


def _eval(broker, amqp_url, queue, what):
    vhost = amqp_url.rpartition("/")[2]
    name = f'rabbit_misc:r(<<"{vhost}">>, queue, <<"{queue}">>)'
    found = broker.evaluate(f"{{ok, Q}} = rabbit_amqqueue:lookup({name}), {what}")
    assert "ok" in found, found


@contextmanager
def stuck(broker, amqp_url, queue):
    """Suspend the Raft member of a quorum queue: it takes what comes, and confirms nothing."""
    _eval(broker, amqp_url, queue, MEMBER % "suspend")
    try:
        yield
    finally:
        resume(broker, amqp_url, queue)


def resume(broker, amqp_url, queue):
    """Let it go on."""
    _eval(broker, amqp_url, queue, MEMBER % "resume")


@contextmanager
def stuck_journal(broker, amqp_url):
    """Suspend the stream's writer."""
    writer = "#{leader_pid := P} = amqqueue:get_type_state(Q), sys:%s(P)"
    _eval(broker, amqp_url, "journal", writer % "suspend")
    try:
        yield
    finally:
        _eval(broker, amqp_url, "journal", writer % "resume")


def fact(name, **changes):
    """A fact as a service would tell it."""
    if name == "order_received":
        changes["order_id"] = new_id()
    event = msgspec.structs.replace(FACTS[name], **changes)
    return message_for(event, source="tests", correlation_id="story")


@pytest.mark.parametrize("count", [20, 3_000], ids=["a few", "many"])
def test_a_queue_that_does_not_confirm_holds_up_nobody_else(
    count, settings, amqp_url, db, engine, broker
):
    facts = [fact("order_received") for _ in range(count)]
    with relaying(settings), stuck(broker, amqp_url, STUCK):
        write(db, facts)
        codes = [fact("one_time_code") for _ in range(50)]
        for code in codes:
            write(db, [code])
        orders = messages(500)
        write(db, orders)
        until(lambda: depth(amqp_url, "notifier.urgent") >= 50, "the codes are out")
        until(lambda: depth(amqp_url, QUEUE) >= 500, "the orders are out")
    # A relay of another process finds what this one has left.
    with relaying(settings):
        until(lambda: waiting(engine) == 0, "all is out")
    urgent = drain(amqp_url, 500, "notifier.urgent")
    assert set(urgent) == {m.message_id for m in codes}
    arrived = drain(amqp_url, 10_000, STUCK)
    assert set(arrived) == {m.message_id for m in facts}
    assert max(arrived.values()) <= 2
    assert max(urgent.values()) <= 2
    assert max(drain(amqp_url, 2_000).values()) <= 2


def test_a_destination_in_doubt_stays_apart_though_its_connection_opens_between_two_looks(
    settings, amqp_url, db, engine, broker, monkeypatch
):
    """It has nothing fresh then, and was not looked at for what is due."""
    looked = Careful._send_due

    async def look_before_they_are_open(self, connection):
        goes_on = await looked(self, connection)
        for destination in self.stuck:
            while self._alone[destination].state != "connected":  # noqa: ASYNC110 - no event of its own
                await asyncio.sleep(0.01)
        return goes_on

    monkeypatch.setattr(Careful, "_send_due", look_before_they_are_open)
    with stuck(broker, amqp_url, STUCK):
        # All in one batch, so that the stuck queue is before the others on one channel.
        write(db, [fact("order_received") for _ in range(20)])
        write(db, [fact("one_time_code") for _ in range(50)])
        write(db, messages(500))
        with relaying(settings), capture_logs() as logs:
            until(lambda: depth(amqp_url, "notifier.urgent") >= 50, "the codes are out")
            until(lambda: depth(amqp_url, QUEUE) >= 500, "the orders are out")
    told = Counter(line.get("key") for line in logs if line["event"] == "destination_stuck")
    assert told == {"order.recorded": 1, "account.otp_requested": 1, "order.created": 1}


def test_a_queue_that_confirms_late_gets_its_backlog_at_full_speed(
    settings, amqp_url, db, engine, broker
):
    """What was not sent yet while it was stuck goes out once; nothing waits out a pause."""
    facts = [fact("order_received") for _ in range(3_000)]
    with relaying(settings):
        with stuck(broker, amqp_url, STUCK):
            write(db, facts)
            write(db, [fact("one_time_code")])
            until(lambda: depth(amqp_url, "notifier.urgent") >= 1, "the code is out")
            until(lambda: attempted(engine) >= 1_000, "the sent ones are in doubt")
        until(lambda: waiting(engine) == 0, "all is out")
    arrived = drain(amqp_url, 10_000, STUCK)
    assert set(arrived) == {m.message_id for m in facts}
    assert max(arrived.values()) <= 2
    assert list(arrived.values()).count(1) >= 900


def test_a_relay_that_is_stopped_waits_for_what_it_sent_a_second_time(
    settings, amqp_url, db, engine, broker
):
    """The next one would send it a third time; a queue that is back needs a moment to say so."""
    facts = [fact("order_received") for _ in range(20)]
    with ExitStack() as until_resumed:
        until_resumed.enter_context(stuck(broker, amqp_url, STUCK))
        with relaying(settings):
            write(db, facts)
            until(lambda: held(engine) >= 1, "one is sent again")
            threading.Timer(1, until_resumed.close).start()
    with relaying(settings):
        until(lambda: waiting(engine) == 0, "all is out")
    arrived = drain(amqp_url, 100, STUCK)
    assert set(arrived) == {m.message_id for m in facts}
    assert max(arrived.values()) <= 2


def test_a_number_that_is_given_again_meanwhile_takes_no_other_row_with_it(
    settings, amqp_url, db, engine, broker
):
    """A standby that is promoted lacks the last rows, and gives their numbers to others."""
    with relaying(settings):
        with stuck(broker, amqp_url, STUCK):
            write(db, [fact("order_received")])
            until(lambda: held(engine) >= 1, "it is sent again")
            with engine.begin() as promoted:
                promoted.execute(text("UPDATE outbox SET message_id = gen_random_uuid()"))
                other = str(promoted.execute(text("SELECT message_id FROM outbox")).scalar())
        until(lambda: depth(amqp_url, STUCK) >= 2, "the confirm of the first is there")
        with engine.begin() as soon:
            soon.execute(text("UPDATE outbox SET next_try_at = now()"))
        until(lambda: waiting(engine) == 0, "all is out")
    assert other in drain(amqp_url, 100, STUCK)


class Wire:
    """A publisher that is connected; what becomes of what is sent is for the test to say."""

    state, outstanding = "connected", 0

    def __init__(self):
        self.sent = []
        self.meanwhile = None

    def send(self, message):
        self.sent.append((message, asyncio.get_running_loop().create_future()))
        if self.meanwhile is not None:
            self.meanwhile()
        return self.sent[-1][1]


def refused(error):
    def ends(careful, wire):
        wire.sent[0][1].set_exception(error)

    return ends


def renewed(careful, wire):
    careful._renew_at = 0.0


@pytest.mark.parametrize(
    ("ends", "is_at_once"),
    [
        (lambda _, wire: wire.sent[0][1].set_result(None), False),
        (refused(ReturnedError("no queue is bound")), False),
        (refused(NackedError("refused")), False),
        (refused(UnavailableError("lost")), False),
        (renewed, False),
        (UnavailableError("not connected"), True),
        (ValueError("not to be encoded"), True),
    ],
    ids=["confirmed", "returned", "nacked", "in doubt", "held", "unsent", "parked"],
)
def test_what_becomes_of_a_message_is_not_written_into_another_of_its_number(
    ends, is_at_once, settings, db, engine, amqp_url
):
    """A standby that is promoted lacks the last rows, and gives their numbers to others."""
    wire = Wire()
    write(db, messages(1))

    def promote():
        with engine.begin() as promoted:
            promoted.execute(
                text("UPDATE outbox SET message_id = gen_random_uuid(), next_try_at = NULL")
            )

    def fail():
        promote()
        raise ends

    async def story():
        vetting = Vetting(amqp_url)
        vetting.passes = lambda *_: True
        careful = Careful(engine, lambda _: wire, vetting, 60.0)
        with engine.begin() as connection:
            connection.execute(text("UPDATE outbox SET next_try_at = now()"))
        if is_at_once:
            wire.meanwhile = fail
        await careful.turn()
        if not is_at_once:
            promote()
            ends(careful, wire)
            await asyncio.sleep(0)
        await careful.turn()
        with engine.begin() as connection:
            untouched = connection.execute(
                text("SELECT next_try_at, parked_at, attempts, reason FROM outbox")
            ).one()
            connection.execute(text("UPDATE outbox SET next_try_at = now()"))
        wire.meanwhile = None
        if not wire.sent[0][1].done():
            wire.sent[0][1].set_result(None)  # there is room for the other
            await asyncio.sleep(0)
        await careful.turn()
        return untouched

    assert asyncio.run(story()) == (None, None, 0, "")
    first, other = (message.message_id for message, _ in wire.sent)
    assert first != other


@pytest.mark.parametrize(
    ("error", "found", "sent"),
    [
        (ReturnedError("no queue is bound"), "no queue is bound", 1),
        (UnavailableError("lost"), "", 2),
    ],
    ids=["returned", "in doubt"],
)
def test_what_ended_while_nothing_could_be_written_down_is_held_no_longer(
    amqp_url, db, engine, monkeypatch, error, found, sent
):
    """Its lease was to be renewed when the database went: one in doubt is sent again at once."""
    write(db, messages(1))
    wire, settle = Wire(), rows.settle

    def away(*_):
        raise OperationalError("UPDATE", None, Exception("away"))

    async def story():
        vetting = Vetting(amqp_url)
        vetting.passes = lambda *_: True
        careful = Careful(engine, lambda _: wire, vetting, 60.0)
        with engine.begin() as connection:
            connection.execute(text("UPDATE outbox SET next_try_at = now()"))
        await careful.turn()
        renewed(careful, wire)
        monkeypatch.setattr(rows, "settle", away)
        with pytest.raises(OperationalError):
            await careful.turn()
        monkeypatch.setattr(rows, "settle", settle)
        refused(error)(careful, wire)
        await asyncio.sleep(0)
        await careful.turn()

    asyncio.run(story())
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT reason FROM outbox")) == found
    assert len(wire.sent) == sent


def held(engine):
    with engine.connect() as connection:
        return connection.execute(
            text("SELECT count(*) FROM outbox WHERE attempts > 0 AND next_try_at > now()")
        ).scalar()


def attempted(engine):
    with engine.connect() as connection:
        return connection.execute(
            text("SELECT count(*) FROM outbox WHERE next_try_at IS NOT NULL")
        ).scalar()


BOTH = pytest.mark.parametrize(
    ("make", "queue"),
    [(messages, QUEUE), (lambda count: [fact("order_received") for _ in range(count)], STUCK)],
    ids=["orders", "facts"],
)


@BOTH
def test_a_journal_that_does_not_confirm_neither_stops_nor_doubles_anything(
    make, queue, settings, amqp_url, db, engine, broker
):
    with relaying(settings), stuck_journal(broker, amqp_url):
        sent = []
        for _ in range(150):  # more turns than the broker lets a stream lag behind by
            some = make(20)
            write(db, some)
            sent += some
            until(lambda: waiting(engine) == 0, "relayed")
    assert drain(amqp_url, 4_000, queue) == Counter(m.message_id for m in sent)


def test_what_the_journal_has_not_confirmed_is_counted(
    settings, amqp_url, db, engine, broker, monkeypatch
):
    """A recovery by the journal would not know of it, however the journal came to miss it."""

    def counted():
        return REGISTRY.get_sample_value("fellow_journal_missed_total")

    def facts(count):
        return [fact("order_received") for _ in range(count)]

    began = counted()
    with relaying(settings):
        write(db, facts(10))
        until(lambda: waiting(engine) == 0, "relayed")
    assert counted() == began
    with relaying(settings), stuck_journal(broker, amqp_url):
        write(db, facts(10))
        until(lambda: waiting(engine) == 0, "relayed")
        assert counted() == began
        vhost = amqp_url.rpartition("/")[2]
        broker.control("close_all_connections", f"--vhost={vhost}", "a test")
        until(lambda: counted() == began + 10, "counted with the connection's end")
    with relaying(settings):
        write(db, facts(1))  # the broker is known to take its like
        until(lambda: waiting(engine) == 0, "relayed")
        with Connection(amqp_url) as connection:
            connection.default_channel.queue_unbind("journal", "journal.facts", "#")
        write(db, facts(5))
        until(lambda: counted() == began + 15, "counted, since no queue is bound")


@BOTH
def test_a_journal_that_cannot_be_published_to_stops_nothing(
    make, queue, settings, amqp_url, db, engine
):
    with Connection(amqp_url) as connection:
        for exchange in ("journal", "journal.facts"):
            connection.default_channel.exchange_delete(exchange)
    sent = make(1_500)
    with relaying(settings):
        write(db, sent)
        until(lambda: waiting(engine) == 0, "relayed")
    assert drain(amqp_url, 4_000, queue) == Counter(m.message_id for m in sent)


def test_a_lane_knows_what_another_has_found_out_of_the_journal(
    settings, amqp_url, db, engine, monkeypatch
):
    """One whose rows pass must not write to a journal that is known not to be there."""
    vet = Vetting._vet
    known = threading.Event()

    def slowly(self, *given):
        outcome = vet(self, *given)
        known.set()
        time.sleep(3)
        return outcome

    monkeypatch.setattr(Vetting, "_vet", slowly)
    with Connection(amqp_url) as connection:
        connection.default_channel.exchange_delete("journal.facts")
    sent = [fact("order_received") for _ in range(500)]
    with relaying(settings):
        write(db, sent[:250])
        assert known.wait(PATIENCE)
        write(db, sent[250:])
        until(lambda: waiting(engine) == 0, "relayed")
    assert drain(amqp_url, 4_000, STUCK) == Counter(m.message_id for m in sent)


def test_a_channel_that_is_closed_again_and_again_triples_nothing(settings, amqp_url, db, engine):
    """Each time the exchange goes, rows are under way; none of them goes out a third time."""
    sent = [*itertools.chain.from_iterable(messages(50) for _ in range(6))]
    with relaying(settings), Connection(amqp_url) as connection:
        channel = connection.default_channel
        for start in range(0, len(sent), 50):
            facts = [fact("order_received") for _ in range(50)]
            pairs = zip(sent[start : start + 50], facts, strict=True)
            write(db, [m for pair in pairs for m in pair])
            channel.exchange_delete("events")
            until(lambda: orders_waiting(engine) == 0, "the orders are out")
            channel.exchange_declare("events", "topic", durable=True, auto_delete=False)
            channel.queue_bind(STUCK, "events", "order.*")
            with engine.begin() as other:
                other.execute(
                    text("UPDATE outbox SET next_try_at = now() WHERE parked_at > '-infinity'")
                )
            until(lambda: waiting(engine) == 0, "and the facts")
    arrived = drain(amqp_url, 4_000)
    assert set(arrived) == {m.message_id for m in sent}
    assert max(arrived.values()) <= 2


def orders_waiting(engine):
    with engine.connect() as connection:
        return connection.execute(
            text("SELECT count(*) FROM outbox WHERE exchange = 'intake'")
        ).scalar()
