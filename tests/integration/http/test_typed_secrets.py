"""What is typed into the wrong field may be a password: what is refused is written down nowhere.

Every route of the API, every page of the console and every command is tried, from their own tables;
each text that is typed is another one, so that what is found names where it was typed.
"""

import json
import re
from contextlib import contextmanager
from itertools import count
from urllib.parse import quote

import httpx
import msgspec
import pytest
import typer
from sqlalchemy import create_engine, text

from services.ingress.app import OPERATIONS
from services.ops.cli import app as fellow_app
from services.ops.console.app import PAGES
from services.ops.console.web.mount import FORM, SESSION
from services.ops.users import users
from shared.ids import new_id
from shared.web.tokens import form_token
from stack.folders import ROOT
from tests.integration.arrange import PATIENCE, access_token, declare
from tests.integration.conftest import running_ingress
from tests.integration.gate import Gate
from tests.integration.ingress.conftest import approved
from tests.integration.ops.cli.test_cli import fellow
from tests.integration.ops.console.running import running_console

PASSWORD = "correct horse battery"
ANY = "00000000-0000-7000-8000-000000000000"
FORMS = {
    "as it is": "{}",
    "like an address": "{}@kettle.example",
    "with a NUL": "{}\0",
    "long": "{}" + "x" * 200,
}
HEADERS = (
    "Authorization",
    "X-API-Key",
    "X-Webhook-Signature",
    "Idempotency-Key",
    "Webhook-Id",
    "Webhook-Timestamp",
    "Webhook-Signature",
    "Prefer",
    "Content-Type",
    "X-Request-Id",
    "X-Forwarded-For",
    "User-Agent",
    "Referer",
    "Traceparent",
)


class Typed:
    """Texts, each of which is typed in one place, and those that were refused there."""

    def __init__(self):
        self._numbers = count(1)
        self.places = {}

    def new(self, form="{}"):
        """A text, and as what it is looked for."""
        secret = f"hunter2.{next(self._numbers):05}"
        return form.format(secret), secret

    def refused(self, place, *secrets):
        self.places |= dict.fromkeys(secrets, place)

    def found_in(self, written):
        """Where what is in a text was typed."""
        seen = set(re.findall(r"hunter2\.\d{5}", written))
        return sorted({self.places[secret] for secret in seen & self.places.keys()})


def of_the_database(database_url):
    """All that is in it, as text; what is binary, too."""
    engine = create_engine(database_url)
    with engine.connect() as connection:
        tables = connection.execute(
            text("SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'")
        ).scalars()
        written = "\n".join(
            str(row[0])
            for table in list(tables)
            for row in connection.execute(text(f'SELECT t::text FROM "{table}" t'))
        )
    engine.dispose()
    binary = (bytes.fromhex(found) for found in re.findall(r"\\x((?:[0-9a-f]{2})+)", written))
    return "\n".join([written, *(found.decode("latin-1") for found in binary)])


def fields(body):
    """The fields of a body, or of those that it may be, with something in each."""
    bodies = body if isinstance(body, tuple) else (body,) if body else ()
    for one in bodies:
        names = [field.encode_name for field in msgspec.structs.fields(one)]
        yield {name: _something(name) for name in names}


def _something(name):
    if name == "email":
        return "nobody@kettle.example"
    return {"otp": "123456", "password": PASSWORD}.get(name, "something")


def requests_of(operation, typed, *, is_stranger):
    """Requests with a text in each place; each says where that is."""
    named = f"{operation.method} {operation.path}"
    path = re.sub(r"\{\w+\}", ANY, operation.path)
    for form in FORMS.values():
        for body in fields(operation.body):
            for name in body:
                given, secret = typed.new(form)
                yield f"{named}: {name}", secret, path, {"json": body | {name: given}}
        given, secret = typed.new(form)
        broken = json.dumps({"email": given})[:-1]
        yield f"{named}: a broken body", secret, path, {"content": broken}
        given, secret = typed.new(form)
        yield f"{named}: a parameter", secret, path, {"params": {"limit": given, given: given}}
        given, secret = typed.new(form)
        if "{" in operation.path:
            wrong = re.sub(r"\{\w+\}", quote(given, safe=""), operation.path)
            yield f"{named}: in the path", secret, wrong, {}
        yield f"{named}: no path", secret, f"/{quote(given, safe='')}{path}", {}
    for name in HEADERS if is_stranger else ():
        given, secret = typed.new("Bearer {}" if name == "Authorization" else "{}")
        yield f"{named}: {name}", secret, path, {"headers": {name: given}}


@pytest.mark.parametrize("is_stranger", [True, False], ids=["a stranger", "a business"])
def test_what_the_api_refuses_is_written_nowhere(is_stranger, amqp_url, database_url, tmp_path):
    declare(amqp_url)
    typed = Typed()
    with running_ingress(tmp_path, amqp_url, database_url, WEB_CONCURRENCY="1") as api:
        headers = {} if is_stranger else approved(api).bearer
        for operation in OPERATIONS:
            if operation.method == "DELETE" and not is_stranger:
                continue  # it would sign the business out
            for place, secret, path, more in requests_of(operation, typed, is_stranger=is_stranger):
                more["headers"] = headers | more.get("headers", {})
                answer = api.http.request(operation.method, path, **more)
                if answer.status_code >= 400:
                    typed.refused(place, secret)
        metrics = api.http.get(f"{api.url}/metrics").text
    assert len(typed.places) > 300
    assert typed.found_in(of_the_database(database_url)) == []
    assert typed.found_in((tmp_path / "ingress.log").read_text()) == []
    assert typed.found_in(metrics) == []


