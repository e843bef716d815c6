"""A row that cannot be published is parked with its reason, and nothing else notices."""

from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest
from amqp import Message as AmqpMessage
from amqp.exceptions import MessageNacked
from kombu import Connection
from msgspec.structs import replace
from sqlalchemy import create_engine, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from services.ops import parked_messages
from services.ops.audit.actions import Actor
from services.ops.journal import reading
from services.relay import authors, rows
from services.relay.rows import Outcome
from shared.bus import outbox
from shared.bus.contract.events import EVENT_TYPES
from shared.bus.publish.confirms import UnavailableError
from shared.bus.publish.publisher import Publisher
from shared.ids import new_id
from shared.security.service_accounts import SERVICES
from stack.servers.credentials import as_service
from tests.integration.arrange import depth, until
from tests.integration.relay.relaying import (
    QUEUE,
    drain,
    messages,
    parked,
    relaying,
    waiting,
    write,
)

BIG = 2_000_000


@dataclass(frozen=True)
class Poison:
    """A change to a good message that makes it one that cannot be published."""

    change: dict
    reason: str


POISON = {
    "a correlation id that AMQP cannot hold": Poison(
        {"correlation_id": "😀" * 64}, "255 bytes, not 256"
    ),
    "a time that AMQP cannot hold": Poison(
        {"time": datetime(1960, 1, 1, tzinfo=UTC)}, "AMQP has none before 1970"
    ),
    "headers that fill a frame": Poison({"traceparent": "x" * 200_000}, "properties and headers"),
    "an exchange that is not there": Poison({"exchange": "gone"}, "'gone'"),
    "a key that no queue wants": Poison(
        {"exchange": "events", "routing_key": "nowhere"}, "no queue is bound"
    ),
    "a body that the broker does not take": Poison({"body": b"x" * (BIG + 1)}, "larger than"),
    "a key that the relay may not write": Poison(
        {"exchange": "commands", "routing_key": "kyc.decide"}, "kyc.decide"
    ),
}


@pytest.fixture
def service():
    """The relay has its own rights, as it has in production."""
    return "relay"


@pytest.fixture
def old_rows(engine):
    """A table without its constraint, for rows from before it."""
    with engine.begin() as connection:
        for name in ("short_strings", "time"):
            connection.execute(
                text(f"ALTER TABLE outbox DROP CONSTRAINT IF EXISTS ck_outbox_{name}")
            )


@pytest.fixture
def small_bodies(broker):
    """A broker that takes no large bodies."""

    def take(size):
        # RabbitMQ 4 reads it from the settings when it starts, and from there later.
        broker.evaluate(f"application:set_env(rabbit, max_message_size, {size})")
        broker.evaluate(f"persistent_term:put(max_message_size, {size})")

    take(BIG)
    yield
    take(134_217_728)


def put(db, sent, monkeypatch):
    """Write rows that the store would refuse."""
    with monkeypatch.context() as patched:
        patched.setattr(outbox, "check", lambda _: None)
        write(db, sent)


@pytest.mark.parametrize("sort", POISON)
def test_one_poison_row_is_parked_and_the_others_are_out_once(
    sort, settings, amqp_url, db, engine, monkeypatch, old_rows, small_bodies
):
    good = messages(60)
    poison = replace(messages(1)[0], **POISON[sort].change)
    put(db, [*good[:20], poison, *good[20:40]], monkeypatch)
    with relaying(settings):
        until(lambda: waiting(engine) == 1, "the others are out")
        reasons = until(lambda: parked(engine), "parked")
        write(db, good[40:])
        until(lambda: waiting(engine) == 1, "later ones too")
    assert list(reasons) == [poison.message_id]
    assert POISON[sort].reason in reasons[poison.message_id]
    assert drain(amqp_url, 100) == Counter(m.message_id for m in good)


def test_all_sorts_at_once_and_many_of_each(
    settings, amqp_url, db, engine, monkeypatch, old_rows, small_bodies
):
    good = messages(2_500)
    poison = [replace(m, **p.change) for p in POISON.values() for m in messages(10)]
    mixed = [m for n, one in enumerate(good) for m in (one, *poison[n::2_500])]
    put(db, mixed, monkeypatch)
    with relaying(settings, count=2):
        until(lambda: waiting(engine) == len(poison), "the others are out")
        reasons = until(
            lambda: (found := parked(engine)) and len(found) == len(poison) and found, "parked"
        )
    assert set(reasons) == {m.message_id for m in poison}
    assert drain(amqp_url, 3_000) == Counter(m.message_id for m in good)


