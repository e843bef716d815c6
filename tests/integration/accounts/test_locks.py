"""Two requests about one address at once: the one that comes second waits, and neither is lost."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from sqlalchemy import delete, event, func, select, text, update
from sqlalchemy.orm import undefer

from services.accounts import codes, credentials, registration, sign_in
from services.accounts.guesses import attempts
from shared.bus.contract.events import AccountOtpRequested, AccountSignInFailed
from shared.db import attempts as counting
from shared.db.attempts import HOUR, Limit
from shared.db.models import Account, AttemptCount, OutboxMessage, PendingProof
from shared.db.session import database_time, transaction
from shared.db.session import engine as session_engine
from shared.http.errors import ApiError
from shared.security import passwords
from shared.security.encryption import code_sealer
from tests.integration.arrange import facts, until, written

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
    # Nobody's is over when it is made.
    (fact,) = (f for f in facts(db, AccountOtpRequested.TYPE) if f.expires_at > database_time(db))
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
    # The other waits, as it would at a free address; no code was made for it.
    assert db.query(PendingProof).one().company_name == "Somebody else"
    assert code_of(db) == code


@pytest.fixture
def account(settings, db):
    register("Kettle & Co")
    with transaction() as session:
        assert registration.verify(session, EMAIL, code_of(db), "192.0.2.1") is None
    return db.query(Account).one()


@pytest.mark.parametrize("meanwhile", ["reset", "closed"])
@pytest.mark.parametrize(
    "act",
    [
        lambda session, _: sign_in.sign_in(session, EMAIL, "correct horse", "192.0.2.1"),
        lambda session, account: credentials.change_password(
            session, account.id, "correct horse", "a thief's own words", "192.0.2.1"
        ),
        lambda session, account: credentials.send_address_code(
            session, account.id, "correct horse", "thief@elsewhere.example", "192.0.2.1"
        ),
        lambda session, account: credentials.close(
            session, account.id, "correct horse", "192.0.2.1"
        ),
    ],
    ids=["sign in", "change password", "change address", "close"],
)
def test_a_password_that_is_set_while_the_one_before_is_compared(
    account, db, monkeypatch, act, meanwhile
):
    """To compare takes long: what an owner has ended by then does not begin again behind it."""
    matches, owners_hash = passwords.matches, passwords.hash_password("the owner's new one")

    def compared(password, stored):
        found = matches(password, stored)
        monkeypatch.setattr(passwords, "matches", matches)
        with transaction() as session:
            values = {"password_hash": owners_hash}
            if meanwhile == "closed":
                values = {"closed_at": datetime.now(UTC), "email": f"{account.id}@closed.invalid"}
            session.execute(update(Account).values(values))
        return found

    monkeypatch.setattr(passwords, "matches", compared)
    with transaction() as session:
        refused = act(session, account)
    assert isinstance(refused, ApiError)
    assert refused.status in (401, 403)
    db.expire_all()
    held = db.query(Account).options(undefer(Account.password_hash)).one()
    assert (held.closed_at is None) == (meanwhile == "reset")
    if meanwhile == "reset":
        assert held.password_hash == owners_hash
    assert db.query(PendingProof).count() == 0


def test_what_was_right_all_at_once_keeps_nobody_out_for_an_hour(settings, db, monkeypatch):
    """Guesses count before they are looked at, and are given back: that is seen soon."""
    limit = Limit("own password", f"{EMAIL}\0192.0.2.1", 2, HOUR)
    assert [attempts.take(limit), attempts.take(limit)] == [0, 0]
    assert attempts.take(limit) > 0
    attempts.give_back(limit)
    later = time.monotonic() + counting.REMEMBERED_SECONDS
    monkeypatch.setattr(counting, "time", SimpleNamespace(monotonic=lambda: later))
    assert attempts.take(limit) == 0
    assert attempts.take(limit) > 0


def test_what_is_given_back_is_held_by_nobody(account, db):
    """Who counts at the same account waits for nobody's whole request."""
    with transaction() as session:
        assert credentials.confirm(session, account.id, "correct horse", "192.0.2.1") is None
        assert db.scalars(select(AttemptCount).with_for_update(nowait=True)).all()


@pytest.fixture
def counted(settings, db):
    """Two limits that are counted, the one that is locked last first in the table."""
    limits = [Limit("own password", f"{number}", 5, HOUR) for number in range(2)]
    keys = {limit: code_sealer().pseudonym(limit.written) for limit in limits}
    limits.sort(key=lambda limit: keys[limit], reverse=True)
    assert [attempts.take(limit) for limit in limits] == [0, 0]
    return limits, [keys[limit] for limit in limits]


def held(db, key):
    return db.scalars(
        select(AttemptCount).where(AttemptCount.key == key).with_for_update(nowait=True)
    ).one()


def test_counts_are_given_back_in_the_order_in_which_they_are_taken(counted, db, engine):
    limits, (last, first) = counted
    held(db, first)
    other = threading.Thread(target=attempts.give_back, args=limits)
    other.start()
    until(lambda: blocked(engine), "the other waits")
    held(db, last)
    db.rollback()
    other.join()
    assert set(db.scalars(select(AttemptCount.count))) == {0}


