"""A closed account has no open application, whatever comes together with its closing."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import func, select, text
from sqlalchemy.exc import IntegrityError

from services.accounts.email_sender import changes
from services.kyc import api, handlers
from shared.bus.contract.errors import Permanent
from shared.bus.contract.events import KycDecide
from shared.db.models import Account, EmailSender, KycApplication, WebhookSecret
from shared.db.session import transaction
from shared.http.errors import ApiError
from shared.http.route import Call
from tests.integration.arrange import PATIENCE, account, application, received, until

CLOSE = text(
    "UPDATE accounts SET closed_at = now(), email = id || '@closed.invalid' WHERE id = :id"
)
# What it shows stays the same for a whole transaction, so it is looked at outside of one.
WAITING = text(
    "SELECT count(*) FROM pg_stat_activity "
    "WHERE wait_event_type = 'Lock' AND datname = current_database()"
)
AS_INGRESS = pytest.mark.parametrize("service", ["ingress"], indirect=True)


@pytest.fixture
def service(request):
    return getattr(request, "param", "kyc")


def outside_a_transaction(engine):
    return engine.connect().execution_options(isolation_level="AUTOCOMMIT")


def submit(business):
    body = api.Submission(
        business_registration_number="RC-1",
        business_address="1 Broad St",
        contact_person_details="Ada Eze",
    )
    call = Call(business.id, body, None, {}, "192.0.2.1")
    with transaction() as session:
        return api.submit(session, call)


def choose_sender(business):
    with transaction() as session:
        return changes.put(session, business.id, "Kettle", "", "192.0.2.1")


def decide(decision, business):
    with transaction() as session:
        command = KycDecide(decision=decision, account_id=business.id, reason="A reason.")
        handlers.decide(session, received(command, user_id="ada", person="ada"))


def states(db):
    db.rollback()
    return db.scalars(select(KycApplication.status)).all()


@pytest.fixture
def meanwhile(engine):
    """Do something that has to wait while an account is closed, or the other way round."""

    def run(first, second):
        with ThreadPoolExecutor(1) as thread, engine.connect() as closing:
            first(closing)
            waits = thread.submit(second)
            with outside_a_transaction(engine) as looking:
                until(
                    lambda: looking.execute(WAITING).scalar() or waits.done(),
                    "it waits",
                )
            closing.commit()
            return waits

    return run


@AS_INGRESS
def test_what_is_sent_in_while_an_account_is_closed_is_refused(settings, db, meanwhile):
    business = account(db)
    waits = meanwhile(
        lambda closing: closing.execute(CLOSE, {"id": business.id}), lambda: submit(business)
    )
    with pytest.raises(ApiError) as refused:
        waits.result(PATIENCE)
    assert refused.value.code == "not_signed_in"
    assert states(db) == []


def test_what_was_sent_in_before_ends_with_the_closing(db, engine):
    business = account(db)
    with ThreadPoolExecutor(1) as thread:
        db.add(application(business))
        db.flush()

        def close():
            with engine.begin() as closing:
                closing.execute(CLOSE, {"id": business.id})

        waits = thread.submit(close)
        with outside_a_transaction(engine) as looking:
            until(lambda: looking.execute(WAITING).scalar(), "it waits")
        db.commit()
        waits.result(PATIENCE)
    assert states(db) == ["rejected"]


@pytest.mark.parametrize("decision", ["approve", "ask"])
def test_a_decision_that_comes_with_the_closing_opens_nothing(settings, db, meanwhile, decision):
    business = account(db, status="pending")
    waits = meanwhile(
        lambda closing: closing.execute(CLOSE, {"id": business.id}),
        lambda: decide(decision, business),
    )
    with pytest.raises(Permanent):
        waits.result(PATIENCE)
    assert states(db) == ["rejected"]
    assert db.scalars(select(WebhookSecret)).all() == []


@pytest.mark.parametrize("decision", ["approve", "ask"])
def test_an_application_that_was_left_open_is_not_decided_on(settings, db, engine, decision):
    """As one of before the rule, that no migration has seen."""
    business = account(db, status="pending")
    with engine.begin() as hand:
        hand.execute(text("ALTER TABLE accounts DISABLE TRIGGER accounts_close"))
        hand.execute(CLOSE, {"id": business.id})
        hand.execute(text("ALTER TABLE accounts ENABLE TRIGGER accounts_close"))
    with pytest.raises(Permanent, match="closed"):
        decide(decision, business)
    decide("reject", business)
    assert states(db) == ["rejected"]


@pytest.mark.parametrize("status", ["pending", "approved", "incomplete"])
def test_the_database_opens_none(db, engine, status):
    business, other = account(db), account(db, status="rejected")
    with engine.begin() as hand:
        for one in (business, other):
            hand.execute(CLOSE, {"id": one.id})
    db.add(application(business, status))
    with pytest.raises(IntegrityError, match="is closed"):
        db.flush()
    db.rollback()
    with pytest.raises(IntegrityError, match="is closed"), engine.begin() as hand:
        hand.execute(text("UPDATE kyc_applications SET status = :status"), {"status": status})
    assert states(db) == ["rejected"]


@AS_INGRESS
def test_a_name_for_emails_is_not_chosen_after_the_closing(settings, db, meanwhile):
    business = account(db)
    waits = meanwhile(
        lambda closing: closing.execute(CLOSE, {"id": business.id}),
        lambda: choose_sender(business),
    )
    with pytest.raises(ApiError) as refused:
        waits.result(PATIENCE)
    assert refused.value.code == "not_signed_in"
    assert db.get(EmailSender, business.id) is None


def test_a_secret_and_the_closing_wait_for_each_other_in_one_order(db, engine):
    """What holds the approval for a new secret holds the account too, and holds it first."""
    business = account(db, status="approved")
    with ThreadPoolExecutor(1) as thread:
        assert db.scalar(select(func.hold_approval(business.id)))

        def close():
            with engine.begin() as closing:
                closing.execute(CLOSE, {"id": business.id})

        waits = thread.submit(close)
        with outside_a_transaction(engine) as looking:
            until(lambda: looking.execute(WAITING).scalar(), "it waits")
        # As the foreign key of a new secret does.
        db.execute(select(Account.id).where(Account.id == business.id).with_for_update(read=True))
        db.commit()
        waits.result(PATIENCE)
    assert states(db) == ["revoked"]
