"""A running system with its console, and a real Chromium before it: one of each for the module.

Every process signs in as itself, as in production.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Page,
    expect,
    sync_playwright,
)
from rich.console import Console as Terminal
from sqlalchemy import Engine, create_engine
from sqlalchemy.orm import Session

from services.ops.users import users
from stack.folders import ROOT
from stack.mailbox import MailServer
from stack.processes import Process, stop
from stack.servers.credentials import as_service, broker_user
from stack.servers.ports import Address, Port
from stack.supervisor import MODULES, Supervisor
from stack.system import start_services
from tests.integration.arrange import PATIENCE, until
from tests.integration.gate import Gate
from tests.programs import program
from tests.zygote.forks import spawn

PASSWORD = "correct horse battery"

expect.set_options(timeout=PATIENCE * 1000)
ARGUMENTS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


class Recorder:
    """services.orders, which a test may stop and start."""

    def __init__(self, environment: dict[str, str], log: Path) -> None:
        self._environment = environment
        self._log = log
        self._process: Process | None = None

    def start(self) -> None:
        command = (sys.executable, "-m", "services.orders")
        self._process = spawn(
            command, environment=os.environ | self._environment, log=self._log, directory=ROOT
        )

    def stop(self) -> None:
        if self._process is not None:
            stop(self._process, 10)


@dataclass
class Running:
    """A system, and what is behind it."""

    url: str
    api_url: str
    portal_url: str
    amqp_url: str
    engine: Engine
    mail: MailServer
    recorder: Recorder
    supervisor: Supervisor
    books: Gate

    def session(self) -> Session:
        return Session(self.engine, expire_on_commit=False)


@pytest.fixture(scope="module")
def services() -> set[str]:
    """What runs; a module that needs others says so."""
    return set(MODULES) - {"portal"}


@pytest.fixture(scope="module")
def variables() -> dict[str, str]:
    """What every process is set to beside what it needs; a module that wants some says so."""
    return {}


@pytest.fixture(scope="module")
def running(
    module_amqp_url, module_database_url, tmp_path_factory, services, variables
) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("system")
    engine = create_engine(module_database_url)
    with Session(engine) as session, session.begin():
        users.put(session, "ada", "act", PASSWORD)
        users.put(session, "wole", "watch", PASSWORD)
    mail = MailServer(folder / "mailbox")
    mail.start()
    port, ops_port, portal_port = Port(), Port(), Port()
    common = {
        "SMTP_PORT": str(mail.port),
        "SIGN_IN_ATTEMPTS_PER_MINUTE": "1000",
        "ACCOUNT_ATTEMPTS_PER_MINUTE": "10",
        "WEB_CONCURRENCY": "1",
        **variables,
    }

    # Between the console and the database.
    books = Gate(module_database_url)

    def environment(name: str) -> dict[str, str]:
        url = books.url if name == "ops" else module_database_url
        return common | {
            "AMQP_URL": as_service(module_amqp_url, broker_user(name)),
            "DATABASE_URL": as_service(url, name),
        }

    supervisor = Supervisor({}, folder / "logs", Terminal(quiet=True), spawn=spawn)
    recorder = Recorder(environment("orders"), folder / "logs" / "orders.log")
    listening = {"ingress": port, "ops": ops_port, "portal": portal_port}
    addresses = {
        "PORT": port,
        "OPS_PORT": ops_port,
        "PORTAL_PORT": portal_port,
        "PUBLIC_URL": Address(port),
        "PORTAL_API_URL": Address(port),
        "TRACKING_URL": Address(portal_port, "http://127.0.0.1:{}/track"),
    }
    try:
        start_services(
            supervisor,
            lambda name: {**environment(name), **addresses},
            {name: listening[name] for name in services & set(listening)},
            services - {"orders"},
        )
        urls = {name: str(Address(at)) for name, at in listening.items()}
        if "orders" in services:
            recorder.start()
        for name in services & set(listening):
            until(lambda name=name: answers(f"{urls[name]}/healthz"), f"{name} answers")
        yield Running(
            urls["ops"],
            urls["ingress"],
            urls["portal"],
            module_amqp_url,
            engine,
            mail,
            recorder,
            supervisor,
            books,
        )
    finally:
        recorder.stop()
        supervisor.stop()
        mail.stop()
        books.__exit__(None, None, None)
        engine.dispose()


def answers(url: str) -> bool:
    try:
        return httpx.get(url).status_code == 200
    except httpx.HTTPError:
        return False


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    executable = program("chromium-headless-shell")
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=executable, args=list(ARGUMENTS))
        with patient(opened):
            yield opened
        opened.close()


@contextmanager
def patient(browser: Browser) -> Iterator[None]:
    """Have each context wait as long as `expect` does: of itself it gives a busy machine 30 s."""
    make = browser.new_context

    def new_context(**options: Any) -> BrowserContext:
        context = make(**options)
        context.set_default_timeout(PATIENCE * 1000)
        return context

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(browser, "new_context", new_context)
        yield


def sign_in(page: Page, running: Running, name: str = "ada") -> None:
    page.goto(f"{running.url}/sign-in")
    page.get_by_label("Name").fill(name)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("button", name="Sign out").wait_for()


@pytest.fixture(scope="module")
def signed_in(browser: Browser, running: Running) -> Iterator[object]:
    """What a browser keeps after signing in, as somebody who may act."""
    context = browser.new_context()
    sign_in(context.new_page(), running)
    yield context.storage_state()
    context.close()


def complaints_in(message: ConsoleMessage) -> list[str]:
    # That a form was refused is no fault of the page.
    is_fault = message.type == "error" and not message.text.startswith("Failed to load resource")
    return [message.text] if is_fault else []


def listen(page: Page) -> list[str]:
    """What a tab's pages complain of from now on."""
    complaints: list[str] = []
    page.on("console", lambda message: complaints.extend(complaints_in(message)))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    return complaints


@pytest.fixture
def page(browser: Browser, running: Running, signed_in) -> Iterator[Page]:
    """A tab of somebody who may act; what its pages complain of is an error."""
    context = browser.new_context(base_url=running.url, storage_state=signed_in)
    opened = context.new_page()
    complaints = listen(opened)
    yield opened
    context.close()
    assert complaints == []