def refuses(channel, queue):
    try:
        channel.basic_publish_confirm(AmqpMessage("x"), routing_key=queue)
    except MessageNacked:
        return True
    return False


def test_what_a_full_queue_refuses_is_parked(settings, amqp_url, db, engine):
    with Connection(amqp_url, transport_options={"confirm_publish": True}) as connection:
        channel = connection.default_channel
        arguments = {"x-queue-type": "quorum", "x-max-length": 1, "x-overflow": "reject-publish"}
        channel.queue_declare("full", durable=True, auto_delete=False, arguments=arguments)
        channel.queue_bind("full", "events", "test.full")
        until(lambda: refuses(channel, "full"), "it is full")
    full = [replace(m, exchange="events", routing_key="test.full") for m in messages(40)]
    good = messages(40)
    write(db, [m for pair in zip(full, good, strict=True) for m in pair])
    with relaying(settings):
        until(lambda: depth(amqp_url, QUEUE) == 40, "the others are out")
        reasons = until(lambda: parked(engine), "parked")
    assert set(reasons.values()) == {"the broker refused the message"}
    assert drain(amqp_url, 100) == Counter(m.message_id for m in good)


def test_a_parked_row_goes_out_when_its_cause_is_gone(settings, amqp_url, db, engine):
    late = [replace(m, exchange="events", routing_key="test.late") for m in messages(3)]
    write(db, late)
    with relaying(settings):
        until(lambda: len(parked(engine)) == 3, "parked")
        with Connection(amqp_url) as connection:
            connection.default_channel.queue_bind(QUEUE, "events", "test.late")
        with engine.begin() as connection:
            connection.execute(text("UPDATE outbox SET next_try_at = now()"))
        until(lambda: waiting(engine) == 0, "relayed")
    assert drain(amqp_url, 10) == Counter(m.message_id for m in late)


def test_an_exchange_that_goes_while_it_is_published_to(settings, amqp_url, db, engine):
    """The channel closes, with the confirms of all that is under way."""
    with relaying(settings):
        sent = messages(10)
        write(db, sent)
        until(lambda: waiting(engine) == 0, "the exchange is known to be there")
        with Connection(amqp_url) as connection:
            connection.default_channel.exchange_delete("events")
        facts = [replace(m, exchange="events", routing_key="order.recorded") for m in messages(300)]
        more = messages(300)
        write(db, [m for pair in zip(facts, more, strict=True) for m in pair])
        until(lambda: waiting(engine) == 300, "the orders are out")
        until(lambda: len(parked(engine)) == 300, "the facts are parked")
    arrived = drain(amqp_url, 1_000)
    assert set(arrived) == {m.message_id for m in (*sent, *more)}
    assert max(arrived.values()) <= 2


@pytest.mark.parametrize("service_name", [s for s in SERVICES if s in authors.SAYS])
def test_a_service_says_what_is_its_own_and_nothing_else(
    service_name, settings, amqp_url, database_url, db, engine
):
    (one,) = messages(1)
    every = {
        type_: replace(
            one, exchange=e.EXCHANGE, routing_key=type_, type=type_, message_id=str(new_id())
        )
        for type_, e in EVENT_TYPES.items()
    }
    # Of a kind that nobody knows, by a way that some may go.
    every["order.exploded"] = replace(
        one,
        exchange="events",
        routing_key="order.recorded",
        type="order.exploded",
        message_id=str(new_id()),
    )
    writer = create_engine(as_service(database_url, service_name))
    with Session(writer) as session:
        write(session, list(every.values()))
    writer.dispose()
    own = {event.TYPE for event in authors.SAYS[service_name]}
    foreign = {every[type_].message_id for type_ in every if type_ not in own}
    with relaying(settings):
        until(lambda: waiting(engine) == len(foreign), "its own are out")
        reasons = until(
            lambda: (found := parked(engine)) and len(found) == len(foreign) and found, "parked"
        )
    assert set(reasons) == foreign
    assert all(f"fellow_{service_name} may not write" in why for why in reasons.values())


