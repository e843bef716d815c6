"""What a rehearsal says of what goes wrong, and that nothing makes it last or be real."""

import threading

import pytest
from psycopg2.errors import UniqueViolation
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from services.orders.__main__ import wire
from shared.bus.consume.batch import each
from shared.bus.consume.rehearsals import requests
from shared.bus.consume.rehearsals.trying import LOCK_SECONDS, WHOLE_SECONDS, by_itself, rehearse
from shared.bus.consume.subscription import Subscription, decoding
from shared.bus.contract import topology
from shared.bus.contract.errors import Permanent, Retry
from shared.bus.contract.events import OrderCreated, encode
from shared.db.models import InboxEntry, Rehearsal
from shared.db.session import make_engine
from tests.integration.arrange import PATIENCE, order_created
from tests.integration.rehearsal.messages import arriving

INTAKE = topology.ORDERS_INTAKE
CONSUMER = "services.orders"
ORDER = order_created()
ASKED = arriving("order.created", encode(ORDER), key=INTAKE.name)


@pytest.fixture
def service():
    return "orders"


@pytest.fixture
def alone(settings):
    return make_engine(settings, is_pooled=False)


def tried(alone, act):
    """The report of a rehearsal of a handler."""
    handle = each({OrderCreated: act})
    subscription = Subscription(queue=INTAKE, consumer=CONSUMER, handle=handle)
    return rehearse(alone, CONSUMER, decoding(subscription), by_itself(handle), ASKED)


def raising(error):
    def act(session, received):
        session.execute(text("INSERT INTO inbox VALUES ('services.orders', gen_random_uuid())"))
        raise error

    return act


@pytest.mark.parametrize(
    ("error", "outcome", "words"),
    [
        (Permanent("no such account"), "dead", "a dead letter again at once: no such account"),
        (Retry("this account has no order 7"), "retried", "for four hours: this account has no"),
        (ZeroDivisionError("by nought"), "retried", "for four hours: ZeroDivisionError: by nought"),
    ],
)
def test_a_poison_message_says_its_error(alone, db, error, outcome, words):
    report = tried(alone, raising(error))
    assert report.outcome == outcome
    assert words in report.sentence
    assert report.changes == report.facts == report.emails == []
    assert db.query(InboxEntry).count() == 0


def test_what_is_written_behind_a_savepoint_is_shown(alone, db):
    def act(session, received):
        for _ in range(2):
            with session.begin_nested():
                session.execute(
                    text("INSERT INTO order_conflicts (event_id, order_id, account_id, event, at)"
                         " VALUES (gen_random_uuid(), :order, :order, '{}', now())"),
                    {"order": ORDER.order_id},
                )  # fmt: skip

    (changes,) = tried(alone, act).changes
    assert (changes.table, changes.inserted, len(changes.rows)) == ("order_conflicts", 2, 2)


@pytest.mark.parametrize("keyed", [True, False])
def test_what_the_inbox_knows_is_handled_again_where_it_would_be(alone, db, keyed):
    handle = each({OrderCreated: lambda *_: None})
    subscription = Subscription(queue=INTAKE, consumer=CONSUMER, handle=handle, keyed=keyed)
    again = arriving("order.created", encode(ORDER), key=INTAKE.name, **{"x-replay": "again"})
    db.add(InboxEntry(consumer=CONSUMER, message_id=again.message_id))
    db.commit()
    report = rehearse(
        alone, CONSUMER, decoding(subscription), by_itself(handle), again, keyed=keyed
    )
    assert report.outcome == ("done" if keyed else "known")


def test_what_is_not_understood_says_so(settings, alone):
    (subscription,) = wire(settings).subscriptions
    for body, key, words in (
        (b'{"order_id": 1}', INTAKE.name, "order_id"),
        (b"\xff", INTAKE.name, "a dead letter again at once"),
        (encode(ORDER), "another", "which is none of orders.intake's"),
    ):
        incoming = arriving("order.created", body, key=key)
        rehearsed = subscription.rehearsed
        report = rehearse(alone, CONSUMER, decoding(subscription), rehearsed, incoming)
        assert report.outcome == "dead"
        assert words in report.sentence


