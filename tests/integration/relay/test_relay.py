"""The relay: from real rows to a real broker."""

import asyncio
import os
import sys
import time
from collections import Counter
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path

import pytest
from kombu import Connection
from msgspec.structs import replace
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.orm import Session

from services.relay import full_speed, reached, relay, rows
from services.relay.reached import Reached
from services.relay.rehearsal import CannotTryError
from services.relay.relay import Relay
from shared import health
from shared.bus import outbox
from shared.bus.contract import topology
from shared.bus.publish.confirms import UnavailableError
from shared.db.session import is_database_unavailable
from stack.folders import ROOT
from tests.integration.arrange import (
    PATIENCE,
    declare,
    depth,
    headers,
    orders_of_shards,
    take,
    until,
)
from tests.integration.relay.relaying import (
    QUEUE,
    drain,
    messages,
    parked,
    relaying,
    waiting,
    write,
)
from tests.integration.relay.test_stuck import Wire
from tests.zygote.forks import spawn


def test_a_row_is_published_as_it_was_written_and_then_deleted(settings, db, engine):
    (sent,) = messages(1)
    write(db, [sent])
    with relaying(settings):
        until(lambda: waiting(engine) == 0, "relayed")
    got = take(settings.amqp_url, QUEUE)
    assert got.body == sent.body
    assert headers(got) == sent.headers()


def test_notify_wakes_it(settings, db, engine, monkeypatch):
    """Polling is put off for ever, so only NOTIFY can be what relays these."""
    with relaying(settings):
        until(lambda: depth(settings.amqp_url, QUEUE) == 0, "up")
        write(db, messages(1))
        until(lambda: waiting(engine) == 0, "relayed once")
        monkeypatch.setattr(relay, "POLL_SECONDS", 10_000)
        for _ in range(3):
            write(db, messages(1))
            until(lambda: waiting(engine) == 0, "relayed by NOTIFY")
        monkeypatch.setattr(relay, "POLL_SECONDS", 0.1)


@pytest.mark.parametrize("count", [10, 2_500])
def test_what_is_confirmed_and_cannot_be_written_down_is_not_sent_once_more(
    settings, db, engine, monkeypatch, count
):
    """At each loss of the database, or for ever where a server lets no DELETE end."""
    lost = []
    settle = rows.settle

    def lose_the_database_at_first(connection, outcome):
        if len(lost) < 5:
            lost.append(len(outcome.confirmed))
            connection.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))
        settle(connection, outcome)

    monkeypatch.setattr(rows, "settle", lose_the_database_at_first)
    monkeypatch.setattr(relay, "AWAY_SECONDS", 0.05)
    write(db, messages(count))
    with relaying(settings):
        until(lambda: waiting(engine) == 0, "relayed")
    assert len(lost) == 5
    assert Counter(drain(settings.amqp_url, 10 * count).values()) == {1: count}


def test_what_is_written_down_is_not_kept_in_mind_since_nobody_said_so(
    settings, db, engine, monkeypatch
):
    """The connection was lost behind the commit; later somebody mends why the row was parked."""
    settle, lost = rows.settle, []

    def lose_the_answer(connection, outcome):
        settle(connection, outcome)
        if outcome.parked and not lost:
            lost.append(outcome)
            raise OperationalError("COMMIT", None, Exception("the connection was lost"))

    def attempts():
        with engine.connect() as connection:
            return connection.scalars(text("SELECT attempts FROM outbox")).all()

    monkeypatch.setattr(rows, "settle", lose_the_answer)
    late = replace(messages(1)[0], exchange="events", routing_key="test.late")
    write(db, [late])
    with relaying(settings):
        until(lambda: lost and attempts() == [1], "parked")
        with Connection(settings.amqp_url) as connection:
            connection.default_channel.queue_bind(QUEUE, "events", "test.late")
        with engine.begin() as connection:
            connection.execute(text("UPDATE outbox SET next_try_at = now()"))
        until(lambda: attempts() != [1], "tried")
        assert attempts() == []
    assert drain(settings.amqp_url, 10) == Counter([late.message_id])


