"""`fellow outbox`, as services.ops signs in: what is parked is seen, tried, mended, discarded."""

import json

import pytest
from sqlalchemy import create_engine, func, select, text, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session
from typer.testing import CliRunner

from services.audit.parsing import decode_fact
from services.ops import parked_messages
from services.ops.audit.actions import Actor
from services.ops.cli import app
from shared.bus import outbox
from shared.bus.contract.delivery import RawDelivery
from shared.bus.contract.events import OpsDataViewed, encode
from shared.bus.contract.message import message_for
from shared.config.settings import Settings
from shared.db.models import OutboxMessage
from tests.integration.arrange import facts, headers, order_created, take, until
from tests.integration.relay.relaying import QUEUE, relaying, waiting


@pytest.fixture
def service():
    return "ops"


@pytest.fixture
def settings_of_the_relay(settings, configure, amqp_url, database_url) -> Settings:
    from msgspec.structs import replace

    return replace(settings, amqp_url=amqp_url, database_url=database_url)


def fellow(*arguments, stdin=None):
    done = CliRunner().invoke(app, ["outbox", *arguments], input=stdin)
    return done.exit_code, done.stdout, done.stderr


@pytest.fixture
def three_parked(settings, db):
    """Three orders that the relay could not publish; their messages."""
    sent = [message_for(order_created(), source="tests", correlation_id="story") for _ in range(3)]
    outbox.add(db, sent)
    db.execute(
        text(
            "UPDATE outbox SET parked_at = now(), next_try_at = now() + interval '1 hour', "
            "attempts = 7, reason = 'it was so'"
        )
    )
    db.commit()
    return sent


def numbers(db):
    """Of what was parked; what commands tell the audit log is in the outbox too."""
    db.rollback()
    ours = select(OutboxMessage.sequence).where(OutboxMessage.type.startswith("order."))
    return list(db.scalars(ours.order_by(OutboxMessage.sequence)))


def audited(db):
    return [fact for fact in facts(db) if fact.TYPE.startswith("ops.")]


def done(db):
    """What the audit log is told was done."""
    return [fact for fact in audited(db) if not isinstance(fact, OpsDataViewed)]


def test_what_is_parked_is_listed_with_its_reason(three_parked, db):
    code, out, err = fellow("list", "--json")
    assert code == 0, err
    found = json.loads(out)
    assert found["total"] == 3
    assert [one["message_id"] for one in found["messages"]] == [m.message_id for m in three_parked]
    assert {one["reason"] for one in found["messages"]} == {"it was so"}
    number = numbers(db)[1]
    code, out, _ = fellow("show", str(number))
    assert code == 0
    assert "tried 7 times" in out
    assert "it was so" in out
    assert three_parked[1].body.decode() in out
    assert fellow("show", "9999")[0] == 1


def test_it_is_counted_to_a_bound_and_what_is_rare_by_its_index(three_parked, db, monkeypatch):
    outbox.add(db, [message_for(order_created(), source="tests", correlation_id="x")] * 5)
    found = outbox.standing(db)
    assert (found.waiting, found.parked) == (5, 3)
    assert found.waiting_age is not None
    assert found.parked_age is not None
    monkeypatch.setattr(outbox, "COUNTED", 2)
    found = outbox.standing(db)
    assert (found.waiting, found.parked) == (3, 3)
    db.execute(text("SET LOCAL enable_seqscan = off"))
    for columns in ("count(*)", "min(parked_at)", "max(sequence)"):
        plan = f"EXPLAIN SELECT {columns} FROM outbox WHERE parked_at IS NOT NULL"
        assert "ix_outbox_parked" in str(db.execute(text(plan)).all()), columns
    plan = "EXPLAIN SELECT sequence FROM audit_log WHERE type LIKE 'kyc.%'"
    assert "ix_audit_log_type" in str(db.execute(text(plan)).all())


def test_nothing_is_done_unless_it_is_confirmed(three_parked, db):
    number = str(numbers(db)[0])
    for arguments in (
        ("retry", number),
        ("retry", "--all"),
        ("discard", number, "--because", "x"),
        ("edit", number, "--about", "another"),
    ):
        assert fellow(*arguments, stdin="n\n")[0] == 1
    assert fellow("discard", number, "--because", " ", "--yes")[0] == 2
    assert fellow("retry", "--yes")[0] == 2
    assert len(numbers(db)) == 3
    assert done(db) == []


def test_what_is_tried_again_goes_out(three_parked, db, engine, settings_of_the_relay):
    number = numbers(db)[0]
    code, _, err = fellow("retry", str(number), "--yes")
    assert code == 0, err
    (told,) = done(db)
    assert (told.action, told.message_id, told.by) == (
        "retried",
        three_parked[0].message_id,
        "fellow_ops",
    )
    with relaying(settings_of_the_relay):
        until(lambda: waiting(engine) == 2, "it is out, and the fact of it")
    assert take(settings_of_the_relay.amqp_url, QUEUE).properties["message_id"] == told.message_id


