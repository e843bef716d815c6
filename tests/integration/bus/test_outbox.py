"""What cannot be published is refused where it is written; no fact is lost over a long name."""

from collections import Counter
from datetime import UTC, datetime

import pytest
from alembic import command
from msgspec.structs import replace
from sqlalchemy import create_engine, text
from sqlalchemy.exc import IntegrityError

from shared.bus import outbox
from shared.bus.contract.events import OpsSignInFailed
from shared.bus.contract.message import message_for
from shared.db import migrate
from tests.integration.arrange import until
from tests.integration.relay.relaying import drain, messages, relaying, waiting, write

SHORT = ("exchange", "routing_key", "type", "correlation_id", "source", "traceparent")
LONG = {"256 letters": "x" * 256, "64 emoji": "😀" * 64, "86 of three bytes": "€" * 86}


@pytest.fixture
def empty_database(database):
    database.execute("CREATE DATABASE outbox_before")
    yield database.url("outbox_before")
    database.execute("DROP DATABASE outbox_before WITH (FORCE)")


@pytest.mark.parametrize("value", LONG.values(), ids=LONG)
@pytest.mark.parametrize("name", SHORT)
def test_a_string_that_amqp_cannot_hold_is_refused_by_name(name, value, db, engine):
    good, bad = messages(1)[0], replace(messages(1)[0], **{name: value})
    with pytest.raises(outbox.UnpublishableError, match=f"The {name} of a message may have 255"):
        outbox.add(db, [good, bad])
    db.commit()
    assert waiting(engine) == 0


def test_a_body_that_no_broker_takes_is_refused(db, engine):
    bad = replace(messages(1)[0], body=b"x" * (outbox.MAX_BODY_BYTES + 1))
    with pytest.raises(outbox.UnpublishableError, match="The body of a message may have"):
        outbox.add(db, [bad])
    db.commit()
    assert waiting(engine) == 0


def test_what_can_be_asked_for_in_a_loop_is_left_once(db, engine):
    message, other = messages(2)
    outbox.add_once(db, message)
    db.rollback()
    assert waiting(engine) == 0
    for one in (message, message, other):
        outbox.add_once(db, one)
        db.commit()
    assert waiting(engine) == 2


@pytest.mark.parametrize("name", SHORT)
def test_the_table_refuses_it_too(name, db, engine, monkeypatch):
    monkeypatch.setattr(outbox, "check", lambda _: None)
    # 64 characters fit the column, and their 256 bytes do not fit AMQP.
    with pytest.raises(IntegrityError, match="ck_outbox_short_strings"):
        outbox.add(db, [replace(messages(1)[0], **{name: "😀" * 64})])
    db.rollback()


@pytest.mark.parametrize("value", LONG.values(), ids=LONG)
def test_what_a_fact_is_about_is_cut_and_the_fact_goes_out(value, settings, db, engine):
    fact = OpsSignInFailed(by=value, address="203.0.113.7")
    made = message_for(fact, source="tests", correlation_id=value)
    assert len(made.correlation_id.encode()) <= 255
    assert value.startswith(made.correlation_id)
    write(db, [made])
    with relaying(settings):
        until(lambda: waiting(engine) == 0, "relayed")
    assert drain(settings.amqp_url, 10, "audit") == Counter([made.message_id])


def test_rows_from_before_the_bound_survive_the_migration(empty_database):
    """And what an older release writes beside it is taken as before."""
    config = migrate.config(empty_database)
    command.upgrade(config, "0005")
    engine = create_engine(empty_database)
    row = (
        "INSERT INTO outbox (message_id, exchange, routing_key, type, correlation_id, source, "
        "time, body) VALUES (gen_random_uuid(), 'intake', 'k', 't', :about, 's', :now, '')"
    )
    values = {"about": "😀" * 64, "now": datetime.now(UTC)}
    with engine.begin() as connection:
        connection.execute(text(row), values)
    migrate.upgrade(empty_database)
    with engine.begin() as connection:
        connection.execute(text(row), values | {"about": "story"})
        found = connection.execute(
            text(
                "SELECT octet_length(correlation_id), attempts, next_try_at, written_by "
                "FROM outbox ORDER BY sequence"
            )
        ).all()
    engine.dispose()
    assert [tuple(one)[:3] for one in found] == [(252, 0, None), (5, 0, None)]
    assert len({one.written_by for one in found}) == 1
