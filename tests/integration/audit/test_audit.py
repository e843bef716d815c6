"""The audit log: everything that was told is in it, once, and nothing can be changed unseen."""

import csv
import io
import json
from datetime import UTC, datetime
from uuid import UUID

import pytest
from sqlalchemy import create_engine, event, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from services.accounts import guesses, sign_in
from services.audit.__main__ import wire
from services.audit.handlers import write
from services.audit.parsing import Fact
from services.ingress.request_log import rows as request_log_rows
from services.ops.audit import log
from shared.bus.contract.events import (
    AccountSignInFailed,
    KycApproved,
    OpsDeadLetterDiscarded,
    SecretRotated,
    decode,
    encode,
)
from shared.bus.contract.message import message_for
from shared.db.locking.advisory_locks import AUDIT_CHAIN
from shared.db.models import AuditEntry, OutboxMessage
from shared.db.session import transaction
from shared.http.errors import ApiError
from shared.ids import new_id
from shared.security import passwords
from shared.security.audit_chain import Content, link
from tests.integration.arrange import (
    account,
    consuming,
    depth,
    publish,
    publish_raw,
    received,
)
from tests.integration.ops.cli.test_cli import fellow


def approved(**changes):
    values = {
        "account_id": new_id(),
        "company_name": "Kettle & Co",
        "email": "it@kettle.example",
        "application_id": new_id(),
        "decided_by": "ada",
    }
    return KycApproved(**(values | changes))


def tell(settings, *facts):
    messages = [message_for(f, source="tests", correlation_id=new_id()) for f in facts]
    publish(settings.amqp_url, *messages)
    return messages


def auditing(settings):
    return consuming(settings, *wire(settings).subscriptions)


def rows(db):
    db.rollback()
    return db.query(AuditEntry).order_by(AuditEntry.sequence).all()


@pytest.fixture
def books(database_url):
    """The database alone, with twenty rows."""
    made = create_engine(database_url)
    with Session(made) as session, session.begin():
        for i in range(20):
            fact = Fact(f"ada{i}", "tests", "{}")
            write(session, [received(approved(), data=fact)])
    yield made
    made.dispose()


def verdict(engine, **more):
    with Session(engine) as session:
        return log.verify(session, **more)


def tamper(engine, *statements):
    """As a superuser, who may take the trigger away."""
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE audit_log DISABLE TRIGGER ALL"))
        for statement in statements:
            connection.execute(text(statement))
        connection.execute(text("ALTER TABLE audit_log ENABLE TRIGGER ALL"))


def test_who_what_when_and_from_where(settings, db):
    account = new_id()
    told = tell(
        settings,
        approved(),
        AccountSignInFailed(email="it@kettle.example", account_id=None, address="192.0.2.7"),
        OpsDeadLetterDiscarded(
            by="bob",
            address="bob@desk",
            queue="orders.intake",
            message_id="x",
            message_type="order.created",
            reason="a test",
            digest="00",
        ),
        SecretRotated(
            account_id=account,
            company_name="K",
            email="it@kettle.example",
            secret_id=new_id(),
            expires_at=told_at(),
            previous_secret_id=new_id(),
            previous_valid_until=told_at(),
            cause="scheduled",
        ),
    )
    with auditing(settings):
        pass
    found = rows(db)
    assert [(r.actor, r.address) for r in found] == [
        ("ada", "tests"),
        ("it@kettle.example", "192.0.2.7"),
        ("bob", "bob@desk"),
        ("the system", "tests"),
    ]
    assert [str(r.event_id) for r in found] == [m.message_id for m in told]
    assert [r.type for r in found] == [m.type for m in told]
    assert [r.correlation_id for r in found] == [m.correlation_id for m in told]
    assert [r.data.encode() for r in found] == [m.body for m in told]


def told_at():
    return datetime.now(UTC)


def test_another_fact_under_a_known_id_is_written_down_too_and_once(settings, db):
    """The inbox forgets after a month; what happened must not be lost over whose id it has."""
    one, other = (approved(company_name=name) for name in ("Kettle & Co", "Pots & Co"))
    messages = [received(fact, id=UUID(int=1), data=as_kept(fact)) for fact in (one, other, one)]
    for batch in (messages[:1], messages[1:2], messages[1:], messages):
        with transaction() as session:
            write(session, batch)
    found = rows(db)
    assert [row.data for row in found] == [as_kept(fact).data for fact in (one, other)]
    assert found[0].event_id == UUID(int=1)


def as_kept(fact):
    return Fact("ada", "tests", encode(fact).decode())