def test_a_log_names_the_route_and_not_what_was_typed_into_it(amqp_url, database_url, tmp_path):
    """Also while the database is away, when each request has a line."""
    declare(amqp_url)
    (tmp_path / "console").mkdir()
    with (
        Gate(database_url) as gate,
        running_ingress(tmp_path, amqp_url, gate.url) as api,
        running_console(tmp_path / "console", amqp_url, gate.url) as (url, _),
        httpx.Client(base_url=url, timeout=PATIENCE, cookies={SESSION: "unknown"}) as browser,
    ):
        bearer = {"Authorization": f"Bearer {access_token(new_id())}"}
        gate.cut()
        answer = api.http.get("/orders/hunter2.00001/", headers=bearer)
        assert answer.status_code == 503
        assert browser.get("/orders/hunter2.00002").status_code == 503
    for log in (tmp_path / "ingress.log", tmp_path / "console" / "console.log"):
        written = log.read_text()
        assert "database_away" in written
        assert "/orders/{" in written
        assert "hunter2" not in written


NAMES = sorted(
    {
        name
        for template in (ROOT / "services/ops/console/templates").glob("*.html")
        for name in re.findall(r'name="(\w+)"', template.read_text())
    }
    - {"form_token", "sure"}
)
"""Of every field that any form has."""


@contextmanager
def signed_in(url):
    with httpx.Client(base_url=url, timeout=PATIENCE) as browser:
        browser.get("/sign-in")
        form = {"form_token": form_token(browser.cookies[FORM])}
        answer = browser.post("/sign-in", data=form | {"name": "ada", "password": PASSWORD})
        assert answer.status_code == 303
        yield browser


def visits(page, typed):
    """One request with a text in every field there is, and one with a text in the path."""
    for form in FORMS.values():
        texts = {name: typed.new(form) for name in NAMES}
        path = re.sub(r"\{\w+\}", ANY, page.path)
        yield path, {name: given for name, (given, _) in texts.items()}, texts
        if "{" in page.path:
            given, secret = typed.new(form)
            wrong = re.sub(r"\{\w+\}", quote(given, safe=""), page.path)
            yield wrong, {}, {"the path": (given, secret)}


@pytest.mark.parametrize("who", ["nobody", "ada"])
def test_what_the_console_refuses_or_shows_is_written_nowhere(
    who, settings, db, amqp_url, database_url, tmp_path
):
    declare(amqp_url)
    users.put(db, "ada", "act", PASSWORD)
    db.commit()
    typed = Typed()
    limits = {"ACCOUNT_ATTEMPTS_PER_MINUTE": "1000", "SIGN_IN_ATTEMPTS_PER_MINUTE": "1000"}
    with (
        running_console(tmp_path, amqp_url, database_url, **limits) as (url, _),
        httpx.Client(base_url=url, timeout=PATIENCE)
        if who == "nobody"
        else signed_in(url) as browser,
    ):
        browser.get("/sign-in")
        for page in PAGES:
            if page.path == "/sign-out":
                continue
            for path, given, texts in visits(page, typed):
                if page.method == "GET":
                    answer = browser.get(path, params=given)
                else:
                    token = browser.cookies.get(SESSION) or browser.cookies[FORM]
                    sure = {"sure": "yes", "form_token": form_token(token)}
                    answer = browser.post(path, data=given | sure)
                is_seen = page.method == "GET" and answer.status_code == 200
                to_sign_in = answer.headers.get("Location", "").startswith("/sign-in")
                if is_seen or to_sign_in or answer.status_code >= 400:
                    for name, (_, secret) in texts.items():
                        typed.refused(f"{page.method} {page.path}: {name}", secret)
        assert len(typed.places) > 500
    assert typed.found_in(of_the_database(database_url)) == []
    assert typed.found_in((tmp_path / "console.log").read_text()) == []


def commands(command, name=()):
    """Every command of the program, with its name."""
    inner = getattr(command, "commands", None)
    if inner is None:
        yield name, command
        return
    for word, one in inner.items():
        yield from commands(one, (*name, word))


def test_what_a_command_is_given_is_written_nowhere(settings, amqp_url, database_url):
    """Its own terminal may say it."""
    declare(amqp_url)
    typed = Typed()
    for name, command in commands(typer.main.get_command(fellow_app)):
        words = [one for one in command.params if one.param_type_name == "argument"]
        if not words or name == ("keys", "write"):
            continue  # it would make a folder of that name
        texts = [typed.new() for _ in words]
        yes = ["--yes"] if any("--yes" in one.opts for one in command.params) else []
        fellow(settings, *name, *yes, *(given for given, _ in texts))
        for word, (_, secret) in zip(words, texts, strict=True):
            typed.refused(f"fellow {' '.join(name)}: {word.name}", secret)
    assert len(typed.places) > 30
    assert typed.found_in(of_the_database(database_url)) == []
