"""Who may try how often to sign in at the console."""

import re

import httpx
import pytest

from services.ops import keys
from services.ops.console.web.mount import MARK, SESSION
from services.ops.users import users
from tests.integration.ops.console.running import running_console

TRIES = 3
PASSWORD = "correct horse battery"


@pytest.fixture
def service():
    return "ops"


def attempt(browser, address, password="wrong horse"):
    token = re.search(r'name="form_token" value="([^"]+)"', browser.get("/sign-in").text)[1]
    form = {"form_token": token, "name": "ada", "password": password}
    return browser.post("/sign-in", data=form, headers={"X-Forwarded-For": address}).status_code


def test_in_production_cookies_are_of_this_host_and_tls_alone(amqp_url, database_url, tmp_path):
    key = keys.generate()["SECOND_FACTOR_KEYS"]
    environment = {"ENVIRONMENT": "production", "SECOND_FACTOR_KEYS": key}
    database_url += "?sslmode=disable"
    with (
        running_console(tmp_path, amqp_url, database_url, **environment) as (url, _),
        httpx.Client(base_url=url, timeout=30) as browser,
    ):
        answer = browser.get("/sign-in")
        name, *attributes = answer.headers["set-cookie"].split("; ")
        assert name.startswith("__Host-fellow_form=")
        # RFC 6265bis, 4.1.3.2: with these, and without a domain.
        assert {"Secure", "Path=/", "HttpOnly", "SameSite=Strict"} == set(attributes)
        assert "strict-transport-security" not in answer.headers
        secure = browser.get("/sign-in", headers={"X-Forwarded-Proto": "https"})
        assert secure.headers["strict-transport-security"].startswith("max-age=")


def test_attempts_are_counted_by_network(amqp_url, database_url, tmp_path):
    environment = {
        "TRUSTED_PROXIES": "1",
        "SIGN_IN_ATTEMPTS_PER_MINUTE": str(TRIES),
        "ACCOUNT_ATTEMPTS_PER_MINUTE": "1000",
    }
    with (
        running_console(tmp_path, amqp_url, database_url, **environment) as (url, _),
        httpx.Client(base_url=url, timeout=30) as browser,
    ):
        for network in ("2001:db8:0:1::%x", "[2001:db8:0:2::7]:%d", "203.0.113.9:%d"):
            found = [attempt(browser, network % number) for number in range(1, TRIES + 2)]
            assert found == [401] * TRIES + [429], network


def test_who_guesses_at_a_name_keeps_nobody_out_who_has_signed_in_there(
    settings, db, amqp_url, database_url, tmp_path
):
    users.put(db, "ada", "watch", PASSWORD)
    db.commit()
    environment = {"TRUSTED_PROXIES": "1", "ACCOUNT_ATTEMPTS_PER_MINUTE": str(TRIES)}
    with (
        running_console(tmp_path, amqp_url, database_url, **environment) as (url, _),
        httpx.Client(base_url=url, timeout=30) as own,
        httpx.Client(base_url=url, timeout=30) as strangers,
    ):
        assert attempt(own, "203.0.113.9", PASSWORD) == 303
        del own.cookies[SESSION]
        found = [attempt(strangers, f"198.51.100.{n}") for n in range(TRIES + 1)]
        assert found[-1] == 429
        assert attempt(strangers, "198.51.100.99", PASSWORD) == 429
        assert attempt(own, "203.0.113.9", PASSWORD) == 303
        # It is no way to guess more, and no other's mark is one's own.
        del own.cookies[SESSION]
        found = [attempt(own, "203.0.113.9") for _ in range(TRIES)]
        assert found[-1] == 429
        strangers.cookies.set(MARK, "0" * 64)
        assert attempt(strangers, "198.51.100.99", PASSWORD) == 429
        # With another password every mark is over.
        users.put(db, "ada", "watch", "another long password")
        db.commit()
        assert attempt(own, "203.0.113.9", "another long password") == 429
