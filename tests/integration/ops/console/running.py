"""A console of its own, as a process; and one that the tests of a file share."""

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from stack.folders import ROOT
from stack.processes import stop
from stack.servers.credentials import as_service
from stack.servers.listening import LISTEN_SECONDS, Start
from stack.servers.ports import Address, Port
from tests.integration.arrange import until
from tests.zygote.forks import spawn


@contextmanager
def running_console(
    folder: Path, amqp_url: str, database_url: str, **environment: str
) -> Iterator[tuple[str, int]]:
    """Give where it listens, and gunicorn's process id."""
    log = folder / "console.log"
    given = {
        "AMQP_URL": as_service(amqp_url, "ops"),
        "DATABASE_URL": as_service(database_url, "ops"),
    } | environment
    with Port() as port:

        def start():
            return spawn(
                (sys.executable, "-m", "services.ops.console"),
                environment=os.environ | given | {"OPS_PORT": str(port)},
                log=log,
                directory=ROOT,
            )

        process = Start("console", start, (port,), log, LISTEN_SECONDS).wait()
        try:
            url = str(Address(port))
            until(lambda: _answers(url), "the console answers")
            yield url, process.pid
        finally:
            stop(process, 15)


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/healthz").status_code == 200
    except httpx.HTTPError:
        return False


def form_token(browser: httpx.Client, path: str, **query: str) -> str:
    """The token of a page's forms.

    On a busy machine the console takes its database for one that hangs, and says so with a 503.
    """
    pages: list[httpx.Response] = []

    def is_shown() -> bool:
        pages.append(browser.get(path, params=query))
        return pages[-1].status_code != 503

    until(is_shown, f"{path} is shown")
    found = re.search(r'name="form_token" value="([^"]+)"', pages[-1].text)
    assert found, pages[-1].text
    return found[1]


# The fixtures of a file whose tests share one console, beside those of `of_a_file`.


@pytest.fixture
def service() -> str:
    return "ops"


@pytest.fixture(scope="module")
def console(module_amqp_url, module_database_url, tmp_path_factory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("console")
    given = module_amqp_url, module_database_url
    with running_console(folder, *given, ENVIRONMENT="test") as (url, _):
        yield url
