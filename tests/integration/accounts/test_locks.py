"""Two requests about one address at once: the one that comes second waits, and neither is lost."""

import threading

from sqlalchemy import text

from services.accounts import codes, registration
from shared.bus.contract.events import AccountOtpRequested, decode
from shared.db.models import Account, OutboxMessage, PendingProof
from shared.db.session import transaction
from shared.security.encryption import code_sealer
from tests.integration.arrange import until

EMAIL = "it@kettle.example"
WAITS = text("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' "
             "AND datname = current_database()")  # fmt: skip


def blocked(engine):
    with engine.connect() as connection:
        return connection.execute(WAITS).scalar()


def register(name):
    with transaction() as session:
        registration.register(session, name, EMAIL, "correct horse", "192.0.2.1")


def code_of(db):
    row = db.query(OutboxMessage).filter(OutboxMessage.type == AccountOtpRequested.TYPE).one()
    fact = decode(row.type, row.body)
    return code_sealer().open(fact.sealed_code, f"otp:{fact.code_id}").decode()


def test_an_address_that_is_proved_while_it_is_registered_again(settings, db, engine, monkeypatch):
    """The second waits for the proof, and then nothing of it is left to be proved."""
    register("Kettle & Co")
    code = code_of(db)
    check = codes.check

    def checked(*arguments, **named):
        found = check(*arguments, **named)
        other.start()
        until(lambda: blocked(engine), "the other request waits")
        return found

    other = threading.Thread(target=register, args=("Somebody else",))
    monkeypatch.setattr(codes, "check", checked)
    with transaction() as session:
        assert registration.verify(session, EMAIL, code, "192.0.2.1") is None
    other.join()
    account = db.query(Account).one()
    assert (account.company_name, account.email_verified_at is None) == ("Kettle & Co", False)
    assert db.query(PendingProof).count() == 0
