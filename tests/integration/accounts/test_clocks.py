"""Two hosts before one database, one with a wrong clock: what ends, ends by the database's."""

import time
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from sqlalchemy import delete, func, select, text, update

from shared.bus.contract.events import AccountOtpRequested
from shared.db.attempts import DAY, REMEMBERED_SECONDS
from shared.db.models import Account, AccountSession, AttemptCount, OutboxMessage, PendingProof
from shared.security import tokens
from tests.integration.accounts.test_accounts import bearer, login, new_email, register, verify
from tests.integration.accounts.test_sessions import is_in, renew
from tests.integration.wrong_clocks import set_clock, wrong_worker

OFF = timedelta(minutes=15)
NEAR = timedelta(minutes=5)


@pytest.fixture(scope="module", params=[OFF, -OFF], ids=["ahead", "behind"])
def wrong(request, module_amqp_url, module_database_url, tmp_path_factory):
    folder = tmp_path_factory.mktemp("wrong")
    set_clock(folder / "clock", request.param.total_seconds())
    many = dict.fromkeys(("SIGN_IN_ATTEMPTS_PER_MINUTE", "ACCOUNT_ATTEMPTS_PER_MINUTE"), "1000")
    with wrong_worker(
        folder, module_amqp_url, module_database_url, folder / "clock", **many
    ) as found:
        yield found


@pytest.fixture
def email(api):
    address = new_email()
    assert register(api, address).status_code == 201
    assert verify(api, address, api.code_for(address)).status_code == 200
    return address


def change(api, statement):
    with api.session() as session:
        session.execute(statement)
        session.commit()


def end_codes(api, address, ago):
    ended = {"code_expires_at": func.now() - ago}
    change(api, update(PendingProof).where(PendingProof.email == address).values(ended))


def codes_of(api, address):
    with api.session() as session:
        wanted = select(OutboxMessage.body).where(OutboxMessage.type == AccountOtpRequested.TYPE)
        return sum(address.encode() in bytes(body) for body in session.scalars(wanted))


def test_a_code_is_good_at_every_host(api, wrong):
    for made_at, taken_at in ((api, wrong), (wrong, api)):
        address = new_email()
        assert register(made_at, address).status_code == 201
        assert verify(taken_at, address, api.code_for(address)).status_code == 200


def test_a_code_is_over_at_every_host(api, wrong):
    for taken_at in (api, wrong):
        address = new_email()
        assert register(taken_at, address).status_code == 201
        end_codes(api, address, timedelta(seconds=1))
        code = api.code_for(address)
        assert verify(taken_at, address, code).json()["code"] == "otp_expired"
        end_codes(api, address, -timedelta(minutes=1))
        assert verify(taken_at, address, code).status_code == 200


def test_a_new_password_by_a_code_of_the_other_host(api, wrong, email):
    for made_at, taken_at in ((api, wrong), (wrong, api)):
        asked = made_at.http.post("/users/password/reset-code/", json={"email": email})
        assert asked.status_code == 200, asked.text
        given = {"email": email, "otp": api.code_for(email), "password": "new horse battery"}
        assert taken_at.http.post("/users/password/reset/", json=given).status_code == 200


def test_a_code_is_mailed_again_after_a_minute_of_the_databases(api, wrong):
    for made_at, asked_at in ((api, wrong), (wrong, api)):
        address = new_email()
        assert register(made_at, address).status_code == 201
        again = lambda at: at.http.post("/users/request-otp/", json={"email": address})  # noqa: B023, E731
        assert again(asked_at).status_code == 200
        assert codes_of(api, address) == 1
        made = {"code_made_at": func.now() - timedelta(seconds=61)}
        change(api, update(PendingProof).where(PendingProof.email == address).values(made))
        soon = func.now() + timedelta(minutes=2)
        change(api, delete(AttemptCount).where(AttemptCount.ends_at < soon))
        time.sleep(REMEMBERED_SECONDS)  # what workers remember of the minute is over too
        assert again(asked_at).status_code == 200
        assert codes_of(api, address) == 2


def test_a_sign_in_is_good_at_every_host_and_renewed_there(api, wrong, email):
    for first, second in ((api, wrong), (wrong, api)):
        pair = login(first, email).json()
        assert is_in(first, pair)
        assert is_in(second, pair)
        pair = renew(second, pair).json()
        assert is_in(first, pair)
        assert is_in(second, renew(first, pair).json())


def test_a_session_is_over_at_every_host(api, wrong, email):
    for at in (api, wrong):
        pair = login(at, email).json()
        session_id = tokens.check(pair["access"], "access").session_id
        ended = update(AccountSession).where(AccountSession.id == session_id)
        change(api, ended.values(expires_at=func.now() - timedelta(seconds=1)))
        assert not is_in(api, pair)
        assert not is_in(wrong, pair)
        assert renew(wrong, pair).status_code == 401


def test_a_token_is_over_at_every_host(api, wrong, email):
    own = tokens.check(login(api, email).json()["access"], "access")
    now = datetime.now(UTC)
    ids = own.account_id, own.session_id
    ended = {
        "access": tokens.make(ids[0], "access", now - timedelta(seconds=601), ids[1]).text,
        "refresh": tokens.make(ids[0], "refresh", now - timedelta(days=1), ids[1]).text,
    }
    good = tokens.make(ids[0], "access", now - timedelta(seconds=540), ids[1]).text
    for at in (api, wrong):
        assert not is_in(at, ended)
        assert is_in(at, {"access": good})
        assert renew(at, ended).status_code == 401
        left = at.http.post("/users/auth/logout/", json={"refresh": ended["refresh"]})
        assert left.status_code == 401
    # Of the version before, which has no session.
    for minutes, status in ((11, 401), (9, 200)):
        old = tokens.make(ids[0], "access", now - timedelta(minutes=minutes)).text
        for at in (api, wrong):
            assert at.http.get("/users/sessions/", headers=bearer(old)).status_code == status


def test_a_count_begins_and_ends_by_the_databases_clock(api, wrong):
    change(api, text("DELETE FROM attempt_counts"))
    address = new_email()
    assert register(wrong, address).status_code == 201
    with api.session() as session:
        left = session.scalar(select(func.max(AttemptCount.ends_at) - func.now()))
    assert abs(left - timedelta(seconds=DAY)) < NEAR
    used_up = update(AttemptCount).values(count=1000)
    change(api, used_up.values(ends_at=func.now() - timedelta(seconds=1)))
    assert register(wrong, address).status_code == 201
    change(api, used_up.values(ends_at=func.now() + NEAR))
    assert register(wrong, address).status_code == 429


def test_what_is_noted_is_the_databases_time(api, wrong):
    address = new_email()
    assert register(wrong, address).status_code == 201
    assert verify(wrong, address, api.code_for(address)).status_code == 200
    pair = login(wrong, address).json()
    closing = {"password": "correct horse battery"}
    closed = wrong.http.post("/users/close/", json=closing, headers=bearer(pair["access"]))
    assert closed.status_code == 204, closed.text
    with api.session() as session:
        row = session.get(Account, UUID(pair["id"]))
        now = session.scalar(select(func.now()))
        assert abs(row.email_verified_at - now) < NEAR
        assert abs(row.closed_at - now) < NEAR
