"""The relay: from real rows to a real broker."""

import asyncio
import os
import sys
import time
from collections import Counter
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from msgspec.structs import replace
from sqlalchemy import text
from sqlalchemy.orm import Session

from services.relay import reached, relay, rows
from services.relay.reached import Reached
from services.relay.relay import Relay
from shared import health
from shared.bus import outbox
from stack.folders import ROOT
from tests.integration.arrange import PATIENCE, depth, headers, take, until
from tests.integration.relay.relaying import QUEUE, drain, messages, relaying, waiting, write
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
def let_go(engine):
    """By another relay, which is killed with what it has in hand."""
    with Session(engine) as session:
        write(session, messages(1))
    with engine.connect() as other:
        assert other.execute(text("SELECT 1 FROM outbox FOR UPDATE")).all()
        yield


@pytest.mark.parametrize("comes", [committed, let_go])
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