@pytest.mark.parametrize(
    ("kept", "mended_by", "is_sent"),
    [
        ("confirmed", "", False),
        ("confirmed", "fellow_ops", True),
        ("parked", "", True),
        ("doubtful", "", True),
    ],
)
def test_what_is_kept_in_mind_of_a_row_that_somebody_has_dealt_with(
    settings, db, engine, kept, mended_by, is_sent
):
    """It is due by what another relay wrote down: what went out then does not once more."""
    write(db, messages(1))
    wire = Wire()
    due = "UPDATE outbox SET next_try_at = now(), parked_at = now(), reason = 'x', mended_by = :who"
    with engine.begin() as connection:
        connection.execute(text(due), {"who": mended_by})

    async def story():
        one = apart(settings, Wire())
        one._careful._publisher = wire
        (key,) = keys(engine)
        one._unsettled[key] = (kept, "As before." if kept != "confirmed" else "")
        await one._careful.turn()
        one._engine.dispose()
        return one._unsettled

    assert asyncio.run(story()) == {}
    assert (len(wire.sent), waiting(engine)) == (is_sent, is_sent)
    assert parked(engine) == {}


def apart(settings, wire):
    """A relay whose turns are the test's, and what becomes of what it sends over this."""
    one = Relay(settings)
    one._full_speed.publisher = wire
    one._vetting.passes = lambda *_: True
    return one


def keys(engine):
    with engine.connect() as connection:
        found = connection.execute(text("SELECT sequence, message_id FROM outbox ORDER BY 1"))
        return [rows.key(row) for row in found]


LOSE = text("""
    SELECT pg_terminate_backend(pid) FROM pg_locks WHERE mode = 'RowShareLock'
    AND relation = CAST('outbox' AS regclass)
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
""")


def test_what_was_sent_is_waited_for_without_the_database_while_the_broker_has_an_alarm(
    settings, db, engine, monkeypatch
):
    """However long that is: else it would go out once more with the end of the alarm."""
    monkeypatch.setattr(full_speed, "PATIENCE", 0.05)
    write(db, messages(3))
    wire = Wire()
    wire.state = "blocked"

    async def story():
        one = apart(settings, wire)
        batch = asyncio.create_task(one._batch(0, is_thorough=False))

        async def wait(goes_on):
            while goes_on() and not batch.done():  # noqa: ASYNC110 - no event of its own
                await asyncio.sleep(0.01)

        await wait(lambda: len(wire.sent) < 3)
        with engine.begin() as other:
            assert other.execute(LOSE).all() == [(True,)]
        for _ in range(4):
            turned = one.last_turn
            await wait(lambda turned=turned: one.last_turn == turned)
        for _, confirm in wire.sent:
            confirm.set_result(None)
        with pytest.raises(DBAPIError) as lost:
            await batch
        count, _ = await one._batch(0, is_thorough=False)
        one._engine.dispose()
        return is_database_unavailable(lost.value), count

    assert asyncio.run(story()) == (True, 3)
    assert (len(wire.sent), waiting(engine)) == (3, 0)


def test_a_canary_is_neither_kept_in_mind_nor_in_a_lanes_hand(settings, db, engine):
    """Of a destination that was found stuck while the database was lost."""
    sent = messages(3)
    write(db, sent)
    wire = Wire()
    destination = (sent[0].exchange, sent[0].routing_key)

    async def story():
        one = apart(settings, wire)
        careful = one._careful
        careful._publisher, careful._alone[destination] = Wire(), wire
        careful.suspect([destination])
        first, second, _ = keys(engine)
        one._unsettled[first] = ("confirmed", "")
        one._in_hand.add(second)
        assert await careful.turn()
        assert not await careful.turn()
        assert (one._unsettled, wire.sent, waiting(engine)) == ({}, [], 2)
        one._in_hand.clear()
        assert await careful.turn()
        one._engine.dispose()

    asyncio.run(story())
    assert [message.message_id for message, _ in wire.sent] == [sent[1].message_id]


