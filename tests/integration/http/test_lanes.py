"""A flood of passwords holds up nothing else: not the API, not the portal, not the console.

What hashes is kept where it is by the locks that it waits for, so that no test depends on how long
a hash takes.
"""

import re
import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import httpx
import pytest
from sqlalchemy import func, select, text

from services.ingress.app import ROUTES
from services.ops.users import users
from services.portal.app import PASSWORD_THREADS, PASSWORD_WAITING, THREADS
from shared.db.models import AttemptCount, OpsUser
from shared.http.lanes import MOST_SECONDS, WAITING_FOR_A_HASH
from shared.ids import new_id
from shared.security import passwords
from tests.integration.arrange import PATIENCE, until
from tests.integration.conftest import running_ingress
from tests.integration.ops.console.running import running_console
from tests.integration.portal.conftest import PASSWORD, Stage, running_portal

AT_ONCE = passwords.parallel_hashes()
PLACES = AT_ONCE * (1 + WAITING_FOR_A_HASH)
"""Of the lane for passwords in an ingress of one worker."""
MORE = 10
FRESH = httpx.Limits(max_keepalive_connections=0)


@pytest.fixture
def api(module_amqp_url, module_database_url, tmp_path):
    with running_ingress(
        tmp_path,
        module_amqp_url,
        module_database_url,
        WEB_CONCURRENCY="1",
        TRUSTED_PROXIES="1",
        SIGN_IN_ATTEMPTS_PER_MINUTE=str(PLACES + MORE),
    ) as found:
        yield found


@contextmanager
def held(api, emails):
    """Nobody's registration at these addresses ends meanwhile."""
    with api.engine.connect() as connection:
        for email in emails:
            key = func.hashtextextended(email, 0)
            connection.execute(select(func.pg_advisory_xact_lock(key)))
        yield


def ended(asked: list[Future]):
    return [answer.result() for answer in asked if answer.done()]


def refused_at_once(asked, beyond, began):
    """The answers to those for which there is no place, of which there are `beyond`.

    On a busy machine the last of them come when the first of the others have waited for too long,
    and are refused as well.
    """
    until(lambda: len(ended(asked)) >= beyond, "those beyond the places are answered")
    found = ended(asked)
    assert len(found) == beyond or time.monotonic() - began > MOST_SECONDS
    return found


def counted(api):
    with api.session() as session:
        return session.scalar(select(func.count()).select_from(AttemptCount))


def test_what_there_is_no_room_for_is_refused_at_once_and_counts_against_nobody(api):
    emails = [f"{new_id()}@kettle.example" for _ in range(PLACES + MORE)]
    before = counted(api)
    with (
        ThreadPoolExecutor(len(emails)) as crowd,
        httpx.Client(base_url=api.http.base_url, timeout=PATIENCE, limits=FRESH) as http,
    ):

        def register(email):
            body = {"company_name": "Kettle & Co", "email": email, "password": PASSWORD}
            where = {"X-Forwarded-For": f"198.18.0.{emails.index(email) + 1}"}
            return http.post("/users/auth/register/", json=body, headers=where)

        with held(api, emails):
            began = time.monotonic()
            asked = [crowd.submit(register, email) for email in emails]
            refused = refused_at_once(asked, MORE, began)
            assert {answer.status_code for answer in refused} == {503}
            assert {answer.json()["code"] for answer in refused} == {"overloaded"}
            assert all(answer.headers["Retry-After"] for answer in refused)
            # Everything else goes on.
            assert api.http.post("/users/auth/refresh/", json={"refresh": "x"}).status_code == 401
            assert api.http.get("/unsubscribe/", params={"token": "x"}).status_code == 404
        answers = [answer.result() for answer in asked]
    accepted = [answer.status_code for answer in answers].count(201)
    # A slow machine refuses some of those that waited, too.
    assert 0 < accepted <= PLACES
    assert {answer.status_code for answer in answers} == {201, 503}
    # By its address, by its address and network, by its network, and by those of a minute.
    assert counted(api) == before + 4 * accepted