def test_what_is_over_is_removed_around_what_somebody_counts(counted, db, engine, monkeypatch):
    _, (last, first) = counted
    db.execute(update(AttemptCount).values(ends_at=datetime.now(UTC) - timedelta(minutes=1)))
    db.commit()
    held(db, last)
    monkeypatch.setattr(counting, "secrets", SimpleNamespace(randbelow=lambda _: 0))
    with ThreadPoolExecutor(1) as threads:
        taken = threads.submit(attempts.take, Limit("own password", "another", 5, HOUR))
        try:
            until(lambda: taken.done() or blocked(engine), "it is over")
            assert taken.done()
        finally:
            db.rollback()
    assert first not in db.scalars(select(AttemptCount.key)).all()


def test_one_attempt_removes_so_many_that_are_over(settings, db, monkeypatch):
    """Whoever signs in does not wait for what a flood of others has left."""
    ended = datetime.now(UTC) - timedelta(minutes=1)
    db.add_all(AttemptCount(key=bytes([n]), count=1, ends_at=ended) for n in range(5))
    db.commit()
    monkeypatch.setattr(counting, "secrets", SimpleNamespace(randbelow=lambda _: 0))
    monkeypatch.setattr(counting, "MOST_REMOVED", 2)
    over = select(AttemptCount).where(AttemptCount.ends_at == ended)
    for left in (3, 1, 0):
        attempts.take(Limit("own password", "another", 5, HOUR))
        db.rollback()
        assert len(db.scalars(over).all()) == left


AWAY = "203.0.113.7"
OTHERS = "somebody@kettle.example"


def ask_to_register(email):
    with transaction() as session:
        registration.register(session, "Kettle & Co", email, "correct horse", AWAY)


def ask_for_code(email):
    with transaction() as session:
        registration.send_again(session, email, None, AWAY)


def ask_for_reset_code(email):
    with transaction() as session:
        credentials.send_reset_code(session, email, AWAY)


def reset(email):
    with transaction() as session:
        assert credentials.reset_password(session, email, "000000", "new horse battery", AWAY)


def ask_for_address(email):
    with transaction() as session:
        (mine,) = session.scalars(select(Account.id).where(Account.email == EMAIL))
        credentials.send_address_code(session, mine, "correct horse", email, AWAY)


@contextmanager
def recorded():
    """The statements of a transaction, without its counts; a row that is made is one written."""
    found = []

    def note(_, __, statement, *___):
        kind, *rest = statement.split(maxsplit=3)
        is_written = kind in ("INSERT", "UPDATE") and "pending_proofs" in rest[:2]
        found.append("pending_proofs is written" if is_written else statement)

    event.listen(session_engine(), "before_cursor_execute", note)
    try:
        yield found
    finally:
        event.remove(session_engine(), "before_cursor_execute", note)


@pytest.mark.parametrize(
    "asks",
    [
        (ask_to_register,),
        (ask_for_code,),
        (ask_for_code, ask_for_code),
        (ask_to_register, ask_for_code),
        (ask_for_reset_code,),
        (ask_for_reset_code, ask_for_reset_code),
        (reset,),
        (ask_for_reset_code, reset),
        (ask_for_address,),
    ],
    ids=lambda asks: " ".join(ask.__name__ for ask in asks),
)
def test_who_is_there_is_told_by_no_work_that_is_left_out(account, db, asks):
    """The time of an answer: the same statements, and a message of the same size.

    An account, a registration that waits, and nobody.
    """
    with transaction() as session:
        registration.register(session, "Waiting Co", OTHERS, "correct horse", AWAY)
    work = {}
    for email in (EMAIL, OTHERS, "nobody@kettle.example"):
        done = work[email] = []
        for ask in asks:
            # The minute passes, and the day.
            db.execute(delete(AttemptCount))
            db.execute(update(PendingProof).values(code_made_at=text("now() - interval '1 hour'")))
            db.execute(delete(OutboxMessage))
            db.commit()
            attempts._used_up.clear()
            with recorded() as statements:
                ask(email)
            size = db.scalar(select(func.sum(func.octet_length(OutboxMessage.body)))) or 0
            db.commit()
            # Who is greeted by name is so in this one alone.
            name = len("Kettle & Co") if ask is ask_for_reset_code and email == EMAIL else 0
            done.append((statements, size and size - name - len(email)))
    first, *others = work.values()
    for other in others:
        for one, another in zip(first, other, strict=True):
            assert another[0] == one[0]
            assert another[1] == one[1]
    assert bool(first[-1][1]) is (asks[-1] is not reset)


@pytest.mark.parametrize("first", [EMAIL, "nobody@kettle.example"])
def test_who_is_there_is_told_by_no_wrong_password(account, db, monkeypatch, first):
    """By what is written, which takes the time: also once the audit log has heard enough."""
    # What is used up longer ago than it is remembered, and nobody sweeps meanwhile.
    monkeypatch.setattr(counting, "REMEMBERED_SECONDS", -1.0)
    monkeypatch.setattr(counting, "secrets", SimpleNamespace(randbelow=lambda _: 1))
    work = {EMAIL: [], "nobody@kettle.example": []}
    for email in (first, *work, *work, *work, "another@kettle.example"):
        with written() as rows, transaction() as session:
            refused = sign_in.sign_in(session, email, "wrong horse", AWAY)
            assert refused.code == "invalid_credentials"
        work.setdefault(email, []).append(rows)
    assert {tuple(rows) for tries in work.values() for rows in tries} == {tuple(work[first][0])}
    told = [fact.account_id for fact in facts(db, AccountSignInFailed.TYPE)]
    assert [told.count(account.id), told.count(None)] == [1, 1]
