"""The ledger: what was sent and answered, against what was recorded and mailed.

The promise under test: an order answered 201 is recorded once and its customer is told, whatever
dies. A request without an answer may have either end, but not half of one.
"""

import asyncio
import base64
import hashlib
import hmac
import json
import random
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from uuid import UUID, uuid4

from amqp.exceptions import AMQPError
from sqlalchemy import Engine, text

from stack.mailbox import Maildir
from tests.integration.arrange import depths, sign

SETTLE_SECONDS = 240.0  # bounds a failure: without one more order recorded or customer told
ANSWER_SECONDS = 60.0
"""A request without an answer by then counts as hung. An answer takes three seconds; but after a
SIGHUP nobody takes connections before a new worker is up, for which gunicorn gives it 30."""
LANES = ("orders.intake", "notifier.orders", "notifier.bulk", "notifier.urgent")
UNDER_WAY = (*LANES, "retry.0s", "retry.5s", "retry.30s")
"""Queues from which an order may still be recorded, or an email sent, within a minute."""
OF_SHOPIFY = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
"""What Shopify signs with; the business has given it to us."""


@dataclass
class Sent:
    """One request and what became of it.

    Attributes:
        customer: the address in it, unlike any other's.
        status: of the answer; 0 when the connection ended without one, -1 when nothing came.
        order_id: in a 201.
    """

    customer: str
    status: int = 0
    order_id: str = ""
    retry_after: str = ""
    seconds: float = 0.0