@pytest.mark.parametrize(
    ("error", "is_told"), [(UnavailableError("away"), True), (CannotTryError("full"), False)]
)
def test_what_is_kept_in_mind_changes_nothing_for_what_is_beside_it(
    settings, db, engine, monkeypatch, error, is_told
):
    """A trouble is told; behind a full batch that cannot be tried some may be known."""
    monkeypatch.setattr(relay, "BATCH", 2)
    write(db, messages(2))

    async def fail(*_):
        raise error

    async def story():
        one = apart(settings, Wire())
        one._vetting.passes = lambda *_: False
        one._vetting._kinds.add(("x", "x", "x", "x"))
        one._vetting.vet = fail
        one._unsettled[keys(engine)[0]] = ("deferred", "")
        with pytest.raises(UnavailableError) if is_told else nullcontext():
            await one._batch(0, is_thorough=False)
        one._engine.dispose()

    asyncio.run(story())
    with engine.connect() as connection:
        fresh = "SELECT count(*) FROM outbox WHERE next_try_at IS NULL"
        assert connection.scalar(text(fresh)) == (2 if is_told else 0)


@pytest.fixture
def looks(monkeypatch):
    """Behind which numbers looks begin, while none is from the start that needs not to be."""
    begun = []
    take_fresh = rows.take_fresh

    def take_and_note(connection, after, *given):
        begun.append(after)
        return take_fresh(connection, after, *given)

    monkeypatch.setattr(relay, "POLL_SECONDS", 0.1)
    monkeypatch.setattr(reached, "LATE_SECONDS", 0)
    monkeypatch.setattr(reached, "THOROUGH_SECONDS", 0.1)
    monkeypatch.setattr(reached, "ALL_SECONDS", 3_600.0)  # however slow the writes are
    monkeypatch.setattr(rows, "take_fresh", take_and_note)
    return begun


def relay_one(db, engine, looks):
    """Relay a row; returns the lowest number that a look began behind meanwhile."""
    looks.clear()
    write(db, messages(1))
    until(lambda: waiting(engine) == 0 and len(looks) > 4, "relayed, and looked again")
    return min(looks)


def walked(engine, after):
    """How many pages such a look passes over."""
    with engine.connect() as connection:
        connection.execute(text("SET enable_seqscan = off; SET enable_sort = off"))
        (plan,) = connection.scalar(WALKED, {"after": after})
    return plan["Plan"]["Shared Hit Blocks"] + plan["Plan"]["Shared Read Blocks"]


def test_a_look_passes_over_nothing_that_was_relayed(settings, db, engine, looks):
    """As long as a dump holds its snapshot, nothing of it is taken out of the table."""
    with engine.connect() as dump, relaying(settings):
        dump = dump.execution_options(isolation_level="REPEATABLE READ")
        dump.execute(text("SELECT count(*) FROM outbox"))
        for _ in range(5):
            write(db, messages(400))
            until(lambda: waiting(engine) == 0, "relayed")
        until(lambda: walked(engine, relay_one(db, engine, looks)) < 20, "none passes over it")


WALKED = text(
    "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) SELECT sequence FROM outbox "
    "WHERE next_try_at IS NULL AND sequence > :after ORDER BY sequence LIMIT 1000"
)


def test_what_is_committed_behind_others_is_relayed(settings, db, engine):
    """Numbers are given before that."""
    with relaying(settings), Session(engine) as slow:
        outbox.add(slow, messages(1))
        slow.flush()
        write(db, messages(50))
        until(lambda: waiting(engine) == 0, "the others are")
        slow.commit()
        until(lambda: waiting(engine) == 0, "it is too")
    assert len(drain(settings.amqp_url, 100)) == 51


@contextmanager
def committed(engine):
    """Numbers are given long before."""
    with Session(engine) as slow:
        outbox.add(slow, messages(1))
        slow.flush()
        yield
        slow.commit()


@contextmanager
def released(engine):
    """By another relay, which is killed with what it has in hand."""
    with Session(engine) as session:
        write(session, messages(1))
    with engine.connect() as other:
        assert other.execute(text("SELECT 1 FROM outbox FOR UPDATE")).all()
        yield


@pytest.mark.parametrize("comes", [committed, released])
def test_what_comes_long_behind_others_is_relayed(comes, settings, db, engine, looks):
    """Without a look at all that was relayed since."""
    with ExitStack() as late:
        late.enter_context(comes(engine))
        with relaying(settings):

            def others():
                write(db, messages(1))
                return max(looks, default=0) > 5

            until(others, "they are, long ago")
            late.close()
            until(lambda: waiting(engine) == 0, "it is too")


