"""A running ingress for the tests of the HTTP side: real gunicorn, two workers."""

import os
import re
import sys
from collections.abc import Iterator, Set
from dataclasses import dataclass
from functools import cache

import httpx
import pytest
from sqlalchemy import Engine, create_engine, select
from sqlalchemy.orm import Session

from shared.bus.consume import retry
from shared.bus.contract.events import AccountOtpRequested, decode
from shared.bus.contract.topology import RETRY_DELAYS
from shared.db.models import OutboxMessage
from shared.db.session import database_time
from shared.security.encryption import code_sealer
from stack.folders import ROOT
from stack.processes import Process, stop
from stack.servers.credentials import as_service
from stack.servers.listening import LISTEN_SECONDS, Start
from stack.servers.ports import Address, Port
from tests.integration.arrange import PATIENCE, until
from tests.zygote.forks import spawn


@dataclass
class Api:
    """A running ingress and what is behind it."""

    http: httpx.Client
    url: str
    amqp_url: str
    database_url: str
    engine: Engine
    pid: int = 0

    def session(self) -> Session:
        return Session(self.engine, expire_on_commit=False)

    def gauge(self, name: str) -> list[float]:
        """A gauge's value in every worker; `name` is without the prefix."""
        metrics = self.http.get(f"{self.url}/metrics").text
        found = re.findall(rf"^fellow_{name}{{pid=.*}} (\S+)$", metrics, re.MULTILINE)
        return [float(value) for value in found]

    def code_for(self, email: str) -> str:
        """The newest one-time code that is on its way to an address."""
        with self.session() as session:
            rows = session.scalars(
                select(OutboxMessage)
                .where(OutboxMessage.type == AccountOtpRequested.TYPE)
                .order_by(OutboxMessage.sequence.desc())
            )
            for row in rows:
                fact = decode(row.type, row.body)
                assert isinstance(fact, AccountOtpRequested)
                # Nobody's is over when it is made.
                if fact.email == email and fact.expires_at > database_time(session):
                    return code_sealer().open(fact.sealed_code, f"otp:{fact.code_id}").decode()
        raise AssertionError(f"no code for {email}")


@pytest.fixture
def retried_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """What fails for the first time in this process is back after 5 s, and never after 30."""
    monkeypatch.setattr(retry, "JITTER", 0.0)


@pytest.fixture
def retried_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """What fails in this process waits for an hour: there it is found, however late one looks."""
    monkeypatch.setattr(retry, "RETRY_DELAYS", RETRY_DELAYS[-1:] * len(RETRY_DELAYS))


@pytest.fixture(scope="module")
def api(module_amqp_url, module_database_url, tmp_path_factory) -> Iterator[Api]:
    with running_ingress(
        tmp_path_factory.mktemp("ingress"), module_amqp_url, module_database_url
    ) as found:
        yield found


@cache
def _declared() -> list[tuple[str, re.Pattern[str], Set[int], Set[tuple[int, str]]]]:
    from services.ingress.app import OPERATIONS, PREFIX
    from services.ingress.docs.openapi import errors_of

    # What a path names comes after the paths that are whole; each ends with a slash, or without.
    return [
        (
            o.method,
            re.compile(PREFIX + re.sub(r"{\w+}", "[^/]+", o.path) + "?"),
            set(o.answers),
            {(status, code) for status, code, _ in errors_of(o)},
        )
        for o in sorted(OPERATIONS, key=lambda o: "{" in o.path)
    ]


def require_declared(method: str, path: str, status: int, code: str) -> None:
    """Fail where an operation answers with what OpenAPI does not declare for it.

    Args:
        method: of the request.
        path: of the request, without its query.
        status: of the answer.
        code: of its error; empty where it is none.
    """
    for of, form, answers, errors in _declared():
        if of == method and form.fullmatch(path):
            is_declared = (status, code) in errors if code else status in answers
            assert is_declared, f"OpenAPI has no {status} {code} for {method} {path}"
            return


def _require_declared(response: httpx.Response) -> None:
    is_error = response.status_code >= 400 and "json" in response.headers.get("content-type", "")
    code = response.read() and response.json().get("code", "") if is_error else ""
    request = response.request
    require_declared(request.method, request.url.path, response.status_code, code)


class running_ingress:  # noqa: N801 - used as a context manager
    """An ingress of its own for as long as the context lasts.

    Ready when it begins, in every worker, unless `wait_for` is just `healthz`.
    """

    def __init__(
        self,
        folder,
        amqp_url: str,
        database_url: str,
        *,
        wait_for: str = "every worker",
        **environment: str,
    ) -> None:
        self._wait_for = wait_for
        self._log = folder / "ingress.log"
        self._amqp_url, self._database_url = amqp_url, database_url
        self._port = Port()
        self._environment = {
            "AMQP_URL": as_service(amqp_url, "ingress"),
            "DATABASE_URL": as_service(database_url, "ingress"),
            "WEB_CONCURRENCY": "2",
            "SIGN_IN_ATTEMPTS_PER_MINUTE": "100000",
            "ACCOUNT_ATTEMPTS_PER_MINUTE": "100000",
            "ADDRESS_REFUSALS_PER_MINUTE": "100000",
        } | environment

    def __enter__(self) -> Api:
        self._log.unlink(missing_ok=True)
        starting = Start("ingress", self._start, (self._port,), self._log, LISTEN_SECONDS)
        self._process = starting.wait()
        url = str(Address(self._port))
        # A new connection each time: a kept one would stay with one worker.
        fresh = httpx.Limits(max_keepalive_connections=0)
        self._http = httpx.Client(base_url=f"{url}/api/v1", timeout=PATIENCE, limits=fresh)
        self._http.event_hooks = {"response": [_require_declared]}
        self._engine = create_engine(self._database_url)
        api = Api(
            self._http, url, self._amqp_url, self._database_url, self._engine, self._process.pid
        )
        try:
            until(lambda: self._answers(url), "the ingress answers")
            if self._wait_for != "healthz":
                every = [1.0] * int(self._environment["WEB_CONCURRENCY"])
                until(lambda: api.gauge("bus_connected") == every, "every worker is connected")
        except AssertionError:
            self.__exit__()
            raise AssertionError(self._log.read_text()) from None
        return api

    def _start(self) -> Process:
        return spawn(
            (sys.executable, "-m", "tests.integration.ingress"),
            environment=os.environ | self._environment | {"PORT": str(self._port)},
            log=self._log,
            directory=ROOT,
        )

    def __exit__(self, *_: object) -> None:
        stop(self._process, 15)
        self._port.release()
        self._http.close()
        self._engine.dispose()

    def _answers(self, url: str) -> bool:
        assert self._process.poll() is None, self._log.read_text()
        try:
            return self._http.get(f"{url}/healthz").status_code == 200
        except httpx.HTTPError:
            return False
