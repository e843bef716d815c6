"""A portal before a real ingress, and browsers that walk through it by its forms alone."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from shared.ids import new_id
from stack.browser import Browser
from stack.folders import ROOT
from stack.processes import stop
from stack.servers.credentials import as_service
from stack.servers.listening import LISTEN_SECONDS, Start
from stack.servers.ports import Address, Port
from tests.integration.arrange import until
from tests.integration.conftest import Api, running_ingress
from tests.zygote.forks import spawn

PASSWORD = "correct horse battery"


@contextmanager
def running_portal(folder: Path, api: Api, **environment: str) -> Iterator[str]:
    """Give where it listens."""
    log = folder / "portal.log"
    given = {
        "DATABASE_URL": as_service(api.database_url, "portal"),
        "PORTAL_API_URL": api.url,
        "PUBLIC_URL": api.url,
    } | environment
    with Port() as port:

        def start():
            return spawn(
                (sys.executable, "-m", "services.portal"),
                environment=os.environ | given | {"PORTAL_PORT": str(port)},
                log=log,
                directory=ROOT,
            )

        process = Start("portal", start, (port,), log, LISTEN_SECONDS).wait()
        try:
            url = str(Address(port))
            until(lambda: _answers(url), "the portal answers")
            yield url
        finally:
            stop(process, 15)


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/healthz").status_code == 200
    except httpx.HTTPError:
        return False


@dataclass
class Stage:
    """A portal, and the API behind it."""

    url: str
    api: Api
    log: Path

    def browser(self, **headers: str) -> Browser:
        return Browser(self.url, **headers)

    def registered(self, company_name: str = "Kettle & Co") -> tuple[Browser, str]:
        """A browser of a new business, signed in; and the business's address."""
        email, browser = f"{new_id()}@kettle.example", self.browser()
        browser.get("/register")
        browser.send("/register", company_name=company_name, email=email, password=PASSWORD)
        browser.send("/verify", code=self.api.code_for(email))
        browser.send("/sign-in", email=email, password=PASSWORD)
        assert "Sign out" in browser.page, browser.page
        return browser, email


@pytest.fixture(scope="module")
def ingress_settings() -> dict[str, str]:
    return {"TRUSTED_PROXIES": "1"}


@pytest.fixture(scope="module")
def stage(
    module_amqp_url, module_database_url, tmp_path_factory, ingress_settings
) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("portal")
    with (
        running_ingress(folder, module_amqp_url, module_database_url, **ingress_settings) as api,
        running_portal(folder, api, TRUSTED_PROXIES="1") as url,
    ):
        yield Stage(url, api, folder / "portal.log")