def test_a_handler_that_commits_commits_nothing(alone, db):
    """By its session it cannot; and past that the database refuses it."""
    refused = []

    def act(session, received):
        session.execute(text("INSERT INTO inbox VALUES ('services.orders', gen_random_uuid())"))
        session.commit()
        try:
            session.connection().exec_driver_sql("COMMIT")
        except IntegrityError as error:
            refused.append(error.orig)
            raise

    report = tried(alone, act)
    assert report.outcome == "retried"
    assert isinstance(refused[0], UniqueViolation)
    assert db.query(InboxEntry).count() == 0


def test_it_waits_for_nobody_who_is_at_work(alone, engine):
    def act(session, received):
        session.execute(text("SELECT pg_advisory_xact_lock(7)"))

    with engine.begin() as busy:
        busy.execute(text("SELECT pg_advisory_xact_lock(7)"))
        report = tried(alone, act)
        # Who waits for longer would have waited for this one.
        assert (
            float(LOCK_SECONDS) * 1000
            < busy.execute(
                text("SELECT setting::float FROM pg_settings WHERE name = 'deadlock_timeout'")
            ).scalar_one()
        )
    assert report.outcome == "unknown"
    assert "it took too long, or a row that it needs is locked" in report.sentence
    assert tried(alone, act).outcome == "done"


def test_nobody_waits_for_it_for_long(alone, engine):
    """What it holds is free again although its handler would go on."""
    begun = threading.Event()
    reports = []

    def act(session, received):
        session.execute(text("SELECT pg_advisory_xact_lock(8)"))
        begun.set()
        for _ in range(1_000):
            session.execute(text("SELECT pg_sleep(0.5)"))

    thread = threading.Thread(target=lambda: reports.append(tried(alone, act)))
    thread.start()
    assert begun.wait(PATIENCE)
    with engine.begin() as waiting:
        waiting.execute(text("SELECT pg_advisory_xact_lock(8)"))  # by the test's own bound
    thread.join()
    assert reports[0].outcome == "unknown"
    assert WHOLE_SECONDS < 30  # the server's own bound for whoever is idle


def test_what_kills_the_process_is_tried_once(settings, alone, db):
    """It is taken in a transaction of its own, so whoever starts next leaves it alone."""

    class Killed(BaseException):
        pass

    def kill(session, messages):
        raise Killed

    subscription = Subscription(
        queue=INTAKE, consumer=CONSUMER, handle=kill, rehearsed=by_itself(kill)
    )
    requests.ask(db, INTAKE.name, ASKED)
    db.commit()
    answer = requests.answering([subscription], alone, "x")
    with pytest.raises(Killed):
        answer(db)
    answer(db)
    assert db.query(Rehearsal.report).all() == [(None,)]


def test_questions_and_answers_do_not_stay(settings, alone, db):
    for _ in range(3):
        requests.ask(db, INTAKE.name, ASKED)
    db.execute(text("UPDATE rehearsals SET asked_at = now() - interval '2 minutes'"))
    db.commit()
    requests.answering(wire(settings).subscriptions, alone, "x")(db)
    assert db.query(Rehearsal).count() == 0


def test_what_cannot_be_rehearsed_is_not_tried(settings, alone, db):
    """A subscription that does not say how: its handler may reach anywhere."""
    called = []
    subscription = Subscription(
        queue=INTAKE, consumer=CONSUMER, handle=lambda *given: called.append(given)
    )
    requests.ask(db, INTAKE.name, ASKED)
    db.commit()
    requests.answering([subscription], alone, "x")(db)
    db.rollback()
    assert db.query(Rehearsal.taken_at, Rehearsal.report).all() == [(None, None)]
    assert called == []