def test_what_is_edited_goes_out_as_it_is_now(three_parked, db, engine, settings_of_the_relay):
    number, better = numbers(db)[2], encode(order_created(item_summary="1 x red kettle"))
    assert fellow("edit", str(number), "--body", "-", "--yes", stdin="{}")[0] == 1
    assert done(db) == []
    assert {fact.page for fact in audited(db)} == {"fellow outbox edit"}
    code, _, err = fellow("edit", str(number), "--body", "-", "--yes", stdin=better.decode())
    assert code == 0, err
    (told,) = done(db)
    assert told.action == "edited"
    assert told.digest != told.new_digest
    with relaying(settings_of_the_relay):
        until(lambda: waiting(engine) == 2, "it is out, and the fact of it")
    got = take(settings_of_the_relay.amqp_url, QUEUE)
    assert got.body == better
    assert got.properties["message_id"] == three_parked[2].message_id
    # It is not the words of who wrote it, and whoever reads it sees that.
    assert headers(got)["ce-source"] == "mended by fellow_ops"
    assert decode_fact(RawDelivery.of(got)).data.address.endswith(", mended by fellow_ops")


def test_what_ops_say_in_anothers_name_is_signed(three_parked, db, settings):
    """Whoever has its role, and no tool of ours that tells the audit log."""
    ops = create_engine(settings.database_url)
    with Session(ops) as session, session.begin():
        session.execute(text("UPDATE outbox SET next_try_at = now()"))
        session.execute(
            text(
                "UPDATE outbox SET body = body || ' '"
                " WHERE sequence IN (SELECT min(sequence) FROM outbox)"
            )
        )
        with pytest.raises(DBAPIError, match="permission denied"), session.begin_nested():
            session.execute(text("UPDATE outbox SET mended_by = ''"))
    ops.dispose()
    found = select(OutboxMessage.mended_by).order_by(OutboxMessage.sequence)
    assert list(db.scalars(found)) == ["fellow_ops", "", ""]
    assert "mended by fellow_ops" in fellow("show", str(numbers(db)[0]))[1]


def test_what_was_mended_meanwhile_is_not_overwritten(three_parked, db, monkeypatch):
    """Somebody else was faster, while this one's editor was open."""
    number, better = numbers(db)[0], encode(order_created(item_summary="1 x red kettle"))

    def slow(*_):
        of = OutboxMessage.sequence == number
        db.execute(update(OutboxMessage).where(of).values(body=better))
        db.commit()

    monkeypatch.setattr("services.ops.cli.messages.outbox.confirm", slow)
    mine = encode(order_created()).decode()
    code, _, err = fellow("edit", str(number), "--body", "-", "--yes", stdin=mine)
    assert (code, "look at it again" in err) == (1, True)
    db.rollback()
    of = select(OutboxMessage.body).where(OutboxMessage.sequence == number)
    assert db.scalar(of) == better


@pytest.mark.parametrize("action", ["retried", "discarded"])
def test_all_are_dealt_with_in_batches_and_each_is_told_of_once(
    three_parked, db, engine, monkeypatch, action
):
    """Broken off after the first, and begun again; what is due is not told of once more."""
    monkeypatch.setattr(parked_messages, "BATCH", 1)
    up_to = numbers(db)[-1]
    ada = Actor("ada", "10.0.0.7")

    def act(progress):
        if action == "retried":
            return parked_messages.retry_all(engine, ada, up_to, progress)
        return parked_messages.discard_all(engine, ada, "a test", up_to, progress)

    def break_off(so_far):
        raise ZeroDivisionError(so_far)

    with pytest.raises(ZeroDivisionError, match="1"):
        act(break_off)
    assert len(done(db)) == 1
    assert act(lambda _: None) == 2
    told = done(db)
    assert [fact.message_id for fact in told] == [m.message_id for m in three_parked]
    assert {(fact.action, fact.by, fact.digest != "") for fact in told} == {(action, "ada", True)}


def test_no_more_is_discarded_than_was_counted(three_parked, db, monkeypatch):
    def slow(question, _):
        assert "all parked messages, 3" in question
        outbox.add(db, [message_for(order_created(), source="tests", correlation_id="late")])
        late = OutboxMessage.correlation_id == "late"
        values = {"parked_at": func.now(), "next_try_at": func.now()}
        db.execute(update(OutboxMessage).where(late).values(values))
        db.commit()

    monkeypatch.setattr("services.ops.cli.messages.outbox.confirm", slow)
    assert fellow("discard", "--all", "--because", "a test")[0] == 0
    db.rollback()
    assert len(numbers(db)) == 1


def test_what_is_discarded_is_gone_and_told(three_parked, db):
    code, _, err = fellow("discard", "--all", "--because", "a test", "--yes")
    assert code == 0, err
    told = done(db)
    assert {fact.message_id for fact in told} == {m.message_id for m in three_parked}
    assert {(fact.action, fact.reason) for fact in told} == {("discarded", "a test")}
    assert all(fact.digest for fact in told)
    assert numbers(db) == []


def test_what_is_not_parked_is_not_theirs_to_change(settings, db):
    """Not even with SQL: it may be under way."""
    outbox.add(db, [message_for(order_created(), source="tests", correlation_id="story")])
    db.commit()
    (number,) = numbers(db)
    assert fellow("discard", str(number), "--because", "x", "--yes")[0] == 1
    ops = create_engine(settings.database_url)
    for statement in (
        "DELETE FROM outbox",
        "UPDATE outbox SET body = ''",
        "UPDATE outbox SET next_try_at = now()",
        "UPDATE outbox SET parked_at = now()",
        "UPDATE outbox SET written_by = 'fellow_orders'",
    ):
        refused = pytest.raises(DBAPIError, match=r"only a parked message|permission denied")
        with Session(ops) as session, refused:
            session.execute(text(statement))
    ops.dispose()
    assert numbers(db) == [number]
