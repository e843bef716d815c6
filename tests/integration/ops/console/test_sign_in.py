"""Who may try how often to sign in at the console."""

from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import httpx
import msgspec
import pyotp
import pytest
from sqlalchemy import select, text

from services.ops import keys
from services.ops.console.signing_in.sign_in import UNKNOWN_USER, by_password
from services.ops.console.web.mount import MARK, SESSION
from services.ops.users import second_factor, users
from shared.db import attempts as counting
from shared.db.models import OutboxMessage
from shared.db.session import transaction
from tests.integration.arrange import PATIENCE, written
from tests.integration.ops.console.running import form_token, running_console

TRIES = 3
PASSWORD = "correct horse battery"


@pytest.fixture
def service():
    return "ops"


def attempt(browser, address, password="wrong horse"):
    form = {"form_token": form_token(browser, "/sign-in"), "name": "ada", "password": password}
    return browser.post("/sign-in", data=form, headers={"X-Forwarded-For": address}).status_code


def test_in_production_cookies_are_of_this_host_and_tls_alone(amqp_url, database_url, tmp_path):
    key = keys.generate()["SECOND_FACTOR_KEYS"]
    environment = {"ENVIRONMENT": "production", "SECOND_FACTOR_KEYS": key}
    database_url += "?sslmode=disable"
    with (
        running_console(tmp_path, amqp_url, database_url, **environment) as (url, _),
        httpx.Client(base_url=url, timeout=PATIENCE) as browser,
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
        httpx.Client(base_url=url, timeout=PATIENCE) as browser,
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
        httpx.Client(base_url=url, timeout=PATIENCE) as own,
        httpx.Client(base_url=url, timeout=PATIENCE) as strangers,
    ):
        assert attempt(own, "203.0.113.9", PASSWORD) == 303
        del own.cookies[SESSION]
        found = [attempt(strangers, f"198.51.100.{n}") for n in range(TRIES + 1)]
        assert found[-1] == 429
        assert attempt(strangers, "198.51.100.99", PASSWORD) == 429
        assert attempt(own, "203.0.113.9", PASSWORD) == 303
        # It is no way to guess more, and no other's mark is one's own.
        del own.cookies[SESSION]
        found = [attempt(own, "203.0.113.9") for _ in range(TRIES + 1)]
        assert found == [401] * TRIES + [429]
        strangers.cookies.set(MARK, "0" * 64)
        assert attempt(strangers, "198.51.100.99", PASSWORD) == 429
        # With another password every mark is over.
        users.put(db, "ada", "watch", "another long password")
        db.commit()
        assert attempt(own, "203.0.113.9", "another long password") == 429


def test_guesses_are_counted_for_an_hour_and_by_all_processes_together(
    settings, db, amqp_url, database_url, tmp_path
):
    users.put(db, "ada", "watch", PASSWORD)
    db.commit()
    environment = {"TRUSTED_PROXIES": "1", "ACCOUNT_ATTEMPTS_PER_MINUTE": "1000"}
    with ExitStack() as stack:
        browsers = []
        for name in ("one", "two"):
            (tmp_path / name).mkdir()
            console = running_console(tmp_path / name, amqp_url, database_url, **environment)
            url, _ = stack.enter_context(console)
            browsers.append(stack.enter_context(httpx.Client(base_url=url, timeout=PATIENCE)))
        found = [attempt(browsers[n % 2], f"198.51.100.{n}") for n in range(60)]
        assert found == [401] * 45 + [429] * 15
        # Told, and not once for each.
        facts = said(db)
        assert {fact["by"] for fact in facts} == {"ada"}
        assert sum(fact["was_held_up"] for fact in facts) == 15
        again = [attempt(browsers[n % 2], "198.51.100.50") for n in range(4)]
        assert again == [429] * 4
        assert len(said(db)) == len(facts)


