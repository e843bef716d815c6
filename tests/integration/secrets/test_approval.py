"""No active secret without an approval: the database itself refuses one, in any interleaving."""

import threading
from datetime import UTC, datetime, timedelta

import pytest
from psycopg2.errors import SerializationFailure
from sqlalchemy import create_engine, select, text
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.orm import Session

from services.secrets import api as secrets_api
from services.secrets import handlers, rotation
from shared.bus.contract.events import KycApproved, KycRevoked, decode
from shared.db.models import KycApplication, OutboxMessage, WebhookSecret
from shared.db.session import transaction
from shared.http.errors import ApiError
from shared.http.route import Call
from shared.ids import new_id
from stack.servers.credentials import as_service
from tests.integration.arrange import account, received, until

INSERT = text("""
    INSERT INTO webhook_secrets (id, account_id, key_hash, sealed, state, expires_at)
    VALUES (gen_random_uuid(), :account, sha256(gen_random_uuid()::text::bytea), '', :state,
            now() + interval '90 days')
""")
REVOKE = text("UPDATE kyc_applications SET status = 'revoked' WHERE account_id = :account "
              "AND status = 'approved'")  # fmt: skip
WAITS = text("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' "
             "AND datname = current_database()")  # fmt: skip


def live(engine):
    with engine.connect() as connection:
        query = text("SELECT count(*) FROM webhook_secrets WHERE state IN ('active', 'retiring')")
        return connection.execute(query).scalar()


def blocked(engine):
    """Whether somebody waits for a lock."""
    with engine.connect() as connection:
        return connection.execute(WAITS).scalar()


@pytest.fixture
def business(settings, db):
    return account(db, status="approved")


@pytest.mark.parametrize("state", ["active", "retiring"])
@pytest.mark.parametrize("status", [None, "pending", "rejected", "revoked"])
def test_none_is_made_without_an_approval(settings, db, engine, status, state):
    made = account(db, status=status)
    with pytest.raises(IntegrityError, match="is not approved"), engine.begin() as hand:
        hand.execute(INSERT, {"account": made.id, "state": state})


def test_none_is_moved_to_a_business_without_one(engine, db, business):
    other = account(db)
    with engine.begin() as hand:
        hand.execute(INSERT, {"account": business.id, "state": "active"})
    with pytest.raises(IntegrityError, match="is not approved"), engine.begin() as hand:
        hand.execute(text(f"UPDATE webhook_secrets SET account_id = '{other.id}'"))


@pytest.mark.parametrize(
    "end",
    [
        "UPDATE kyc_applications SET status = 'revoked'",
        "UPDATE kyc_applications SET status = 'rejected'",
        "UPDATE kyc_applications SET account_id = '{0}'",
        "DELETE FROM kyc_applications",
    ],
)
def test_all_end_with_the_approval(engine, db, business, end):
    other = account(db)
    with engine.begin() as hand:
        hand.execute(INSERT, {"account": business.id, "state": "retiring"})
        hand.execute(INSERT, {"account": business.id, "state": "active"})
    with engine.begin() as hand:
        hand.execute(text(end.format(other.id)))
    assert live(engine) == 0
    secrets = db.query(WebhookSecret).all()
    assert len(secrets) == 2
    assert all(secret.revoked_at and secret.revoked_with for secret in secrets)


@pytest.mark.parametrize(
    ("before", "after"),
    [("retiring", "active"), ("expired", "active"), ("expired", "retiring"),
     ("revoked", "active"), ("revoked", "retiring"), ("revoked", "expired")],
)  # fmt: skip
def test_none_goes_back(engine, business, before, after):
    with engine.begin() as hand:
        hand.execute(INSERT, {"account": business.id, "state": before})
    with pytest.raises(IntegrityError, match="does not go back"), engine.begin() as hand:
        hand.execute(text(f"UPDATE webhook_secrets SET state = '{after}'"))


@pytest.mark.parametrize("state", ["active", "revoked"])
def test_none_is_deleted_before_every_worker_has_heard(engine, business, state):
    with engine.begin() as hand:
        hand.execute(INSERT, {"account": business.id, "state": state})
    with pytest.raises(IntegrityError, match="an hour before"), engine.begin() as hand:
        hand.execute(text("DELETE FROM webhook_secrets"))
    with engine.begin() as hand:
        hand.execute(text("SET LOCAL session_replication_role = replica"))
        hand.execute(text("UPDATE webhook_secrets SET updated_at = now() - interval '2 hours', "
                          "state = 'revoked'"))  # fmt: skip
    with engine.begin() as hand:
        hand.execute(text("DELETE FROM webhook_secrets"))


LEVELS = ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"]


@pytest.mark.parametrize("level", LEVELS)
def test_a_secret_that_is_made_while_the_approval_ends(engine, business, level):
    """The revocation is first, and not committed yet: the maker waits for it, and is refused."""
    outcome = []

    def make():
        isolated = engine.execution_options(isolation_level=level)
        try:
            with isolated.begin() as maker:
                maker.execute(text("SELECT 1"))
                maker.execute(INSERT, {"account": business.id, "state": "active"})
        except DBAPIError as error:
            outcome.append(error)

    with engine.begin() as hand:
        hand.execute(REVOKE, {"account": business.id})
        thread = threading.Thread(target=make)
        thread.start()
        until(lambda: blocked(engine), "the maker waits")
    thread.join()
    (refused,) = outcome
    assert isinstance(refused, IntegrityError) or isinstance(refused.orig, SerializationFailure)
    assert live(engine) == 0


