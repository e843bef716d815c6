"""A business that may send, and ways to send what no HTTP library would."""

import json
import socket
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import pytest

from shared import tokens
from shared.db.models import OutboxMessage
from tests.integration.arrange import account, depth, sign
from tests.integration.conftest import Api

ORDER = {
    "customer_details": {"name": "Zoë Ade", "email": "zoe@shop.example", "phone": "+234"},
    "item_summary": "2 × blue kettle",
    "address": "12 Marina Road\nLagos",
    "tracking_status": "PENDING",
}
PATH = "/webhooks/orders/"


@dataclass
class Sender:
    """An approved business and its secret."""

    api: Api
    account_id: UUID
    secret: str
    bearer: dict[str, str]

    def send(self, body: Any = ORDER, **headers: str) -> Any:
        """Send a body, signed; headers replace those of the signature."""
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.api.http.post(PATH, content=raw, headers=sign(self.secret, raw) | headers)

    def raw(self, *lines: bytes, body: bytes = b"") -> tuple[int, dict[str, Any]]:
        """Send a request as it stands; returns the status and the JSON of the answer."""
        return exchange(self.api, *lines, body=body)


def exchange(api: Api, *lines: bytes, body: bytes = b"") -> tuple[int, dict[str, Any]]:
    """Send header lines and a body over a socket, and read the answer to its end."""
    host, port = api.url.removeprefix("http://").split(":")
    head = b"\r\n".join(
        (b"POST /api/v1/webhooks/orders/ HTTP/1.1", b"Host: x", b"Connection: close", *lines)
    )
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.sendall(head + b"\r\n\r\n" + body)
        answer = b""
        while chunk := connection.recv(65_536):
            answer += chunk
    top, _, content = answer.partition(b"\r\n\r\n")
    status = int(top.split(b" ", 2)[1])
    return status, json.loads(content) if content.startswith(b"{") else {}


def approved(api: Api) -> Sender:
    """A new business that may send."""
    with api.session() as session:
        made = account(session, status="approved")
    bearer = {"Authorization": f"Bearer {tokens.make(made.id, 'access').text}"}
    answer = api.http.post("/webhook/secret/", headers=bearer)
    assert answer.status_code == 201, answer.text
    return Sender(api, made.id, answer.json()["secret_key"], bearer)


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