@pytest.mark.parametrize("first", ["ada", "nobody"])
def test_whose_name_is_a_users_is_told_by_no_wrong_password(settings, db, monkeypatch, first):
    """By what is written, which takes the time: also once the audit log has heard enough."""
    users.put(db, "ada", "watch", PASSWORD)
    db.commit()
    monkeypatch.setattr(counting, "REMEMBERED_SECONDS", -1.0)
    monkeypatch.setattr(counting, "secrets", SimpleNamespace(randbelow=lambda _: 1))
    where = SimpleNamespace(network="198.51.100.7")
    visit = SimpleNamespace(
        where=where,
        address=where.network,
        mark="",
        system=SimpleNamespace(config=settings),
        password=lambda: "wrong horse",
    )
    work = []
    for name in (first, *["ada", "nobody"] * 3, "another"):
        with written() as rows, transaction() as session:
            assert by_password(session, visit, name) is None
        work.append(tuple(rows))
    assert len(set(work)) == 1
    told = [fact["by"] for fact in said(db)]
    assert (told.count("ada"), told.count(UNKNOWN_USER)) == (3 + (first == "ada"), 1)


def said(db):
    """The failures that are told to the audit log."""
    db.rollback()
    wanted = select(OutboxMessage.body).where(OutboxMessage.type == "ops.sign_in_failed")
    wanted = wanted.order_by(OutboxMessage.sequence)
    return [msgspec.json.decode(body) for body in db.scalars(wanted)]


def give_code(browser, code):
    return answer_to(browser, code).status_code


def answer_to(browser, code):
    form = {"form_token": form_token(browser, "/sign-in/code"), "code": code}
    return browser.post("/sign-in/code", data=form)


@contextmanager
def half(url, address, password=PASSWORD):
    """A browser whose password was right, and whose code is awaited."""
    headers = {"X-Forwarded-For": address}
    with httpx.Client(base_url=url, timeout=PATIENCE, headers=headers) as browser:
        assert attempt(browser, address, password) == 303
        yield browser


@pytest.fixture
def app(settings, db):
    """The authenticator app of `ada`, and a recovery code."""
    users.put(db, "ada", "watch", PASSWORD)
    ada = users.find(db, "ada")
    second_factor.offer(db, ada.id, "a session")
    app = pyotp.TOTP(second_factor.offered(db, ada.id, "ada", "a session").secret)
    codes = second_factor.confirm(db, ada.id, app.now(), "a session")
    db.commit()
    return app, codes


def unused(db):
    """Codes that were taken are those of long ago."""
    db.rollback()
    db.execute(text("UPDATE ops_second_factors SET last_step = 0"))
    db.commit()


def test_who_has_the_password_guesses_few_codes_and_its_user_is_told_and_not_kept_out(
    app, db, amqp_url, database_url, tmp_path
):
    app, (recovery_code, *_) = app
    environment = {
        "TRUSTED_PROXIES": "1",
        "ACCOUNT_ATTEMPTS_PER_MINUTE": "1000",
        "SIGN_IN_ATTEMPTS_PER_MINUTE": "1000",
    }
    with (
        running_console(tmp_path, amqp_url, database_url, **environment) as (url, _),
        half(url, "203.0.113.9") as own,
    ):
        unused(db)
        assert give_code(own, app.now()) == 303
        found = []
        for n in range(5):
            with half(url, f"198.51.100.{n}") as thief:
                found += [give_code(thief, "000000") for _ in range(6)]
        assert found == [401] * 20 + [429] * 10
        # The sessions that there are say so, and so does the next sign-in.
        told = own.get("/").text
        assert "20 wrong codes were given with your password" in told
        assert told.count("given with your password") == 1
        del own.cookies[SESSION]
        assert attempt(own, "203.0.113.9", PASSWORD) == 303
        unused(db)
        assert give_code(own, app.now()) == 303
        assert "Since you signed in last, 20 wrong codes" in own.get("/").text
        # From a browser that is not known, by what cannot be guessed.
        with half(url, "192.0.2.7") as new:
            unused(db)
            assert give_code(new, app.now()) == 429
            assert give_code(new, recovery_code) == 303
            assert "wrong code" not in new.get("/").text
        # Another password begins another count: the guesser has not got it.
        users.put(db, "ada", "watch", "another long password")
        db.commit()
        with half(url, "192.0.2.8", "another long password") as new:
            unused(db)
            late = answer_to(new, app.at(datetime.now(UTC) - timedelta(minutes=4)))
            assert (late.status_code, "set the clock of your device" in late.text) == (401, True)
            assert give_code(new, app.now()) == 303
        held_up = [fact for fact in said(db) if fact["was_held_up"]]
        assert held_up
        assert all(fact["password_was_right"] for fact in held_up)