@dataclass
class Load:
    """A steady load of signed orders from a thread of its own.

    Args:
        url: the ingress.
        secret: to sign with; may be changed while it runs.
        path: below the API's prefix.
        sign: makes the headers, of a secret and a body.
        account_id: whose shops send too, one sender in four as WooCommerce and one as Shopify
            does, whose secret it was given; None where no shop does.
        rate: requests a second.
        connections: kept open, as senders do.
    """

    url: str
    secret: str
    rate: float = 150.0
    connections: int = 12
    path: str = "/webhooks/orders/"
    sign: Callable[[str, bytes], dict[str, str]] = sign
    account_id: UUID | None = None
    sent: list[Sent] = field(default_factory=list)

    def __enter__(self) -> "Load":
        self._stopping = False
        self._run_id = f"{random.randrange(10**9):09}"
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping = True
        self._thread.join(2 * ANSWER_SECONDS)
        assert not self._thread.is_alive(), "a request hangs"

    def statuses(self, since: int = 0) -> Counter[int]:
        return Counter(sent.status for sent in self.sent[since:])

    async def _run(self) -> None:
        await asyncio.gather(*(self._sender(number) for number in range(self.connections)))

    async def _sender(self, number: int) -> None:
        host, port = self.url.removeprefix("http://").split(":")
        pause = self.connections / self.rate
        await asyncio.sleep(pause * number / self.connections)
        count, streams = 0, None
        while not self._stopping:
            begin = time.monotonic()
            count += 1
            sent = Sent(f"c{number}-{count}-{self._run_id}@shop.example")
            try:
                async with asyncio.timeout(ANSWER_SECONDS):
                    if streams is not None and streams[0].at_eof():
                        # Closed while it was idle, which every HTTP library looks for first.
                        streams[1].close()
                        streams = None
                    if streams is None:
                        streams = await asyncio.open_connection(host, int(port))
                    is_kept = await self._exchange(sent, number, *streams)
            except TimeoutError:
                sent.status, is_kept = -1, False
            except (OSError, EOFError, ValueError):
                sent.status, is_kept = 0, False
            if not is_kept and streams is not None:
                streams[1].close()
                streams = None
            sent.seconds = time.monotonic() - begin
            self.sent.append(sent)
            await asyncio.sleep(max(0.0, pause - sent.seconds))

    async def _exchange(
        self, sent: Sent, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        """Send one request and read its answer; returns whether the connection stays."""
        path, headers, body = self._signed(sent.customer, number)
        sent.status, answer, content = await post(reader, writer, path, headers, body)
        sent.retry_after = answer.get("retry-after", "")
        if sent.status == 201:
            sent.order_id = json.loads(content)["order_id"]
        return answer.get("connection") != "close"

    def _signed(self, customer: str, number: int) -> tuple[str, dict[str, str], bytes]:
        """An order for a customer, as a sender of this number sends it."""
        if self.account_id is not None and number % 4 == 0:
            body = woocommerce_body(customer)
            headers = woocommerce_headers(self.secret, body)
            return f"/webhooks/{self.account_id}/woocommerce/", headers, body
        if self.account_id is not None and number % 4 == 1:
            body = shopify_body(customer)
            return f"/webhooks/{self.account_id}/shopify/", shopify_headers(body), body
        body = order_body(customer)
        return self.path, self.sign(self.secret, body), body


def order_body(customer: str) -> bytes:
    """An order for a customer, by the address."""
    return json.dumps(
        {
            "customer_details": {"name": "Zoë", "email": customer},
            "item_summary": "2 × blue kettle",
            "address": "12 Marina Road",
        }
    ).encode()


def _number(customer: str) -> int:
    """A shop's own for an order."""
    return int.from_bytes(hashlib.sha256(customer.encode()).digest()[:6])


def woocommerce_body(customer: str) -> bytes:
    """The same as WooCommerce tells it."""
    number = _number(customer)
    order = {
        "id": number,
        "number": str(number),
        "status": "processing",
        "date_modified_gmt": datetime.now(UTC).replace(tzinfo=None).isoformat(),
        "billing": {"first_name": "Zoë", "email": customer, "address_1": "12 Marina Road"},
        "line_items": [{"name": "blue kettle", "quantity": 2}],
    }
    return json.dumps(order).encode()


def shopify_body(customer: str) -> bytes:
    """The same as Shopify tells it."""
    number, now = _number(customer), datetime.now(UTC).isoformat(timespec="seconds")
    order = {
        "id": number,
        "name": f"#{number}",
        "email": customer,
        "created_at": now,
        "updated_at": now,
        "cancelled_at": None,
        "financial_status": "paid",
        "fulfillment_status": None,
        "fulfillments": [],
        "shipping_address": {"name": "Zoë", "address1": "12 Marina Road"},
        "line_items": [{"name": "blue kettle", "quantity": 2}],
    }
    return json.dumps(order).encode()


def shopify_headers(body: bytes) -> dict[str, str]:
    """The headers of a delivery of Shopify, by the secret that `OF_SHOPIFY` is."""
    return {
        "Content-Type": "application/json",
        "X-Shopify-Topic": "orders/create",
        "X-Shopify-Shop-Domain": "kettles.myshopify.com",
        "X-Shopify-Webhook-Id": str(uuid4()),
        "X-Shopify-Hmac-Sha256": _mac(OF_SHOPIFY, body),
    }


def woocommerce_headers(secret: str, body: bytes) -> dict[str, str]:
    """The headers of a delivery of WooCommerce."""
    return {
        "Content-Type": "application/json",
        "X-WC-Webhook-Topic": "order.created",
        "X-WC-Webhook-Source": "https://kettles.example/",
        "X-WC-Webhook-Signature": _mac(secret, body),
    }


def _mac(secret: str, body: bytes) -> str:
    return base64.b64encode(hmac.digest(secret.encode(), body, "sha256")).decode()


async def post(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    path: str,
    headers: Mapping[str, str],
    body: bytes,
) -> tuple[int, dict[str, str], bytes]:
    """Send one request and read its answer: status, headers in small letters, content."""
    lines = [f"{name}: {value}" for name, value in headers.items()]
    first = (f"POST /api/v1{path} HTTP/1.1", "Host: fellow", f"Content-Length: {len(body)}")
    writer.write("\r\n".join((*first, *lines)).encode() + b"\r\n\r\n" + body)
    top, *rest = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    answer = {name.lower(): value for name, _, value in (line.partition(": ") for line in rest)}
    content = await reader.readexactly(int(answer["content-length"]))
    return int(top.split()[1]), answer, content


@dataclass(frozen=True)
class Balance:
    """The end of a case, counted.

    Attributes:
        accepted: 201s.
        answers: by status.
        doubled: emails that came more than once, by their Message-ID: several may be for one
            customer, who is told of each change.
    """

    accepted: int
    answers: Counter[int]
    doubled: int

    def accepted_all(self) -> None:
        """Nobody outside noticed anything."""
        assert set(self.answers) == {201}, self.answers


def settle(
    load: Load, engine: Engine, amqp_url: str, maildir: Maildir, watch: Callable[[], None]
) -> Balance:
    """Wait until everything is through, and compare.

    What waits for another try may send a second email, so the first seconds of the retry ladder
    have to be through too.

    Args:
        load: ended.
        engine: to look into the books.
        amqp_url: of the broker, past any gate.
        maildir: where emails land.
        watch: restarts what was killed last, and was still ending when the load did.

    Raises:
        AssertionError: an order or an email is missing, or is there twice.
    """
    accepted = {sent.order_id: sent.customer for sent in load.sent if sent.status == 201}
    assert len(accepted) == sum(1 for sent in load.sent if sent.status == 201)
    ours = {sent.customer for sent in load.sent}
    deadline, before = 0.0, (-1, -1)
    while True:
        watch()
        recorded, emails = _recorded(engine, ours), _emails(maildir, ours)
        if (len(recorded), len(emails)) != before:
            before = len(recorded), len(emails)
            deadline = time.monotonic() + SETTLE_SECONDS
        told = {address for address, _ in emails}
        missing = accepted.keys() - recorded.keys()
        untold = set(recorded.values()) - told
        if not missing and not untold and _is_quiet(engine, amqp_url):
            break
        if time.monotonic() > deadline:
            raise AssertionError(
                f"after {SETTLE_SECONDS:g} s without progress: of {len(accepted)} accepted "
                f"{len(missing)} are not recorded {sorted(missing)[:3]}, of {len(recorded)} "
                f"recorded {len(untold)} are not told {sorted(untold)[:3]}: "
                f"{_whereabouts(engine, [id_ for id_ in recorded if recorded[id_] in untold])}"
            )
        time.sleep(0.5)
    assert {id_: recorded[id_] for id_ in accepted} == accepted
    twice = [customer for customer, n in Counter(recorded.values()).items() if n > 1]
    assert not twice, f"recorded twice: {twice[:3]}"
    strangers = told - set(recorded.values())
    assert not strangers, f"told of an order that is not recorded: {sorted(strangers)[:3]}"
    doubled = sum(1 for n in emails.values() if n > 1)
    balance = Balance(len(accepted), load.statuses(), doubled)
    print(
        f"ledger: {len(load.sent)} sent, answers {dict(balance.answers)}, "
        f"{len(recorded)} recorded, {sum(emails.values())} emails, {doubled} doubled"
    )
    return balance


def told(maildir: Maildir, load: Load) -> set[str]:
    """Those customers of a load who have got an email."""
    return {address for address, _ in _emails(maildir, {sent.customer for sent in load.sent})}


def _recorded(engine: Engine, ours: set[str]) -> dict[str, str]:
    with engine.connect() as connection:
        rows = connection.execute(text("SELECT id, customer_email FROM orders"))
        return {str(UUID(str(row.id))): row[1] for row in rows if row[1] in ours}


def _whereabouts(engine: Engine, orders: list[str]) -> dict[str, object]:
    """How far the facts of orders got, and what the outbox holds."""
    with engine.connect() as connection:
        told = connection.execute(
            text(
                "SELECT state, count(*), min(at), max(at) FROM email_deliveries "
                "WHERE subject_id = ANY(CAST(:ids AS text[])) GROUP BY state"
            ),
            {"ids": orders},
        ).all()
        recorded = connection.execute(
            text(
                "SELECT count(*), min(recorded_at), max(recorded_at) FROM orders "
                "WHERE id = ANY(CAST(:ids AS uuid[]))"
            ),
            {"ids": orders},
        ).one()
        waiting = connection.execute(
            text(
                "SELECT exchange, routing_key, attempts, next_try_at, parked_at, reason, count(*) "
                "FROM outbox GROUP BY 1, 2, 3, 4, 5, 6 LIMIT 20"
            )
        ).all()
        handled = connection.execute(
            text(
                "SELECT consumer, date_trunc('second', handled_at), count(*) FROM inbox "
                "WHERE handled_at >= (SELECT min(recorded_at) FROM orders "
                "WHERE id = ANY(CAST(:ids AS uuid[]))) GROUP BY 1, 2 ORDER BY 2 LIMIT 60"
            ),
            {"ids": orders},
        ).all()
    return {
        "recorded": recorded,
        "email_deliveries": told,
        "outbox": waiting,
        "inbox": handled,
    }


def _emails(maildir: Maildir, ours: set[str]) -> Counter[tuple[str, str]]:
    """How often each email to a customer of ours came: by address and Message-ID."""
    found = (_envelope(file) for file in (maildir.path / "new").iterdir())
    return Counter(email for email in found if email[0] in ours)


@cache
def _envelope(file: Path) -> tuple[str, str]:
    # Parsing tens of thousands of emails again and again would be most of the test.
    content = file.read_bytes()
    to = re.search(rb"^To: .*?([\w.-]+@[\w.-]+)", content, re.MULTILINE)
    message_id = re.search(rb"^Message-ID:\s*(\S+)", content, re.MULTILINE | re.IGNORECASE)
    assert message_id, f"an email without Message-ID: {file}"
    return to[1].decode() if to else "", message_id[1].decode()


def _is_quiet(engine: Engine, amqp_url: str) -> bool:
    with engine.connect() as connection:
        if connection.execute(text("SELECT count(*) FROM outbox")).scalar():
            return False
    try:
        return not any(depths(amqp_url, UNDER_WAY))
    except (AMQPError, OSError):  # a node that is not back yet
        return False
