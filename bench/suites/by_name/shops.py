"""What a webhook of WooCommerce or Shopify costs beside an order of our own kind, on one worker.

Each body is an order as its platform documents it, made just now. It is compared with the same
order as its sender would write it to us: with the number, items and address that we record of it.
The short order of the other suites, which has none of them, is measured beside it.
"""

import base64
import hmac
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

from sqlalchemy import text

from bench.contest import Contender, Result, alternate
from bench.ground import Ground, ground
from bench.load import orders, wrk
from bench.load.orders import Signed
from bench.suites.ingress import CONNECTIONS, PATH, SECONDS, count
from services.ingress.platforms.woocommerce import PLATFORM
from services.ingress.shops.deliveries import order_of
from shared.ids import new_id
from shared.security import webhook_keys
from tests.unit.ingress.platforms import orders as shops

SHORT, SAME = "Order Fellow's own, short", "Order Fellow's own, the same order"
WOOCOMMERCE, SHOPIFY = "WooCommerce", "Shopify"
REQUESTS = 5_000
REPEATS = 7  # the ratio of medians of three moved by a tenth from run to run
GIVEN = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"


def run(say: Callable[[str], None]) -> Result:
    """Measure."""
    result = Result("shops")
    with ground(("wrk", "wrk")) as on:
        owners = on.owners()
        _give(on, list(owners.values()))
        written = {
            SHORT: (orders.signed(key, orders.body(n)) for n, key in _senders(on.keys)),
            SAME: _same(on.keys),
            WOOCOMMERCE: _woocommerce(owners),
            SHOPIFY: _shopify(list(owners.values())),
        }
        files = {name: on.folder / str(n) for n, name in enumerate(written)}
        for name, requests in written.items():
            orders.write_all(files[name], requests)
        url = on.start_ingress()[0] + PATH

        def load(requests: Path) -> Callable[[], Mapping[str, float]]:
            def measure() -> Mapping[str, float]:
                on.purge("orders.intake")
                warm = wrk.run(url, requests, seconds=1, connections=CONNECTIONS)
                found = wrk.run(url, requests, seconds=SECONDS, connections=CONNECTIONS)
                count(on, "orders.intake", int(warm["requests"] + found["requests"]))
                return {
                    "orders/s": found["rate"],
                    "ms p50": found["p50"],
                    "ms p99": found["p99"],
                }

            return measure

        contenders = [Contender(name, load(files[name])) for name in files]
        result.series = alternate(contenders, say, REPEATS)
    result.counted.append("After each run the queue held every order that was answered 201.")
    same = result.median(SAME, "orders/s")
    for name in (WOOCOMMERCE, SHOPIFY):
        part = result.median(name, "orders/s") / same
        result.at_least(f"{name} of the same order of our own", 0.75, part, "x")
        # Shopify gives up after 5 s, and deletes a subscription that fails often.
        result.at_most(f"{name}, p99", 1_000, result.median(name, "ms p99"), "ms")
    return result


def _give(on: Ground, accounts: list[UUID]) -> None:
    """Give each business the secret that Shopify would have shown it."""
    expires_at = datetime.now(UTC) + timedelta(days=80)
    with on.engine.begin() as connection:
        for account_id in accounts:
            secret_id = new_id()
            connection.execute(
                text(
                    "INSERT INTO webhook_secrets (id, account_id, platform, key_hash, sealed,"
                    " state, expires_at)"
                    " VALUES (:id, :account, 'shopify', :hash, :sealed, 'active', :end)"
                ),
                {
                    "id": secret_id,
                    "account": account_id,
                    "hash": secret_id.bytes * 2,
                    "sealed": webhook_keys.seal(GIVEN.encode(), secret_id),
                    "end": expires_at,
                },
            )


def _senders(keys: Sequence[str]) -> Iterator[tuple[int, str]]:
    """The number of each order, and who sends it."""
    return ((number, keys[number % len(keys)]) for number in range(REQUESTS))


def _same(keys: Sequence[str]) -> Iterator[Signed]:
    """What we record of the orders of WooCommerce, as a sender of our own kind writes it."""
    for number, key in _senders(keys):
        order = order_of(_order(number), PLATFORM)
        said = PLATFORM.read(order, "")
        body = {
            "order_number": said.number,
            "customer_details": {"name": said.name, "email": said.email, "phone": said.phone},
            "item_summary": said.items,
            "address": said.address,
            "tracking_status": "PENDING",
            "metadata": {"shop": said.shop},
        }
        yield orders.signed(key, json.dumps(body).encode())


def _order(number: int) -> bytes:
    now = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S}"
    made = {"date_created_gmt": now, "date_modified_gmt": now}
    return shops.raw(shops.woocommerce(id=number, number=str(number), **made))


def _woocommerce(owners: Mapping[str, UUID]) -> Iterator[Signed]:
    for number, key in _senders(list(owners)):
        body = _order(number)
        headers = {
            "X-WC-Webhook-Signature": _signature(key, body),
            "X-WC-Webhook-Topic": "order.created",
            "X-WC-Webhook-Source": "https://kettles.example/",
            "X-WC-Webhook-Delivery-ID": f"{number:032x}",
        }
        yield Signed(f"/api/v1/webhooks/{owners[key]}/woocommerce/", headers, body)


def _shopify(accounts: list[UUID]) -> Iterator[Signed]:
    for number in range(REQUESTS):
        account_id = accounts[number % len(accounts)]
        named = {"id": 5_940_139_490_000 + number, "name": f"#{number}"}
        now = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
        body = shops.raw(shops.shopify(created_at=now, updated_at=now, **named))
        headers = {
            "X-Shopify-Hmac-Sha256": _signature(GIVEN, body),
            "X-Shopify-Topic": "orders/create",
            "X-Shopify-Shop-Domain": "kettles.myshopify.com",
            "X-Shopify-Webhook-Id": f"{number:032x}",
        }
        yield Signed(f"/api/v1/webhooks/{account_id}/shopify/", headers, body)


def _signature(key: str, body: bytes) -> str:
    return base64.b64encode(hmac.digest(key.encode(), body, "sha256")).decode()
