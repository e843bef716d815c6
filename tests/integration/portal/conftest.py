"""A portal before a real ingress, and browsers that walk through it by its forms alone."""

import html
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from shared.ids import new_id
from stack.folders import ROOT
from stack.processes import spawn, stop
from stack.servers.credentials import as_service
from stack.servers.listening import LISTEN_SECONDS, Start
from stack.servers.ports import Address, Port
from tests.integration.arrange import until
from tests.integration.conftest import Api, running_ingress

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


class Browser:
    """Follows links and sends forms, as a browser without scripts does."""

    def __init__(self, url: str, **headers: str) -> None:
        self.http = httpx.Client(
            base_url=url, follow_redirects=True, timeout=60, trust_env=False, headers=headers
        )
        self.page = ""
        self.status = 0

    def get(self, path: str) -> str:
        return self._took(self.http.get(path))

    def send(self, action: str, **fields: str) -> str:
        """Send the form of this page that goes to `action`, with its hidden fields."""
        form = re.search(
            rf'<form[^>]*method="post" action="{re.escape(action)}".*?</form>', self.page, re.DOTALL
        )
        assert form, f"no form to {action} in {self.page}"
        hidden = re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)"', form[0])
        data = {name: html.unescape(value) for name, value in hidden} | fields
        return self._took(self.http.post(action, data=data))

    def _took(self, answer: httpx.Response) -> str:
        self.page, self.status = answer.text, answer.status_code
        return self.page


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
