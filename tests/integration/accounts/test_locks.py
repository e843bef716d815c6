"""Two requests about one account at once: the one that comes second waits, and neither is lost."""

import threading
from datetime import UTC, datetime, timedelta

from sqlalchemy import text, update

from services.accounts import accounts, codes
from shared.bus.events import AccountOtpRequested, decode
from shared.crypto import sealer
from shared.db.models import Account, OneTimeCode, OutboxMessage
from shared.db.session import transaction
from shared.http.errors import ApiError
from tests.integration.arrange import until

EMAIL = "it@kettle.example"
WAITS = text("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' "
             "AND datname = current_database()")  # fmt: skip


def blocked(engine):
    with engine.connect() as connection:
        return connection.execute(WAITS).scalar()


def register(name):
    with transaction() as session:
        accounts.register(session, name, EMAIL, "correct horse")


def code_of(db):
    row = db.query(OutboxMessage).filter(OutboxMessage.type == AccountOtpRequested.TYPE).one()
    fact = decode(row.type, row.body)
    return sealer().open(fact.sealed_code, f"otp:{fact.code_id}").decode()


def test_an_address_that_is_proved_while_it_is_registered_again(settings, db, engine, monkeypatch):
    register("Kettle & Co")
    code = code_of(db)
    db.execute(update(OneTimeCode).values(created_at=datetime.now(UTC) - timedelta(minutes=2)))
    db.commit()
    outcome = []

    def again():
        try:
            register("Somebody else")
        except ApiError as error:
            outcome.append(error.code)

    check = codes.check

    def checked(*arguments):
        found = check(*arguments)
        other.start()
        until(lambda: blocked(engine), "the other request waits")
        return found

    other = threading.Thread(target=again)
    monkeypatch.setattr(codes, "check", checked)
    with transaction() as session:
        assert accounts.verify(session, EMAIL, code) is None
    other.join()
    assert outcome == ["email_taken"]
    account = db.query(Account).one()
    assert (account.company_name, account.email_verified_at is None) == ("Kettle & Co", False)
