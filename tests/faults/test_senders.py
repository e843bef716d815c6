"""What a sender may count on: sending again costs nothing, and a rotation need not be noticed."""

import asyncio
import json
import os
import threading
from collections import Counter

import httpx
import pytest
from sqlalchemy import text

from tests.faults.ledger import ANSWER_SECONDS, Load, Sent, order_body, post
from tests.integration.arrange import PATIENCE, sign, until
from tests.integration.ingress.conftest import standard_headers

ORDERS = int(os.environ.get("FAULTS_ORDERS", "10000"))
LANES = 24
SWITCH_SECONDS = 5.0  # how long a sender takes to notice its new secret


class Doubled:
    """Sends each order twice at once, over two connections, each until it is accepted.

    In turn by `Idempotency-Key` and by Standard Webhooks. It looks like a `Load` that has ended:
    one `Sent` for an order, 201 when both were told the same.
    """

    def __init__(self, stand, count):
        self._stand = stand
        self._host, self._port = stand.url.removeprefix("http://").split(":")
        self._numbers = iter(range(count))
        self._run_id = f"{stand.rng.randrange(10**9):09}"
        self.sent = []
        self.tries = 0

    def statuses(self):
        return Counter(sent.status for sent in self.sent)

    def run(self):
        asyncio.run(self._run())

    async def _run(self):
        await asyncio.gather(*(self._lane() for _ in range(LANES)))

    async def _lane(self):
        connections = [[], []]
        for number in self._numbers:
            sent = Sent(f"d{number}-{self._run_id}@shop.example")
            told = await asyncio.gather(
                *(self._until_accepted(held, number, sent.customer) for held in connections)
            )
            if told[0] == told[1]:
                sent.status, sent.order_id = 201, told[0]
            self.sent.append(sent)
        for held in connections:
            if held:
                held[1].close()

    async def _until_accepted(self, held, number, customer):
        body = order_body(customer)
        while True:
            self.tries += 1
            try:
                async with asyncio.timeout(ANSWER_SECONDS):
                    if not held:
                        held[:] = await asyncio.open_connection(self._host, int(self._port))
                    path, headers = self._signed(number, customer, body)
                    status, answer, content = await post(*held, path, headers, body)
            except (OSError, EOFError, TimeoutError):
                if held:
                    held[1].close()
                    held.clear()
                await asyncio.sleep(0.05)
                continue
            if answer.get("connection") == "close":
                held[1].close()
                held.clear()
            if status == 201:
                return json.loads(content)["order_id"]
            assert status in {429, 503}, content
            await asyncio.sleep(0.2)

    def _signed(self, number, customer, body):
        if number % 2:
            key = {"Idempotency-Key": customer}
            return "/webhooks/orders/", sign(self._stand.secret, body) | key
        id_ = customer.replace(".", "-")  # no dots in an id of theirs
        headers = standard_headers(self._stand.signing_secret, body, id_)
        return f"/webhooks/{self._stand.account_id}/orders/", headers


def test_every_request_doubled_and_a_worker_killed_is_each_order_and_email_once(stand):
    doubled = Doubled(stand, ORDERS)
    thread = threading.Thread(target=doubled.run, daemon=True)
    thread.start()
    while thread.is_alive() and len(doubled.sent) < ORDERS // 2:
        stand.go_on(0.05)
    until(stand.kill_worker, "a worker is killed")
    while thread.is_alive():
        stand.go_on(0.05)
    balance = stand.settle(doubled)
    balance.accepted_all()
    assert (balance.accepted, balance.doubled) == (ORDERS, 0)
    assert doubled.tries >= 2 * ORDERS
    with stand.engine.connect() as connection:
        # A copy of an order is none.
        assert connection.scalar(text("SELECT count(*) FROM order_conflicts")) == 0


@pytest.mark.parametrize("scheme", ["X-API-Key", "Standard Webhooks"])
def test_a_rotation_under_load_is_not_noticed(stand, scheme):
    if scheme == "X-API-Key":
        form, load = "secret_key", Load(stand.url, stand.secret)
    else:
        path = f"/webhooks/{stand.account_id}/orders/"
        form = "signing_secret"
        load = Load(stand.url, stand.signing_secret, path=path, sign=standard_headers)

    def rotate():
        address = f"{stand.url}/api/v1/webhook/secret/"
        return httpx.post(address, headers=stand.bearer, timeout=PATIENCE).json()[form]

    with load:
        stand.go_on(1)
        fresh = rotate()
        assert fresh != load.secret
        stand.go_on(SWITCH_SECONDS)
        load.secret = fresh
        stand.go_on(1)
        # And one that switches at once, before any worker can have heard of it.
        load.secret = rotate()
        stand.go_on(1)
    stand.settle(load).accepted_all()
