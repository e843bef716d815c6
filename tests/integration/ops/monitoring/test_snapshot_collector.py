"""What a look says while the database does only a part of its work."""

from contextlib import closing
from datetime import UTC, datetime, timedelta

import pytest

from services.ops.console.pages.overview import tiles
from services.ops.monitoring import episodes, order_flow
from services.ops.monitoring.order_flow import FEW, MANY
from services.ops.monitoring.snapshot import SnapshotCollector
from shared.db.models import EmailDelivery
from shared.ids import new_id
from shared.synthetic import DOMAIN
from tests.integration.arrange import only_read


@pytest.fixture
def service():
    return "ops"


def database_tile(snapshot):
    (found,) = [tile for tile in tiles(snapshot, [snapshot]) if tile.title == "Database"]
    return found.figure, found.is_well


def test_a_database_that_takes_no_writes_is_said_and_the_rest_goes_on(settings, engine):
    with closing(SnapshotCollector(settings)) as collector:
        before = collector.collect()
        with only_read(engine):
            snapshot = collector.collect()
        after = collector.collect()
    assert snapshot.at > before.at
    (said,) = [trouble for trouble in snapshot.troubles if trouble.about == "database"]
    assert (said.level, said.key) == ("down", "database: read-only")
    assert "read-only transaction" in said.text
    assert database_tile(snapshot) == ("read-only", False)
    # What can be read is read, and what was known of the others is.
    assert snapshot.stats is not None
    assert snapshot.sample.beats is not None
    assert before.episodes
    assert {key: one.id for key, one in snapshot.episodes.items()} == {
        key: one.id for key, one in before.episodes.items()
    }
    assert "database: read-only" not in {trouble.key for trouble in after.troubles}
    assert database_tile(after) == ("up", True)


def test_a_database_that_goes_within_a_look_is_said(settings, engine, monkeypatch):
    keep = episodes.keep

    def lose(session, *given):
        session.connection()
        with engine.begin() as connection:
            connection.exec_driver_sql(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        return keep(session, *given)

    with closing(SnapshotCollector(settings)) as collector:
        before = collector.collect()
        monkeypatch.setattr(episodes, "keep", lose)
        snapshot = collector.collect()
    assert "database: away" in {trouble.key for trouble in snapshot.troubles}
    assert database_tile(snapshot) == ("away", False)
    assert set(snapshot.episodes) == set(before.episodes) & {one.key for one in snapshot.troubles}


MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)


@pytest.mark.parametrize(
    ("emails", "tried", "refused"),
    [
        ([], 0, 0),
        # However seldom one is sent, those of the last day count, up to a hundred.
        ([("refused", 8, 2 * HOUR), ("sent", 4, 3 * HOUR)], 12, 8),
        ([("refused", 9, HOUR), ("sent", FEW - 1, MINUTE)], FEW, 1),
        ([("refused", 9, 25 * HOUR)], 0, 0),
        # Where many are, those of the last minutes.
        ([("refused", 9, 10 * MINUTE), ("sent", FEW, MINUTE)], FEW + 9, 9),
        ([("refused", 9, 10 * MINUTE), ("sent", MANY, MINUTE)], MANY, 0),
        # What we did not send, and nobody's.
        ([("not sent", 9, MINUTE), ("proof", 9, MINUTE), ("left", 9, MINUTE)], 0, 0),
    ],
)
def test_how_many_of_the_newest_emails_were_refused(db, emails, tried, refused):
    responses = {"refused": "550 5.7.1 policy", "not sent": "550 not sent: it is blocked"}
    states = {"sent": "sent", "proof": "sent", "left": "unsubscribed"}
    now = datetime.now(UTC)
    for what, count, ago in emails:
        db.add_all(
            EmailDelivery(
                fact_id=new_id(),
                subject_id="x",
                recipient=f"zoe@{DOMAIN if what == 'proof' else 'shop.example'}",
                template="order_received",
                message_id="<x@y>",
                state=states.get(what, "undeliverable"),
                response=responses.get(what, ""),
                at=now - ago,
            )
            for _ in range(count)
        )
    db.flush()
    found = order_flow.refusals(db)
    assert (found.tried, found.refused) == (tried, refused)
    assert found.response == ("550 5.7.1 policy" if refused else "")
    assert (found.first is None) is (refused == 0)
