"""What a webhook of WooCommerce or Shopify costs beside an order of our own kind, on one worker.

Each body is an order as its platform documents it, so theirs are four times as long as ours.
"""

import base64
import hmac
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

from sqlalchemy import text

from bench.contest import Contender, Result, alternate
from bench.ground import Ground, ground
from bench.load import orders, wrk
from bench.load.orders import Signed
from bench.suites.ingress import CONNECTIONS, PATH, SECONDS, count
from shared.ids import new_id
from shared.security import webhook_keys
from tests.unit.ingress.platforms import orders as shops

OURS, WOOCOMMERCE, SHOPIFY = "Order Fellow's own", "WooCommerce", "Shopify"
REQUESTS = 5_000
GIVEN = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"


def run(say: Callable[[str], None]) -> Result:
    """Measure."""
    result = Result("shops")
    with ground(("wrk", "wrk")) as on:
        owners = on.owners()
        _give(on, list(owners.values()))
        files = {name: on.folder / name.split()[0] for name in (OURS, WOOCOMMERCE, SHOPIFY)}
        orders.write(files[OURS], on.keys, REQUESTS)
        orders.write_all(files[WOOCOMMERCE], _woocommerce(owners))
        orders.write_all(files[SHOPIFY], _shopify(list(owners.values())))
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

        result.series = alternate([Contender(name, load(files[name])) for name in files], say)
    result.counted.append("After each run the queue held every order that was answered 201.")
    plain = result.median(OURS, "orders/s")
    for name in (WOOCOMMERCE, SHOPIFY):
        result.at_least(f"{name} of our own", 0.75, result.median(name, "orders/s") / plain, "x")
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


def _woocommerce(owners: Mapping[str, UUID]) -> Iterator[Signed]:
    senders = list(owners.items())
    for number in range(REQUESTS):
        key, account_id = senders[number % len(senders)]
        body = shops.raw(shops.recent(shops.woocommerce, id=number, number=str(number)))
        headers = {
            "X-WC-Webhook-Signature": _signature(key, body),
            "X-WC-Webhook-Topic": "order.created",
            "X-WC-Webhook-Source": "https://kettles.example/",
            "X-WC-Webhook-Delivery-ID": f"{number:032x}",
        }
        yield Signed(f"/api/v1/webhooks/{account_id}/woocommerce/", headers, body)


def _shopify(accounts: list[UUID]) -> Iterator[Signed]:
    for number in range(REQUESTS):
        account_id = accounts[number % len(accounts)]
        named = {"id": 5_940_139_490_000 + number, "name": f"#{number}"}
        body = shops.raw(shops.recent(shops.shopify, **named))
        headers = {
            "X-Shopify-Hmac-Sha256": _signature(GIVEN, body),
            "X-Shopify-Topic": "orders/create",
            "X-Shopify-Shop-Domain": "kettles.myshopify.com",
            "X-Shopify-Webhook-Id": f"{number:032x}",
        }
        yield Signed(f"/api/v1/webhooks/{account_id}/shopify/", headers, body)


def _signature(key: str, body: bytes) -> str:
    return base64.b64encode(hmac.digest(key.encode(), body, "sha256")).decode()
