"""The inbox forgets what is old, whatever kind of id it has, and nothing else."""

from datetime import datetime, timedelta
from types import SimpleNamespace
from uuid import UUID

import pytest
from sqlalchemy import func, select, text, update

from shared.bus.consume import inbox
from shared.db import session as database
from shared.db.models import InboxEntry
from shared.db.session import transaction
from shared.ids import derived_id, follow_up_id, new_id
from tests.integration.arrange import ago


def old_time():
    return ago(days=inbox.KEEP_DAYS + 1)


def at(time):
    """A UUIDv7 of that time."""
    return UUID(int=int(time.timestamp() * 1000) << 80 | 0x7 << 76 | 0x2 << 62)


def late(*parts):
    """A derived id that is greater than any of today's."""
    return next(
        id_
        for n in range(1000)
        if (id_ := derived_id(*parts, n)).bytes[0] > at(old_time()).bytes[0] + 1
    )


def test_what_is_old_is_forgotten_by_its_id_or_by_its_time(settings, db):
    old, old_derived = at(old_time()), late("old")
    old_fact = follow_up_id(old_derived, "order.recorded")
    kept = [new_id(), late("new"), follow_up_id(late("new"), "order.recorded")]
    with transaction() as session:
        inbox.claim(session, "one", [old, old_derived, old_fact, *kept])
        inbox.claim(session, "other", [old, old_derived])
    db.execute(
        update(InboxEntry)
        .where(InboxEntry.message_id.in_([old, old_derived, old_fact]))
        .values(handled_at=old_time())
    )
    db.commit()
    with transaction() as session:
        inbox.prune(session, "one")
    rows = db.execute(select(InboxEntry.consumer, InboxEntry.message_id)).all()
    assert {(r.consumer, r.message_id) for r in rows} == {
        *(("one", id_) for id_ in kept),
        *(("other", id_) for id_ in (old, old_derived)),
    }


def test_an_id_of_long_ago_that_came_today_is_kept(settings, db):
    """Whoever publishes by hand writes what they like: it may come again tomorrow."""
    given = [UUID("00000000-0000-7000-8000-000000000001"), UUID(int=1), derived_id("message", 3)]
    with transaction() as session:
        inbox.claim(session, "one", given)
    with transaction() as session:
        inbox.prune(session, "one")
    assert set(db.scalars(select(InboxEntry.message_id))) == set(given)


def test_a_wrong_clock_forgets_nothing(settings, db, monkeypatch):
    """What was handled would be handled again."""
    ahead = SimpleNamespace(now=lambda zone: datetime.now(zone) + timedelta(days=400))
    monkeypatch.setattr(database, "datetime", ahead)
    with transaction() as session:
        inbox.claim(session, "one", [new_id(), late("new")])
    with transaction() as session:
        inbox.prune(session, "one")
    assert db.scalar(select(func.count()).select_from(InboxEntry)) == 2


@pytest.mark.parametrize("kind", ["by id", "derived"])
def test_what_was_handled_last_is_kept_however_long_all_was_off(settings, db, kind):
    """A power cut after the commit: the broker delivers it again when all is on once more."""
    off = inbox.KEEP_DAYS + 10
    ages = (off, off + inbox.KEEP_DAYS - 1, off + inbox.KEEP_DAYS + 1)
    ids = [at(ago(days=age)) if kind == "by id" else derived_id("off", age) for age in ages]
    with transaction() as session:
        inbox.claim(session, "one", ids)
        inbox.claim(session, "other", [new_id()])
        for id_, age in zip(ids, ages, strict=True):
            one = update(InboxEntry).where(InboxEntry.message_id == id_)
            session.execute(one.values(handled_at=ago(days=age)))
    for came, kept in ((), ids[:2]), ((new_id(),), []):
        with transaction() as session:
            inbox.claim(session, "one", came)
        with transaction() as session:
            inbox.prune(session, "one")
        of_one = select(InboxEntry.message_id).where(InboxEntry.consumer == "one")
        assert set(db.scalars(of_one)) == {*kept, *came}
        db.rollback()


def test_as_much_is_forgotten_as_can_come_in(settings, db):
    """One run takes what 5,000 messages a second leave behind until the next."""
    first = int(old_time().timestamp() * 1000) << 80 | 0x7 << 76 | 0x2 << 62
    count = int(5_000 * inbox.PRUNE_SECONDS * 1.2)
    with transaction() as session:
        inbox.claim(session, "one", [UUID(int=first | n) for n in range(count)])
        session.execute(update(InboxEntry).values(handled_at=old_time()))
        inbox.claim(session, "one", [new_id()])
    with transaction() as session:
        inbox.prune(session, "one")
    assert db.scalar(select(func.count()).select_from(InboxEntry)) == 1


def test_a_run_walks_what_it_forgets_and_nothing_else(settings, db):
    """Of a month of derived ids, one in 150 is lower than any of today: none tells its age."""
    low = [UUID(int=n << 80 | 0x5 << 76 | 0x2 << 62) for n in range(10_000)]
    old = at(old_time())
    with transaction() as session:
        inbox.claim(session, "one", [*low, old, new_id()])
        over = update(InboxEntry).where(InboxEntry.message_id == old)
        session.execute(over.values(handled_at=old_time()))
    db.execute(text("ANALYZE inbox"))
    db.commit()
    with transaction() as session:
        session.execute(text("SET LOCAL enable_seqscan = off"))  # as where there are many
        before = session.scalar(WALKED)
        inbox.prune(session, "one")
        assert session.scalar(WALKED) - before < 100
    assert db.scalar(select(func.count()).select_from(InboxEntry)) == len(low) + 1


WALKED = text(
    "SELECT seq_tup_read + idx_tup_fetch FROM pg_stat_xact_user_tables WHERE relname = 'inbox'"
)
