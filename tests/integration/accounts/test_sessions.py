"""Sessions: renewed one token after the other, listed, and ended with all their tokens."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import falcon.asgi
import pytest
from falcon.testing import TestClient
from sqlalchemy import select, update

from services.accounts import session_api, sessions
from services.ingress.app import ROUTES, _throttle
from shared.db.models import AccountSession
from shared.db.session import transaction
from shared.http.mount import add_error_handlers, mount
from shared.http.route import Call, Throttles
from shared.ids import new_id
from shared.security import tokens
from tests.integration.accounts.test_accounts import bearer, login, new_email, register, verify
from tests.integration.arrange import account, lanes


@pytest.fixture
def email(api):
    address = new_email()
    assert register(api, address).status_code == 201
    assert verify(api, address, api.code_for(address)).status_code == 200
    return address


def renew(api, pair):
    return api.http.post("/users/auth/refresh/", json={"refresh": pair["refresh"]})


def is_in(api, pair):
    status = api.http.get("/users/sessions/", headers=bearer(pair["access"])).status_code
    assert status in (200, 401)
    return status == 200


def test_a_refresh_token_that_comes_twice_ends_its_session_and_no_other(api, email):
    first, other = login(api, email).json(), login(api, email).json()
    second = renew(api, first).json()
    third = renew(api, second).json()
    assert is_in(api, third)
    assert renew(api, first).json()["code"] == "invalid_refresh_token"
    assert renew(api, third).status_code == 401
    assert not any(is_in(api, pair) for pair in (first, second, third))
    assert is_in(api, other)
    assert renew(api, other).status_code == 200


def test_one_of_two_renewals_at_once_wins_and_the_session_is_over(api, email):
    pair = login(api, email).json()
    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(lambda _: renew(api, pair), range(4)))
    won = [answer for answer in answers if answer.status_code == 200]
    assert len(won) == 1
    assert not is_in(api, won[0].json())


def test_an_access_token_ends_with_its_session(api, email):
    pair = login(api, email).json()
    assert is_in(api, pair)
    body = {"refresh": pair["refresh"]}
    assert api.http.post("/users/auth/logout/", json=body).status_code == 204
    assert not is_in(api, pair)
    for method, path in (("GET", "/kyc/"), ("GET", "/webhook/secret/"), ("GET", "/orders/")):
        answer = api.http.request(method, path, headers=bearer(pair["access"]))
        assert answer.json()["code"] == "not_signed_in", path


def test_who_has_the_token_of_a_session_that_is_over_holds_up_no_other(settings, db):
    """It is well signed until it expires, so each call with it is counted before it is refused."""
    made = account(db)
    over, other = (sessions.begin(db, made, "", "") for _ in range(2))
    db.flush()
    sessions.end(db, made.id, tokens.check(over.access, "access").session_id)
    db.commit()
    app = falcon.asgi.App()
    add_error_handlers(app)
    with lanes() as threads:
        mount(app, "", ROUTES, threads, Throttles(*(_throttle(1) for _ in range(4))))
        browser = TestClient(app)

        def change(pair):
            body = {"language": "fr"}
            answer = browser.simulate_put("/users/locale", json=body, headers=bearer(pair.access))
            return answer.status_code

        assert {change(over) for _ in range(30)} == {401, 429}
        assert change(other) == 200


def test_changes_of_all_sessions_of_an_account_are_counted_together(settings, db):
    """500 sessions with ten changes a minute each cost as many rows, events and emails."""
    mine, other = account(db), account(db)
    pairs = [sessions.begin(db, mine, "", "") for _ in range(6)]
    over, neighbour = sessions.begin(db, mine, "", ""), sessions.begin(db, other, "", "")
    db.flush()
    sessions.end(db, mine.id, tokens.check(over.access, "access").session_id)
    db.commit()
    app = falcon.asgi.App()
    add_error_handlers(app)
    many = _throttle(1_000)
    with lanes() as threads:
        mount(app, "", ROUTES, threads, Throttles(many, many, _throttle(3), many))
        browser = TestClient(app)

        def change(pair):
            body = {"allowed_networks": []}
            answer = browser.simulate_put(
                "/webhook/allowlist", json=body, headers=bearer(pair.access)
            )
            return answer.status_code, answer.json.get("code")

        # An ended session's token uses up nothing.
        assert {change(over) for _ in range(10)} == {(401, "not_signed_in")}
        answered = [change(pair) for pair in pairs]
        assert answered[:3] == [(200, None)] * 3
        assert (429, "rate_limited") in answered[3:]
        assert change(neighbour) == (200, None)
        # What an owner takes the account back with is not used up by it.
        ended = [
            browser.simulate_delete("/users/sessions", headers=bearer(pair.access)).status_code
            for pair in pairs
        ]
        assert 429 not in ended


def test_no_renewal_outlives_the_sessions_end(api, email):
    pair = login(api, email).json()
    soon = datetime.now(UTC) + timedelta(seconds=100)
    token = tokens.check(pair["refresh"], "refresh")
    with api.session() as session:
        mine = update(AccountSession).where(AccountSession.id == token.session_id)
        session.execute(mine.values(expires_at=soon))
        session.commit()
        renewed = renew(api, pair).json()
        for use in ("access", "refresh"):
            assert tokens.check(renewed[use], use).expires_at <= soon
        session.execute(mine.values(expires_at=datetime.now(UTC)))
        session.commit()
    assert not is_in(api, renewed)
    assert renew(api, renewed).status_code == 401


def test_a_list_of_sessions_that_ends_says_so(settings, db):
    """Who signs in a hundred times would hide the sessions that were there before."""
    made = account(db)
    ahead = datetime.now(UTC) + timedelta(hours=1)
    values = {"account_id": made.id, "network": "", "client": "", "expires_at": ahead}
    call = Call(made.id, None, None, {}, "192.0.2.1")
    for count, more in ((sessions.MOST_LISTED, False), (1, True)):
        db.add_all(AccountSession(id=new_id(), refresh_id=new_id(), **values) for _ in range(count))
        db.commit()
        with transaction() as session:
            told = session_api.show(session, call).body
        assert (len(told.sessions), told.more) == (sessions.MOST_LISTED, more)


def test_an_account_has_so_many_sessions_and_the_least_used_are_deleted(settings, db):
    """Each that a thief begins makes ending them all take longer."""
    made = account(db)
    ahead = datetime.now(UTC) + timedelta(hours=1)
    values = {"account_id": made.id, "network": "", "client": "", "expires_at": ahead}
    ids = [new_id() for _ in range(sessions.MAX_LIVE + 5)]
    db.add_all(
        AccountSession(
            id=id_, refresh_id=new_id(), renewed_at=ahead - timedelta(days=1, hours=n), **values
        )
        for n, id_ in enumerate(ids)
    )
    db.commit()
    sessions.begin(db, made, "", "")
    db.commit()
    left = set(db.scalars(select(AccountSession.id).where(AccountSession.account_id == made.id)))
    assert len(left) == sessions.MAX_LIVE
    assert left.intersection(ids) == set(ids[: sessions.MAX_LIVE - 1])
    assert sessions.end(db, made.id) == sessions.MAX_LIVE


def test_sessions_are_listed_and_ended_one_by_one_and_all(api, email):
    mine, others = login(api, email).json(), [login(api, email).json() for _ in range(2)]
    me = bearer(mine["access"])
    listed = api.http.get("/users/sessions/", headers=me).json()["sessions"]
    assert [one["is_this"] for one in listed].count(True) == 1
    assert len(listed) == 3
    assert {one["network"] for one in listed} == {"127.0.0.1"}
    assert all(one["client"].startswith("python-httpx") for one in listed)
    gone = tokens.check(others[0]["access"], "access").session_id
    assert api.http.delete(f"/users/sessions/{gone}/", headers=me).status_code == 204
    assert [is_in(api, pair) for pair in (mine, *others)] == [True, False, True]
    assert api.http.delete(f"/users/sessions/{gone}/", headers=me).status_code == 404
    assert api.http.delete("/users/sessions/nonsense/", headers=me).status_code == 404
    assert api.http.delete("/users/sessions/", headers=me).status_code == 204
    assert not any(is_in(api, pair) for pair in (mine, *others))


def test_nobody_ends_anothers_session(api, email):
    mine = login(api, email).json()
    stranger = new_email()
    register(api, stranger)
    verify(api, stranger, api.code_for(stranger))
    them = bearer(login(api, stranger).json()["access"])
    id_ = tokens.check(mine["access"], "access").session_id
    assert api.http.delete(f"/users/sessions/{id_}/", headers=them).status_code == 404
    assert api.http.delete("/users/sessions/", headers=them).status_code == 204
    assert is_in(api, mine)


def test_a_refresh_token_without_a_session_renews_nothing(api, email):
    """It would end with no password, no account and no session."""
    account_id = tokens.check(login(api, email).json()["access"], "access").account_id
    old = {"refresh": tokens.make(account_id, "refresh", datetime.now(UTC)).text}
    assert renew(api, old).status_code == 401
    assert api.http.post("/users/auth/logout/", json=old).status_code == 401


def attempt(api, pair, attempt_id):
    body = {"refresh": pair["refresh"], "attempt_id": attempt_id}
    return api.http.post("/users/auth/refresh/", json=body)


def test_an_attempt_that_is_made_again_has_the_same_successor(api, email):
    first, mine = login(api, email).json(), str(uuid4())
    second = attempt(api, first, mine).json()
    again = attempt(api, first, mine).json()
    assert is_in(api, again)
    # One successor: once it is used, neither comes again.
    third = renew(api, again).json()
    assert is_in(api, third)
    assert renew(api, second).status_code == 401
    assert not is_in(api, third)


@pytest.mark.parametrize("known", ["another", "none", "the token's own", "late"])
def test_who_has_a_used_token_and_not_its_attempt_is_a_thief(api, email, known):
    first, mine = login(api, email).json(), str(uuid4())
    second = attempt(api, first, mine).json()
    ids = {
        "another": str(uuid4()),
        "the token's own": str(tokens.check(first["refresh"], "refresh").id),
    }
    if known == "late":
        assert attempt(api, second, str(uuid4())).status_code == 200
        assert attempt(api, first, mine).status_code == 401
    elif known == "none":
        assert renew(api, first).status_code == 401
    else:
        assert attempt(api, first, ids[known]).status_code == 401
    assert not is_in(api, second)