def test_each_fact_once_also_after_a_replay(settings, db, engine):
    (message,) = tell(settings, approved())
    publish(settings.amqp_url, message)
    with auditing(settings):
        pass
    assert len(rows(db)) == 1
    header = {"x-replay": "again", "ce-source": "tests"}
    publish_raw(
        settings.amqp_url,
        "",
        "audit",
        message.body,
        type=message.type,
        message_id=message.message_id,
        application_headers=header,
    )
    with auditing(settings):
        pass
    assert len(rows(db)) == 1
    assert verdict(engine).faults == ()


def test_a_fact_that_this_version_does_not_know_is_kept(settings, db):
    publish_raw(
        settings.amqp_url,
        "events",
        "webhook.policy_changed",
        b'{"by": "ada"}',
        type="webhook.policy_changed",
        message_id=str(new_id()),
    )
    with auditing(settings):
        pass
    assert [(row.type, row.actor) for row in rows(db)] == [("webhook.policy_changed", "ada")]


def test_what_is_no_fact_is_put_aside(settings, db):
    for body, type_ in ((b"[1]", "kyc.approved"), (b"\xff", "kyc.approved"), (b"{}", None)):
        publish_raw(settings.amqp_url, "events", "kyc.approved", body, type=type_)
    with auditing(settings):
        pass
    assert depth(settings.amqp_url, "audit.dead") == 3
    assert rows(db) == []


def test_two_writers_make_one_chain(settings, db, engine):
    messages = [approved() for _ in range(300)]
    tell(settings, *messages)
    both = [*wire(settings).subscriptions, *wire(settings).subscriptions]
    with consuming(settings, *both):
        pass
    assert [row.sequence for row in rows(db)] == list(range(1, 301))
    assert verdict(engine).faults == ()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit_log SET actor = 'nobody'",
        "DELETE FROM audit_log WHERE sequence = 1",
        "TRUNCATE audit_log",
    ],
)
def test_not_even_the_owner_changes_it(books, statement):
    with pytest.raises(DBAPIError, match="audit_log is append-only"), books.begin() as connection:
        connection.execute(text(statement))


@pytest.mark.parametrize(
    ("statements", "row", "why"),
    [
        (["UPDATE audit_log SET actor = 'eve' WHERE sequence = 7"], 7, "not as it was written"),
        (["UPDATE audit_log SET happened_at = now() WHERE sequence = 7"], 7, "not as it was"),
        (["DELETE FROM audit_log WHERE sequence = 7"], 7, "row 7 is missing"),
        (["DELETE FROM audit_log WHERE sequence < 4"], 1, "rows 1 to 3 are missing"),
        (
            # Two rows change places.
            [
                "UPDATE audit_log SET sequence = -1 WHERE sequence = 7",
                "UPDATE audit_log SET sequence = 7 WHERE sequence = 15",
                "UPDATE audit_log SET sequence = 15 WHERE sequence = -1",
            ],
            7,
            "row 7 does not continue row 6",
        ),
    ],
)
def test_what_a_superuser_does_is_found_and_named(books, statements, row, why):
    assert verdict(books).faults == ()
    tamper(books, *statements)
    first = verdict(books).faults[0]
    assert first.sequence == row
    assert why in first.text


def test_a_cut_off_end_is_found_by_the_inbox_and_by_a_noted_head(settings, engine):
    tell(settings, *(approved() for _ in range(20)))
    with auditing(settings):
        pass
    before = verdict(engine)
    tamper(engine, "DELETE FROM audit_log WHERE sequence > 18")
    faults = verdict(engine).faults
    assert [f.text.endswith("its row is missing") for f in faults] == [True, True]
    tamper(engine, "DELETE FROM inbox")
    assert verdict(engine).faults == ()
    (fault,) = verdict(engine, noted=before.head).faults
    assert fault.text == "rows 19 to 20 are missing"


def test_a_log_written_anew_is_found_by_a_noted_head(books):
    before = verdict(books)
    changes, previous = [], bytes(32)
    with Session(books) as session:
        found = session.query(AuditEntry).order_by(AuditEntry.sequence).all()
    for row in found:
        values = {name: getattr(row, name) for name in Content.__slots__} | {"actor": "eve"}
        hashed = link(previous, Content(**values))
        changes.append(
            f"UPDATE audit_log SET actor = 'eve', previous_hash = '\\x{previous.hex()}',"
            f" hash = '\\x{hashed.hex()}' WHERE sequence = {row.sequence}"
        )
        previous = hashed
    tamper(books, *changes)
    assert verdict(books).faults == ()
    (fault,) = verdict(books, noted=before.head).faults
    assert "written anew" in fault.text


