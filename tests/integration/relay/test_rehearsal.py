"""What is no word of the broker's about a row is no refusal: an alarm, silence, a lost line."""

import asyncio
from collections import Counter
from urllib.parse import urlsplit

import pytest
from msgspec.structs import replace
from sqlalchemy import text

from services.relay import rehearsal, rows
from services.relay.rehearsal import CannotTryError, Rehearsal
from services.relay.vetting import Vetting
from shared.bus.publish.confirms import BlockedError, PublishError, UnavailableError
from shared.ids import new_id
from tests.integration.arrange import declare, until
from tests.integration.gate import Gate
from tests.integration.relay.relaying import drain, messages, parked, relaying, waiting, write


@pytest.fixture
def alarm(broker):
    """Gives a function that ends it."""
    watermark = broker.evaluate("vm_memory_monitor:get_vm_memory_high_watermark()")

    def end():
        broker.control("set_vm_memory_high_watermark", watermark)

    broker.control("set_vm_memory_high_watermark", "0")
    yield end
    end()


@pytest.fixture
def tried(monkeypatch):
    """The errors that rehearsals ended with."""
    errors = []
    original = Rehearsal.try_out

    def watched(self, message):
        try:
            original(self, message)
        except Exception as error:
            errors.append(error)
            raise

    monkeypatch.setattr(Rehearsal, "try_out", watched)
    return errors


def test_an_alarm_is_no_refusal(settings, amqp_url, alarm):
    declare(amqp_url)
    one = Rehearsal(amqp_url)
    for _ in range(2):
        with pytest.raises(BlockedError, match="alarm"):
            one.try_out(messages(1)[0])
    alarm()
    one.try_out(messages(1)[0])
    one.close()


def test_a_relay_that_starts_in_an_alarm_parks_nothing(
    settings, amqp_url, db, engine, alarm, tried
):
    declare(amqp_url)
    # Of a kind each, so that each would be tried.
    good = [replace(one, type=f"order.{n}") for n, one in enumerate(messages(50))]
    write(db, good)
    with relaying(settings):
        until(lambda: len(tried) >= 3, "tried")
        assert {type(error) for error in tried} == {BlockedError}
        assert parked(engine) == {}
        alarm()
        until(lambda: waiting(engine) == 0, "out")
    assert drain(amqp_url, 100) == Counter(one.message_id for one in good)


def test_silence_is_no_refusal_and_ends_a_vet(settings, amqp_url, db, monkeypatch, tried):
    declare(amqp_url)
    with Gate(amqp_url) as gate:
        one = Rehearsal(gate.url)
        with monkeypatch.context() as patched:
            patched.setattr(rehearsal, "TIMEOUT", 3.0)
            one.try_out(messages(1)[0])
            gate.stall()
            with pytest.raises(UnavailableError):
                one.try_out(messages(1)[0])
        gate.open()
        one.try_out(messages(1)[0])
        one.close()


def test_a_line_that_is_lost_is_no_refusal(settings, amqp_url):
    declare(amqp_url)
    with Gate(amqp_url) as gate:
        one = Rehearsal(gate.url)
        one.try_out(messages(1)[0])
        gate.cut()
        with pytest.raises((PublishError, OSError)):
            one.try_out(messages(1)[0])
        gate.open()
        one.try_out(messages(1)[0])
        one.close()


def test_a_vet_ends_at_the_first_row_that_nobody_answers_for(
    settings, amqp_url, db, engine, alarm, tried
):
    declare(amqp_url)
    write(db, messages(20))
    with engine.connect() as connection:
        found = rows.take_fresh(connection, 0, (), 20)
        with pytest.raises(BlockedError):
            asyncio.run(Vetting(amqp_url).vet(found))
    assert len(tried) == 1


def test_no_batch_holds_more_than_fits_into_memory(db, engine):
    """A thousand rows at a time, of up to 50 kB each where names are of control characters."""
    sizes = [rows.LARGE_BYTES, rows.LARGE_BYTES + 1] * 500
    sized = zip(messages(1_000), sizes, strict=True)
    write(db, [replace(one, body=b" " * size) for one, size in sized])
    with engine.connect() as connection:
        found = rows.take_fresh(connection, 0, (), 1_000)
        assert [len(row.body) if row.body else None for row in found] == [
            rows.LARGE_BYTES,
            None,
        ] * 500
        outcome = rows.Outcome(deferred=[rows.key(row) for row in found])
        rows.settle(connection, outcome)
        due = rows.take_due(connection, (), 1_000)
        assert 0 < sum(len(row.body) for row in due) <= rows.MOST_DUE_BYTES


def test_a_row_that_nobody_answers_for_is_put_off_and_stops_no_other(
    settings, amqp_url, db, engine, monkeypatch
):
    """One of many megabytes, say, over a slow line: the broker is there, and hears of it too late.

    Nothing is known of the broker yet, so that all of them would be tried.
    """
    original = Rehearsal.try_out

    def silent(self, message):
        if message.type == "order.slow":
            raise UnavailableError("nothing came in time")
        original(self, message)

    monkeypatch.setattr(Rehearsal, "try_out", silent)
    slow, *good = [replace(one, type=f"order.{n}") for n, one in enumerate(messages(20))]
    slow = replace(slow, type="order.slow")
    write(db, [slow, *good[:10]])
    with relaying(settings):
        until(lambda: waiting(engine) == 1, "the others are out")
        assert "did not answer" in until(lambda: parked(engine), "put off")[slow.message_id]
        # It is due again, first of all.
        with engine.begin() as hand:
            hand.execute(text("UPDATE outbox SET next_try_at = now() - interval '1 hour'"))
        write(db, good[10:])
        due = text("UPDATE outbox SET next_try_at = now() WHERE next_try_at IS NULL")
        with engine.begin() as hand:
            hand.execute(due)
        until(lambda: waiting(engine) == 1, "the others are out")
    assert drain(amqp_url, 100) == Counter(one.message_id for one in good)


@pytest.fixture
def no_more(broker, amqp_url):
    """A function that lets no other connection in, and one that does again."""
    user = urlsplit(amqp_url).username

    def end():
        broker.control("clear_user_limits", user, "max-connections")

    yield (
        lambda: broker.control("set_user_limits", user, '{"max-connections": 0}'),
        end,
    )
    end()


def test_where_nothing_can_be_tried_no_row_is_parked_for_it(
    settings, amqp_url, db, engine, monkeypatch, no_more
):
    """A node that restarts behind a balancer, a limit that is reached: the relay's own stand."""
    refuse, let_in = no_more
    errors, seen = [], []
    original = Rehearsal.try_out

    def watched(self, message):
        seen.append(self)
        try:
            original(self, message)
        except Exception as error:
            errors.append(error)
            raise

    monkeypatch.setattr(Rehearsal, "try_out", watched)
    declare(amqp_url)
    first, *others = [replace(one, type=f"order.{n}") for n, one in enumerate(messages(51))]
    write(db, [first])
    with relaying(settings):
        until(lambda: waiting(engine) == 0, "both connections stand")
        refuse()
        seen[0].close()
        write(db, others)
        until(lambda: len(errors) >= 3, "tried")
        assert {type(error) for error in errors} == {CannotTryError}
        assert parked(engine) == {}
        # What is known goes on.
        write(db, [replace(first, message_id=str(new_id()))])
        until(lambda: waiting(engine) == len(others), "out")
        let_in()
        until(lambda: waiting(engine) == 0, "all are out")