def test_a_new_connection_may_be_to_another_server(settings):
    """One that was promoted lacks the last commits, and gives their numbers once more."""

    async def story():
        one = Relay(settings)
        place = one._reached
        for now in (100.0, 105.0):
            one._engine.dispose()
            with one._engine.connect():
                assert place.after(now, ()) == 0
            place.note(now, 10)
        return place.after(110.0, ())

    assert asyncio.run(story()) == 10


def test_where_a_look_begins():
    """Behind what was dealt with a while ago; at the start where some may have been left."""
    place = Reached()
    assert place.after(100.0, ()) == 0  # at all
    place.note(100.0, 10)
    place.note(104.0, 20)
    assert place.after(104.9, ()) == 0
    assert place.after(105.0, ()) == 10
    assert place.after(109.0, {("events", "order.recorded")}) == 20
    assert place.after(110.0, ()) == 0  # what was left alone was passed over
    place.note(110.0, 30)
    assert place.after(115.0, ()) == 30
    assert place.after(130.0, ()) == 0  # what somebody wrote by hand
    assert place.after(131.0, ()) == 30
    place.forget()
    assert place.after(132.0, ()) == 0
    place.note(132.0, 40)
    assert place.after(137.0, ()) == 40
    place.change_server()
    assert place.after(138.0, ()) == 0


def thorough(place, oldest, following, came_to=None):
    """Where the look after a thorough one begins."""
    place.end(place.begin(oldest, following), 0.0, 0.0, came_to)
    return place.after(0.0, (), is_thorough=True)


def test_where_a_thorough_look_begins():
    """Behind what nobody can write any more, as a look has seen that began when nobody could."""
    place = Reached()
    place.after(0.0, ())
    place.note(0.0, 10)
    assert thorough(place, 7, 9) == 0  # 7 and 8 may write below 10
    place.note(0.0, 20)
    assert thorough(place, 8, 12) == 0
    assert thorough(place, 9, 12) == 10
    assert thorough(place, 11, 14) == 10
    assert thorough(place, 14, 14, came_to=15) == 15  # there is much
    assert thorough(place, 15, 15) == 20
    look = place.begin(16, 16)
    place.forget()
    place.end(look, 0.0, 0.0, None)
    assert place.after(0.0, (), is_thorough=True) == 0


def test_lanes_that_do_not_turn_are_said_as_long_as_they_do_not(settings, db, monkeypatch):
    """As behind somebody's `LOCK TABLE`: no error is raised, and the heartbeat goes on."""
    monkeypatch.setattr(relay, "POLL_SECONDS", 0.05)
    monkeypatch.setattr(relay, "STUCK_SECONDS", 0.5)
    with relaying(settings) as [one]:

        def says(state):
            until(lambda: (one.is_turning(), one.standings[0].status.state)[1] == state, state)

        says("working")
        db.execute(text("LOCK TABLE outbox"))
        says("holding")
        assert "a statement waits for a lock" in one.standings[0].status.reason
        db.rollback()
        says("working")


def test_what_is_rolled_back_is_never_published(settings, db, engine):
    outbox.add(db, messages(5))
    db.rollback()
    sent = messages(1)
    with relaying(settings):
        write(db, sent)
        until(lambda: depth(settings.amqp_url, QUEUE) == 1, "the later one")
    assert drain(settings.amqp_url, 10) == Counter([sent[0].message_id])


def test_two_relays_share_the_work(settings, db, engine):
    sent = messages(4000)
    write(db, sent)
    with relaying(settings, count=2):
        until(lambda: waiting(engine) == 0, "all relayed")
    assert drain(settings.amqp_url, 5000) == Counter(m.message_id for m in sent)


def test_a_row_that_no_queue_wants_stays_and_the_others_pass(settings, db, engine):
    sent = messages(50)
    lost = replace(sent[10], exchange="dead", routing_key="nowhere")
    write(db, [*sent[:10], lost, *sent[11:]])
    with relaying(settings):
        until(lambda: waiting(engine) == 1, "the others are relayed")
        write(db, messages(5))
        until(lambda: depth(settings.amqp_url, QUEUE) == 54, "and later ones")
    assert waiting(engine) == 1