def test_every_fact_has_somebody_who_may_say_it():
    said = {event.TYPE for own in authors.SAYS.values() for event in own}
    facts = {type_ for type_, event in EVENT_TYPES.items() if event.EXCHANGE != "commands"}
    assert facts <= said


@pytest.mark.parametrize("body", [b"nope", b'{}},{"type":"kyc.approved","data":{}'])
def test_a_body_that_would_spoil_the_journal_is_parked_and_the_others_are_in_it(
    body, settings, amqp_url, db, engine
):
    good = messages(40)
    poison = replace(messages(1)[0], body=body)
    write(db, [*good[:20], poison, *good[20:]])
    with relaying(settings):
        until(lambda: waiting(engine) == 1, "the others are out")
        reasons = until(lambda: parked(engine), "parked")
    assert "not one JSON value" in reasons[poison.message_id]
    assert drain(amqp_url, 100) == Counter(m.message_id for m in good)
    began = datetime.now(UTC) - timedelta(minutes=5)
    with Connection(as_service(amqp_url, "console")) as source:
        read = reading.read(source, began, datetime.now(UTC) + timedelta(minutes=5))
        assert Counter(str(one.incoming.message_id) for one in read) == Counter(
            m.message_id for m in good
        )


def test_what_is_tried_again_and_again_is_parked_since_the_first_time(settings, db, engine):
    """The console, the metric and the alert say since when; what is tried counts all the while."""
    poison = replace(messages(1)[0], exchange="events", routing_key="nowhere")
    write(db, [poison])

    def row():
        with engine.connect() as connection:
            return connection.execute(text("SELECT parked_at, attempts FROM outbox")).one()

    with relaying(settings):
        until(lambda: parked(engine), "parked")
        first = row()
        for attempt in (2, 3):
            with engine.begin() as hand:
                hand.execute(text("UPDATE outbox SET next_try_at = now()"))
            until(lambda attempt=attempt: row().attempts == attempt, "tried again")
    assert row() == (first.parked_at, 3)


def test_what_could_not_be_sent_is_parked_since_the_first_time(settings, db, engine, monkeypatch):
    """The connection is lost in the moment in which it is tried: that is no try of it."""
    write(db, [replace(messages(1)[0], exchange="events", routing_key="nowhere")])

    def row():
        with engine.connect() as connection:
            return connection.execute(text("SELECT parked_at, attempts, reason FROM outbox")).one()

    def away(publisher, message):
        raise UnavailableError("not connected to the broker")

    with relaying(settings):
        until(lambda: parked(engine), "parked")
        first = row()
        with monkeypatch.context() as lost:
            lost.setattr(Publisher, "send", away)
            with engine.begin() as hand:
                hand.execute(text("UPDATE outbox SET next_try_at = now()"))
            until(lambda: row().reason.startswith("not sent"), "not sent")
            assert row().parked_at == first.parked_at
        until(lambda: row().attempts > 1 and parked(engine), "tried, and parked as before")
    assert (row().parked_at, row().reason) == (first.parked_at, first.reason)


def test_what_is_being_tried_is_in_sight_and_nobodys_to_change(settings, db, engine, database_url):
    write(db, messages(2))
    with engine.connect() as connection:
        connection.execute(text("UPDATE outbox SET parked_at = now(), reason = 'No such queue.'"))
        found = connection.execute(text("SELECT sequence, message_id FROM outbox ORDER BY 1")).all()
        numbers = [row.sequence for row in found]
        rows.settle(connection, Outcome(held=[rows.key(found[0])]))
    ops = create_engine(as_service(database_url, "ops"))
    with Session(ops) as session:
        assert [one.number for one in parked_messages.listed(session)] == numbers
        assert parked_messages.count(session) == 2
        assert parked_messages.retry(session, numbers, Actor("ada", "10.0.0.7")) == 1
        session.rollback()
        with pytest.raises(DBAPIError, match="only a parked message"):
            session.execute(text("DELETE FROM outbox"))
        session.rollback()
        # Its relay was killed over it, and there is no other.
        with engine.begin() as connection:
            connection.execute(text("UPDATE outbox SET next_try_at = now() - interval '1 s'"))
        assert parked_messages.discard(session, numbers, Actor("ada", "10.0.0.7"), "It kills.") == 2
    ops.dispose()
