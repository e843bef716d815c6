"""A one-time code is mailed while it is good, by the clock that gave it its end."""

from datetime import UTC, datetime, timedelta

import pytest
from msgspec.structs import replace
from sqlalchemy import text

from services.notifier.bounds import Bounds
from services.notifier.rehearsal import RehearsedNotifier
from shared.ids import new_id
from tests.integration.arrange import received
from tests.unit.notifier.facts import FACTS


def mails(db, fact, database_is_ahead):
    """Whether it is mailed where the database's clock is that much ahead of this host's."""
    # Names without a schema are looked up in this order.
    db.execute(text("CREATE SCHEMA IF NOT EXISTS wrong"))
    db.execute(
        text(
            "CREATE OR REPLACE FUNCTION wrong.clock_timestamp() RETURNS timestamptz LANGUAGE sql "
            f"AS 'SELECT pg_catalog.clock_timestamp() + interval ''{database_is_ahead} s'''"
        )
    )
    db.execute(text("SET LOCAL search_path = wrong, pg_catalog, public"))
    emails = []
    RehearsedNotifier(emails, "us@fellow.example", Bounds(5))(db, [received(fact)])
    db.rollback()
    return bool(emails)


@pytest.mark.parametrize(
    ("database_is_ahead", "ends_in", "is_mailed"),
    [(0, 300, True), (0, -1, False), (900, 300, False), (-900, -300, True)],
)
def test_a_code_that_is_over_is_mailed_to_nobody(db, database_is_ahead, ends_in, is_mailed):
    ends = datetime.now(UTC) + timedelta(seconds=ends_in)
    fact = replace(FACTS["one_time_code"], expires_at=ends, account_id=new_id())
    assert mails(db, fact, database_is_ahead) is is_mailed