def test_what_waited_in_the_outbox_goes_into_its_accounts_shard(settings, db, configure, engine):
    declare(settings.amqp_url, 3)
    sent = orders_of_shards(3, each=2)
    write(db, sent)
    with relaying(configure(intake_shards="3")):
        until(lambda: waiting(engine) == 0, "relayed")
    names = [QUEUE, *(queue.name for queue in topology.shards(3))]
    assert [depth(settings.amqp_url, name) for name in names] == [2, 2, 2]
    assert drain(settings.amqp_url, 2, names[2]) == {m.message_id: 1 for m in sent[4:]}


def test_what_a_missing_shard_returns_is_relayed_all_the_same(settings, db, configure, engine):
    """Else it would wait for somebody to declare it: it may have been made fewer meanwhile."""
    declare(settings.amqp_url, 2)
    sent = orders_of_shards(4, each=5)
    write(db, sent)
    with relaying(configure(intake_shards="4")):
        until(lambda: waiting(engine) == 0, "relayed")
    counted = drain(settings.amqp_url, 20) + drain(
        settings.amqp_url, 20, topology.shards(2)[0].name
    )
    assert counted == {m.message_id: 1 for m in sent}


@pytest.fixture
def relay_process(settings):
    running = []

    def start(**more):
        urls = {"AMQP_URL": settings.amqp_url, "DATABASE_URL": settings.database_url}
        process = spawn(
            (sys.executable, "-m", "services.relay"),
            environment=os.environ | urls | more,
            log=Path(os.devnull),
            directory=ROOT,
        )
        running.append(process)
        return process

    yield start
    for process in running:
        process.kill()
        process.wait()


def test_a_killed_relay_loses_nothing(settings, db, engine, relay_process):
    sent = messages(12_000)
    write(db, sent)
    for _ in range(2):
        process = relay_process()
        before = waiting(engine)
        until(lambda before=before: waiting(engine) < before, "progress")
        process.kill()
        process.wait()
    relay_process()
    until(lambda: waiting(engine) == 0, "all relayed")
    # A kill between confirm and commit publishes again, under the same ids.
    assert set(drain(settings.amqp_url, 20_000)) == {m.message_id for m in sent}


def test_sigterm_ends_it_cleanly(settings, db, engine, relay_process):
    process = relay_process()
    write(db, messages(10))
    until(lambda: waiting(engine) == 0, "relayed")
    process.terminate()
    assert process.wait(PATIENCE) == 0


@pytest.mark.parametrize(
    ("wrong", "mended"),
    [
        ("ALTER TABLE outbox RENAME TO elsewhere", "ALTER TABLE elsewhere RENAME TO outbox"),
        # Meets what is sent with care alone.
        (
            "UPDATE outbox SET next_try_at = now();"
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql "
            "AS 'BEGIN RAISE EXCEPTION ''it does not exist''; END';"
            "CREATE TRIGGER refuse BEFORE UPDATE ON outbox EXECUTE FUNCTION refuse()",
            "DROP TRIGGER refuse ON outbox",
        ),
    ],
)
def test_healthy_means_that_it_relays(settings, db, engine, relay_process, tmp_path, wrong, mended):
    """A database that lacks what it expects, or gives it no right, does not come back by itself."""
    file = tmp_path / "alive"
    relay_process(HEALTH_FILE=str(file))
    until(lambda: health.wrong(str(file), time.time()) == [], "healthy")
    outbox.add(db, messages(1))
    db.execute(text(wrong))
    db.commit()
    until(lambda: "does not exist" in "".join(health.wrong(str(file), time.time())), "told")
    with engine.begin() as connection:
        connection.execute(text(mended))
    until(lambda: health.wrong(str(file), time.time()) == [], "healthy again")
    until(lambda: waiting(engine) == 0, "relayed")


def test_a_closed_connection_is_opened_again(settings, db, engine, broker):
    vhost = settings.amqp_url.rpartition("/")[2]
    with relaying(settings):
        write(db, messages(10))
        until(lambda: waiting(engine) == 0, "relayed")
        broker.control("close_all_connections", f"--vhost={vhost}", "a test")
        write(db, messages(10))
        until(lambda: waiting(engine) == 0, "relayed again")
    assert depth(settings.amqp_url, QUEUE) == 20
