"""Troubles in the database: one row from the beginning to the end, and what people say of it."""

import threading
from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import text

from services.ops.audit.actions import Actor
from services.ops.monitoring import episodes
from services.ops.monitoring.alerts import Trouble
from services.ops.monitoring.episodes import OVER
from shared.bus.contract.events import decode
from shared.db.models import OpsTrouble, OutboxMessage
from shared.db.session import transaction
from tests.integration.arrange import until
from tests.unit.ops.monitoring.samples import at, sample

ADA = Actor("ada", "10.0.0.7")
MAIL = Trouble("down", "mail", "The mail server does not answer: 3 emails wait.", "away")
DEAD = Trouble("warning", "orders.intake", "3 dead letters in orders.intake", "dead letters")


@pytest.fixture
def service():
    return "ops"


def seen(seconds, *troubles, **more):
    with transaction() as session:
        return episodes.keep(session, replace(sample(seconds), **more), troubles)


def test_one_that_ends_and_comes_back_is_new(settings, db):
    first = seen(0, MAIL)[MAIL.key]
    with transaction() as session:
        assert episodes.acknowledge(session, first.id, ADA, "On it.", at(1))
        assert episodes.mute(session, first.id, ADA, None)
    # A look that misses it is no end.
    assert seen(12, MAIL)[MAIL.key].id == first.id
    seen(24)
    kept = seen(36, Trouble("down", "mail", "4 emails wait.", "away"))[MAIL.key]
    assert (kept.id, kept.text, kept.acknowledged_by) == (first.id, "4 emails wait.", "ada")
    assert kept.is_muted(at(10_000))
    later = 36 + OVER.total_seconds() + 1
    assert seen(later) == {}
    again = seen(later + 12, MAIL)[MAIL.key]
    assert again.id != first.id
    assert (again.acknowledged_by, again.note, again.muted_by) == ("", "", "")
    ended = db.get(OpsTrouble, first.id)
    assert (ended.began_at, ended.ended_at) == (at(0), at(36))


def test_what_cannot_be_seen_has_not_ended(settings):
    kept = seen(0, MAIL, DEAD)
    hidden = seen(100, broker_error="it is away")
    # Of the mail server others tell.
    assert {key: one.id for key, one in hidden.items()} == {DEAD.key: kept[DEAD.key].id}


def test_it_is_audited_and_what_has_ended_is_left(settings, db):
    one = seen(0, MAIL)[MAIL.key]
    with transaction() as session:
        assert episodes.acknowledge(session, one.id, ADA, "On it.", at(1))
        assert episodes.mute(session, one.id, ADA, at(3600))
        assert episodes.unmute(session, one.id, ADA)
    rows = db.query(OutboxMessage).order_by(OutboxMessage.sequence)
    facts = [decode(row.type, row.body) for row in rows]
    assert [(f.by, f.action, f.trouble, f.note, f.until) for f in facts] == [
        ("ada", "acknowledged", "mail: away", "On it.", None),
        ("ada", "muted", "mail: away", "", at(3600)),
        ("ada", "unmuted", "mail: away", "", None),
    ]
    seen(100)
    with transaction() as session:
        assert not episodes.acknowledge(session, one.id, ADA, "", at(200))
        assert not episodes.mute(session, one.id, ADA, None)
        assert not episodes.unmute(session, one.id, ADA)


def test_a_mute_runs_out(settings):
    one = seen(0, MAIL)[MAIL.key]
    with transaction() as session:
        episodes.mute(session, one.id, ADA, at(3600))
        found = episodes.find(session, one.id)
    assert found.is_muted(at(3599))
    assert not found.is_muted(at(3600))


def test_two_consoles_that_look_at_once_write_one_row(settings, db):
    """The second has looked before the first commits: it waits, and then leaves it be."""
    found = []

    def look():
        found.append(seen(0, MAIL)[MAIL.key].id)

    with transaction() as session:
        first = episodes.keep(session, sample(0), [MAIL])[MAIL.key].id
        other = threading.Thread(target=look)
        other.start()
        until(lambda: waits(db), "the other waits")
    other.join(30)
    assert found == [first]
    assert db.query(OpsTrouble).count() == 1


def waits(db):
    db.rollback()
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
    return db.scalar(text(f"{waiting} AND datname = current_database()"))


def test_those_of_long_ago_are_forgotten(settings, db):
    seen(0, MAIL)
    seen(100)
    assert db.query(OpsTrouble).count() == 1
    seen(timedelta(days=31).total_seconds())
    assert db.query(OpsTrouble).count() == 0
