"""What a look says while the database does only a part of its work."""

from contextlib import closing

import pytest

from services.ops.console.pages.overview import tiles
from services.ops.monitoring import episodes
from services.ops.monitoring.snapshot import Looker
from tests.integration.arrange import only_read


@pytest.fixture
def service():
    return "ops"


def database_tile(look):
    (found,) = [tile for tile in tiles(look, [look]) if tile.title == "Database"]
    return found.figure, found.is_well


def test_a_database_that_takes_no_writes_is_said_and_the_rest_goes_on(settings, engine):
    with closing(Looker(settings)) as looker:
        before = looker.look()
        with only_read(engine):
            look = looker.look()
        after = looker.look()
    assert look.at > before.at
    (said,) = [trouble for trouble in look.troubles if trouble.about == "database"]
    assert (said.level, said.key) == ("down", "database: read-only")
    assert "read-only transaction" in said.text
    assert database_tile(look) == ("read-only", False)
    # What can be read is read, and what was known of the others is.
    assert look.books is not None
    assert look.sample.beats is not None
    assert before.episodes
    assert {key: one.id for key, one in look.episodes.items()} == {
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

    with closing(Looker(settings)) as looker:
        before = looker.look()
        monkeypatch.setattr(episodes, "keep", lose)
        look = looker.look()
    assert "database: away" in {trouble.key for trouble in look.troubles}
    assert database_tile(look) == ("away", False)
    assert set(look.episodes) == set(before.episodes) & {one.key for one in look.troubles}