def test_the_command(settings, engine):
    names = ("ada0", "ada1", "ada2", "=cmd|calc")
    tell(settings, *(approved(decided_by=name) for name in names))
    with auditing(settings):
        pass
    code, out, _ = fellow(settings, "audit", "list", "--search", "ADA1", "--json")
    assert code == 0
    (entry,) = json.loads(out)
    assert entry["actor"] == "ada1"
    assert json.loads(entry["data"])["decided_by"] == "ada1"
    code, out, _ = fellow(settings, "audit", "list", "--csv", "--type", "kyc.*")
    lines = list(csv.DictReader(io.StringIO(out)))
    assert [line["actor"] for line in lines] == ["'=cmd|calc", "ada2", "ada1", "ada0"]
    assert fellow(settings, "audit", "list", "--since", "2100-01-01", "--json")[1].strip() == "[]"
    code, head, err = fellow(settings, "audit", "verify")
    assert (code, "4 rows, 0 faults" in err) == (0, True)
    code, _, err = fellow(settings, "audit", "verify", "--head", head.strip())
    assert code == 0, err
    tamper(engine, "UPDATE audit_log SET data = '{}' WHERE sequence = 2")
    code, out, _ = fellow(settings, "audit", "verify")
    assert code == 1
    assert out.splitlines()[0] == "row 2 is not as it was written, or not where"


def test_a_failed_sign_in_is_told_once_a_minute(settings, db):
    known = account(db)
    for email in (known.email, known.email.upper(), "nobody@shop.example"):
        for _ in range(2):
            with transaction() as session:
                answer = sign_in.sign_in(session, email, "wrong password", "192.0.2.7")
            assert isinstance(answer, ApiError)
    told = [decode(row.type, row.body) for row in failures(db)]
    assert [fact.account_id for fact in told].count(None) == 1
    assert len(told) in (2, 3)  # a minute may have ended


def failures(db):
    db.rollback()
    return db.query(OutboxMessage).filter_by(type="account.sign_in_failed").all()


def fail(email, address):
    with transaction() as session:
        assert isinstance(sign_in.sign_in(session, email, "wrong password", address), ApiError)


def test_strangers_grow_the_log_within_bounds(settings, db, monkeypatch):
    """Nothing is ever taken out of it, and they have as many addresses as they like."""
    monkeypatch.setattr(guesses, "FAILURES_AN_HOUR", 5)
    for n in range(5):
        fail(f"nobody{n}@shop.example", f"2001:db8:1::{n:x}")
    assert len(failures(db)) == 1
    for n in range(8):
        fail("nobody@shop.example", f"2001:db8:{n:x}0::1")
    assert len(failures(db)) == 5
    known = account(db)
    fail(known.email, "2001:db8:99::1")
    assert [row.correlation_id for row in failures(db)].count(str(known.id)) == 1


def test_sign_ins_grow_the_log_within_bounds(settings, db, monkeypatch):
    """A right password may be given without end; a new network is recorded all the same."""
    monkeypatch.setattr(guesses, "SIGN_INS", (3, 3))
    made = account(db)
    made.password_hash = passwords.hash_password("a long password")
    db.commit()

    def recorded(address):
        with transaction() as session:
            sign_in.sign_in(session, made.email, "a long password", address)
        db.rollback()
        return db.query(OutboxMessage).filter_by(type="account.signed_in").count()

    assert [recorded("192.0.2.7") for _ in range(6)] == [1, 2, 3, 4, 4, 4]
    assert recorded("198.51.100.7") == 5


def test_a_sign_in_is_told_with_its_address(settings, db):
    made = account(db)
    made.password_hash = passwords.hash_password("a long password")
    db.commit()
    with transaction() as session:
        sign_in.sign_in(session, made.email, "a long password", "192.0.2.7")
    (row,) = db.query(OutboxMessage).filter_by(type="account.signed_in")
    fact = decode(row.type, row.body)
    assert (fact.account_id, fact.address) == (made.id, "192.0.2.7")


def test_who_adds_rows_holds_up_no_partition_of_the_request_log(settings, engine):
    with engine.begin() as writer:
        writer.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": AUDIT_CHAIN})
        request_log_rows.keep_partitions()


@pytest.mark.parametrize("sees_persons", [True, False])
@pytest.mark.parametrize("words", ["ada17", "APPROVED", "50%_\\"])
def test_words_are_looked_for_by_their_index(books, words, sees_persons):
    statements = []
    note = lambda *given: statements.append(given[2:4])  # noqa: E731
    event.listen(books, "before_cursor_execute", note)
    with Session(books) as session:
        found = log.search(session, words=words, sees_persons=sees_persons)
    assert len(found) == {"ada17": 1, "APPROVED": 20}.get(words, 0)
    ((statement, parameters),) = statements
    with books.connect() as connection:
        connection.exec_driver_sql("SET enable_seqscan = off")
        connection.exec_driver_sql("SET enable_indexscan = off")
        plan = connection.exec_driver_sql(f"EXPLAIN {statement}", parameters).scalars()
        assert "ix_audit_log_words" in "\n".join(plan)