@pytest.mark.parametrize("level", LEVELS)
def test_an_approval_that_ends_while_a_secret_is_made(engine, business, level):
    """The maker is first, and not committed yet: the revocation waits for it, and revokes it."""
    outcome = []

    def revoke():
        isolated = engine.execution_options(isolation_level=level)
        try:
            with isolated.begin() as hand:
                hand.execute(text("SELECT count(*) FROM webhook_secrets"))
                hand.execute(REVOKE, {"account": business.id})
        except DBAPIError as error:
            outcome.append(error)

    with engine.begin() as maker:
        maker.execute(INSERT, {"account": business.id, "state": "active"})
        thread = threading.Thread(target=revoke)
        thread.start()
        until(lambda: blocked(engine), "the revocation waits")
    thread.join()
    if level == "READ COMMITTED":
        assert (outcome, live(engine)) == ([], 0)
    else:
        # With the snapshot of its beginning it could not see the secret: it is told how to do it.
        with engine.connect() as connection:
            statuses = connection.execute(text("SELECT status FROM kyc_applications")).scalars()
            assert statuses.all() == ["approved"]
        assert "READ COMMITTED" in str(outcome[0]) or isinstance(
            outcome[0].orig, SerializationFailure
        )


def about(account_, application_id):
    return {"account_id": account_.id, "company_name": "x", "email": "a@b.example",
            "application_id": application_id, "decided_by": "op"}  # fmt: skip


def end_approval(db):
    """As services.kyc does; returns the application."""
    application = db.scalars(
        select(KycApplication).where(KycApplication.status == "approved")
    ).one()
    application.status = "revoked"
    db.commit()
    return application.id


def approve_again(db, business):
    db.add(KycApplication(account_id=business.id, business_registration_number="RC",
                          business_address="x", contact_person_details='"a"',
                          status="approved"))  # fmt: skip
    db.commit()


def issue(business):
    with transaction() as session:
        handlers.on_approved(session, received(KycApproved(**about(business, new_id()))))


def revoke(business, application_id, **changes):
    fact = KycRevoked(**about(business, application_id), reason="Fraud.")
    with transaction() as session:
        handlers.on_revoked(session, received(fact, **changes))


def states(db):
    db.rollback()
    query = select(WebhookSecret.state).order_by(WebhookSecret.issued_at)
    return db.scalars(query).all()


def told(db):
    db.rollback()
    rows = db.query(OutboxMessage).order_by(OutboxMessage.sequence).all()
    return [decode(row.type, row.body) for row in rows]


@pytest.mark.parametrize("first", ["the revocation", "the second approval"])
@pytest.mark.parametrize("stamp", [timedelta(0), timedelta(seconds=-2), timedelta(hours=1)])
def test_whatever_comes_first_and_whatever_clocks_say(db, business, first, stamp):
    """Revoked and approved again: the old secret is out, there is a new one, each is told once."""
    issue(business)
    old = db.scalars(select(WebhookSecret)).one()
    application_id = end_approval(db)
    approve_again(db, business)
    steps = [lambda: revoke(business, application_id, time=datetime.now(UTC) + stamp),
             lambda: issue(business)]  # fmt: skip
    for step in steps if first == "the revocation" else reversed(steps):
        step()
    assert states(db) == ["revoked", "active"]
    (fact,) = [fact for fact in told(db) if fact.TYPE == "secret.revoked"]
    assert (fact.secret_ids, fact.reason) == ((old.id,), "Fraud.")


def test_a_revocation_that_is_replayed_tells_the_same_fact(db, business):
    issue(business)
    application_id = end_approval(db)
    message_id = new_id()
    revoke(business, application_id, id=message_id)
    revoke(business, application_id, id=message_id)
    rows = db.query(OutboxMessage).filter(OutboxMessage.type == "secret.revoked").all()
    assert len({row.message_id for row in rows}) == 1


@pytest.mark.parametrize("handler", ["replace", "show"])
def test_a_business_that_asks_while_it_is_revoked(db, engine, business, handler, monkeypatch):
    """The revocation is committed between any two statements of the handler."""
    issue(business)
    if handler == "show":
        # What has just ended is replaced when it is looked at.
        db.query(WebhookSecret).update({"expires_at": datetime.now(UTC) - timedelta(seconds=1)})
        db.commit()
    real = rotation.lock

    def lock(session, account_id):
        end_approval(db)
        real(session, account_id)

    monkeypatch.setattr(rotation, "lock", lock)
    body = secrets_api.Replacement() if handler == "replace" else None
    call = Call(account_id=business.id, body=body, query=None, path={}, address="127.0.0.1")
    with pytest.raises(ApiError) as refused, transaction() as session:
        getattr(secrets_api, handler)(session, call)
    assert (refused.value.status, refused.value.code) == (403, "kyc_approval_required")
    assert live(engine) == 0


def test_each_service_may_hold_an_approval_and_change_none(database_url, db, business):
    for service in ("secrets", "ingress"):
        made = create_engine(as_service(database_url, service))
        with Session(made) as session:
            assert rotation.hold_approval(session, business.id)
        with pytest.raises(DBAPIError, match="permission denied"), made.begin() as connection:
            connection.execute(REVOKE, {"account": business.id})
        made.dispose()