def test_one_network_leaves_places_to_the_others(api):
    emails = [f"{new_id()}@kettle.example" for _ in range(PLACES)]
    with (
        ThreadPoolExecutor(len(emails) + 1) as crowd,
        httpx.Client(base_url=api.http.base_url, timeout=PATIENCE, limits=FRESH) as http,
    ):

        def register(email):
            body = {"company_name": "Kettle & Co", "email": email, "password": PASSWORD}
            where = {"X-Forwarded-For": "198.18.1.1"}
            return http.post("/users/auth/register/", json=body, headers=where)

        def sign_in():
            body = {"email": emails[0], "password": PASSWORD}
            where = {"X-Forwarded-For": "198.18.1.2"}
            return http.post("/users/auth/login/", json=body, headers=where)

        with held(api, emails):
            began = time.monotonic()
            asked = [crowd.submit(register, email) for email in emails]
            refused = refused_at_once(asked, PLACES - PLACES // 2 - 1, began)
            assert {answer.status_code for answer in refused} == {503}
            other = crowd.submit(sign_in)
        for answer in asked:
            answer.result()
        # A slow machine may have let it wait for too long; it had its place.
        assert other.result().status_code in (401, 403, 503)


def test_every_password_of_a_body_is_called_so():
    """By that it is told which lane a request goes through."""
    named = {
        route.path: {name for name in route.body.__struct_fields__ if "password" in name}
        for route in ROUTES
        if isinstance(route.body, type)
    }
    assert all("password" in names for names in named.values() if names)
    assert len([names for names in named.values() if names]) >= 7


def test_a_flood_of_passwords_in_the_portal_leaves_its_pages_and_the_customers(api, tmp_path):
    flood = max(PASSWORD_THREADS + PASSWORD_WAITING, THREADS) + MORE
    emails = [f"{new_id()}@kettle.example" for _ in range(flood)]
    with (
        running_portal(tmp_path, api, TRUSTED_PROXIES="1") as url,
        ThreadPoolExecutor(flood) as crowd,
    ):
        browser = Stage(url, api, tmp_path).browser()
        browser.get("/register")
        token = re.search(r'name="form_token" value="([^"]+)"', browser.page)[1]
        cookies = dict(browser.http.cookies)

        def register(email):
            form = {"company_name": "K", "email": email, "password": PASSWORD, "form_token": token}
            with httpx.Client(base_url=url, cookies=cookies, timeout=PATIENCE) as http:
                return http.post("/register", data=form)

        with held(api, emails):
            asked = [crowd.submit(register, email) for email in emails]
            until(lambda: len(ended(asked)) >= MORE, "those beyond the places are answered")
            assert {answer.status_code for answer in ended(asked)} == {503}
            with httpx.Client(base_url=url, timeout=PATIENCE) as visitor:
                assert visitor.get("/sign-in").status_code == 200
                assert visitor.get("/track/nobodys").status_code == 404


@pytest.fixture
def service():
    return "ops"


def test_a_flood_of_passwords_at_the_console_leaves_its_pages(
    settings, db, amqp_url, database_url, tmp_path
):
    users.put(db, "ada", "watch", PASSWORD)
    db.commit()
    limits = {"SIGN_IN_ATTEMPTS_PER_MINUTE": "1000", "ACCOUNT_ATTEMPTS_PER_MINUTE": "1000"}
    flood = 8 + MORE
    with (
        running_console(tmp_path, amqp_url, database_url, **limits) as (url, _),
        ThreadPoolExecutor(flood) as crowd,
        httpx.Client(base_url=url, timeout=PATIENCE, limits=FRESH) as browser,
    ):
        page = browser.get("/sign-in").text
        token = re.search(r'name="form_token" value="([^"]+)"', page)[1]
        form = {"form_token": token, "name": "ada", "password": PASSWORD}
        # Whoever signs in waits for this.
        db.execute(select(OpsUser).with_for_update()).all()
        asked = [
            crowd.submit(browser.post, "/sign-in", data=form, timeout=PATIENCE)
            for _ in range(flood)
        ]
        waiting = text("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
        until(lambda: db.scalar(waiting) >= AT_ONCE, "sign-ins wait")
        assert browser.get("/sign-in").status_code == 200
        db.rollback()
        # Those that had to wait for too long are refused in words.
        assert {answer.result().status_code for answer in asked} <= {303, 503}
