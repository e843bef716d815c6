"""A business that may send, and ways to send what no HTTP library would."""

import json
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import create_engine, func, select
from standardwebhooks.webhooks import Webhook

from services.ingress.credentials.cache import SecretCache
from services.ingress.credentials.policies import Policies
from shared.db.models import OutboxMessage, WebhookSecret
from shared.ids import new_id
from tests.integration.arrange import (
    PATIENCE,
    access_token,
    account,
    by_each_worker,
    depth,
    get,
    sign,
    until,
)
from tests.integration.conftest import Api, require_declared, running_ingress
from tests.integration.gate import Gate

ORDER = {
    "customer_details": {"name": "Zoë Ade", "email": "zoe@shop.example", "phone": "+234"},
    "item_summary": "2 × blue kettle",
    "address": "12 Marina Road\nLagos",
    "tracking_status": "PENDING",
}
PATH = "/webhooks/orders/"


def pytest_itemcollected(item: pytest.Item) -> None:
    """Give each of schemathesis's tests an id of its own: since pytest 9.2 theirs are all equal."""
    label = getattr(item, "operation_label", None)
    if label is not None and item.id.params is None:
        item._id = item.id.with_params(label)


@pytest.fixture
def policies():
    return Policies()


@pytest.fixture
def cache(settings, policies):
    with ThreadPoolExecutor(2) as threads:
        yield SecretCache(threads, threads, policies)


@dataclass
class Sender:
    """An approved business and its secret."""

    api: Api
    account_id: UUID
    secret: str
    bearer: dict[str, str]
    signing_secret: str = ""

    def send(self, body: Any = ORDER, **headers: str) -> Any:
        """Send a body, signed; headers replace those of the signature."""
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.api.http.post(PATH, content=raw, headers=sign(self.secret, raw) | headers)

    def standard(self, body: Any = ORDER, id_: str = "", **headers: str) -> Any:
        """Send a body, signed by Standard Webhooks' own library; headers replace its own."""
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        signed = standard_headers(self.signing_secret, raw, id_)
        return self.api.http.post(self.path, content=raw, headers=signed | headers)

    @property
    def path(self) -> str:
        """Where Standard Webhooks of this business go."""
        return f"/webhooks/{self.account_id}/orders/"

    def raw(self, *lines: bytes, body: bytes = b"") -> tuple[int, dict[str, Any]]:
        """Send a request as it stands; returns the status and the JSON of the answer."""
        return exchange(self.api, *lines, body=body)


def exchange(
    api: Api, *lines: bytes, body: bytes = b"", path: str = PATH
) -> tuple[int, dict[str, Any]]:
    """Send header lines and a body over a socket, and read the answer to its end."""
    host, port = api.url.removeprefix("http://").split(":")
    head = b"\r\n".join(
        (f"POST /api/v1{path} HTTP/1.1".encode(), b"Host: x", b"Connection: close", *lines)
    )
    with socket.create_connection((host, int(port)), timeout=PATIENCE) as connection:
        connection.sendall(head + b"\r\n\r\n" + body)
        answer = b""
        while chunk := connection.recv(65_536):
            answer += chunk
    top, _, content = answer.partition(b"\r\n\r\n")
    status = int(top.split(b" ", 2)[1])
    told = json.loads(content) if content.startswith(b"{") else {}
    require_declared("POST", f"/api/v1{path}", status, told.get("code", ""))
    return status, told


def standard_headers(
    secret: str, body: bytes, id_: str = "", at: datetime | None = None
) -> dict[str, str]:
    """What Standard Webhooks' own library makes of a body."""
    id_, at = id_ or f"msg_{new_id()}", at or datetime.now(UTC)
    return {
        "Content-Type": "application/json",
        "webhook-id": id_,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": Webhook(secret).sign(id_, at, body.decode()),
    }


def approved(api: Api) -> Sender:
    """A new business that may send."""
    with api.session() as session:
        made = account(session, status="approved")
    bearer = {"Authorization": f"Bearer {access_token(made.id)}"}
    answer = api.http.post("/webhook/secret/", headers=bearer)
    assert answer.status_code == 201, answer.text
    shown = answer.json()
    return Sender(api, made.id, shown["secret_key"], bearer, shown["signing_secret"])


@pytest.fixture
def sender(api: Api) -> Sender:
    return approved(api)


@dataclass
class Published:
    """Counts what has left the ingress, by the bus or by the outbox."""

    api: Api
    before: int = 0

    def count(self) -> int:
        with self.api.session() as session:
            waiting = session.query(OutboxMessage).filter(OutboxMessage.exchange != "events")
            return depth(self.api.amqp_url, "orders.intake") + waiting.count()

    def since(self) -> int:
        return self.count() - self.before


@pytest.fixture
def published(api: Api) -> Published:
    counting = Published(api)
    counting.before = counting.count()
    return counting


class Direct:
    """The same ingress, with its servers reached past the gates."""

    def __init__(self, api: Api, amqp_url: str, database_url: str) -> None:
        self._engine = create_engine(database_url)
        self._api = replace(api, amqp_url=amqp_url, database_url=database_url, engine=self._engine)

    def __enter__(self) -> Api:
        return self._api

    def __exit__(self, *_: object) -> None:
        self._engine.dispose()


@pytest.fixture(scope="module")
def behind_gates(
    module_amqp_url: str, module_database_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Api, Gate, Gate]]:
    """An ingress with a gate before each server, its gates, and the ways past them."""
    urls = (module_amqp_url, module_database_url)
    with ExitStack() as stack:
        bus, database = (stack.enter_context(Gate(url)) for url in urls)
        folder = tmp_path_factory.mktemp("ingress")
        api = stack.enter_context(running_ingress(folder, bus.url, database.url))
        # For looking and arranging, past the gates.
        yield stack.enter_context(Direct(api, *urls)), bus, database


def ready(api: Api) -> bool:
    """Whether every worker has its connections."""
    return api.gauge("bus_connected") == [1.0, 1.0]


def known(api: Api) -> Sender:
    """A sender that every worker knows, so that no database is needed for it."""
    until(lambda: ready(api), "every worker is ready")
    sender = approved(api)
    with api.session() as session:
        secrets = session.scalar(select(func.count()).select_from(WebhookSecret))
    until(lambda: api.gauge("secret_cache_size") == [secrets] * 2, "every worker knows the secret")
    return sender


def all_say(api: Api, status: str) -> bool:
    """Whether all workers say it."""
    answers = by_each_worker(api.pid, lambda: get(f"{api.url}/readyz").json())
    return all(answer["status"] == status for answer in answers)
