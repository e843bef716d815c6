"""Requests that nobody would write: whatever arrives, the answer is never a 5xx.

`FUZZ_REQUESTS=100000` sends more; the seed is printed and `FUZZ_SEED` repeats it.
"""

import asyncio
import copy
import json
import os
import random
from collections import Counter

from tests.integration.arrange import sign
from tests.integration.conftest import running_ingress
from tests.integration.ingress.conftest import ORDER, approved, standard_headers

REQUESTS = int(os.environ.get("FUZZ_REQUESTS", "3000"))
AT_ONCE = 16
PATHS = (
    "/api/v1/webhooks/orders/",
    "/api/v1/users/auth/register/",
    "/api/v1/users/auth/login/",
    "/api/v1/users/auth/refresh/",
    "/api/v1/users/verify-otp/",
    "/api/v1/kyc/",
    "/api/v1/webhook/secret/",
    "/api/v1/webhook/allowlist/",
    "/api/v1/orders/",
    "/api/v1/orders/01a20999-db46-7249-a750-ddf0d0dd540c/",
)
ODD = (
    None,
    True,
    -1,
    10**30,
    1e308,
    "",
    "\x00",
    "\ud800",
    "x" * 5000,
    "a@b.example\r\nBcc: c@d.example",
    "{{ 7 * 7 }}",
    "' OR 1=1 --",
    [],
    [[[[]]]],
    {},
    {"$ne": None},
)
BYTES = (b"\x00", b"\xff", b"\r\n", b"\n", b" ", b":", b"%", b"\x80", b"{", b'"', b"9" * 40)


class Mutator:
    """Makes requests that are nearly right."""

    def __init__(self, rng, sender):
        self._rng, self._sender = rng, sender

    def request(self):
        rng = self._rng
        body = self._body()
        path = PATHS[0] if rng.random() < 0.5 else rng.choice(PATHS)
        if rng.random() < 0.15:
            path += rng.choice(
                ("?limit=x", "?cursor=%00", "?limit=5&limit=6", "%2e%2e/", "%ff", "?")
            )
        headers = sign(self._sender.secret, body) | self._sender.bearer
        if rng.random() < 0.3:
            path = f"/api/v1{self._sender.path}"
            signed = body.decode("utf-8", "replace")
            headers = standard_headers(self._sender.signing_secret, signed.encode())
        elif rng.random() < 0.3:
            headers["Idempotency-Key"] = rng.choice(("order-7", "x" * 300, "a b", ""))
        lines = [f"{name}: {value}".encode() for name, value in headers.items()]
        if rng.random() < 0.4:
            lines[rng.randrange(len(lines))] = self._bent(rng.choice(lines))
        if rng.random() < 0.1:
            lines.append(rng.choice(lines))
        if rng.random() < 0.1:
            del lines[rng.randrange(len(lines))]
        method = rng.choice(("POST", "POST", "POST", "GET", "PUT", "OPTIONS", "HEAD", "NONSENSE"))
        lines.append(b"Content-Length: %d" % len(body))
        head = b"\r\n".join((f"{method} {path} HTTP/1.1".encode(), b"Host: x", *lines))
        raw = head + b"\r\nConnection: close\r\n\r\n" + body
        return self._bent(raw) if rng.random() < 0.1 else raw

    def _body(self):
        rng = self._rng
        order = json.loads(json.dumps(ORDER))
        for _ in range(rng.randrange(3)):
            where = rng.choice((order, order.get("customer_details") or order))
            if isinstance(where, dict):
                key = rng.choice([*where, "type", "data", "timestamp", "order_id", "email", "otp"])
                where[key] = copy.deepcopy(rng.choice(ODD))
        raw = json.dumps(order).encode()
        return self._bent(raw) if rng.random() < 0.3 else raw

    def _bent(self, raw):
        rng = self._rng
        for _ in range(rng.randrange(1, 4)):
            at = rng.randrange(len(raw) + 1)
            match rng.randrange(3):
                case 0:
                    raw = raw[:at] + rng.choice(BYTES) + raw[at:]
                case 1:
                    raw = raw[:at] + raw[at + rng.randrange(1, 8) :]
                case _:
                    raw = raw[:at] + bytes([rng.randrange(256)]) + raw[at + 1 :]
        return raw


async def send_all(url, mutator, count):
    host, port = url.removeprefix("http://").split(":")
    statuses = Counter()
    bad = []

    async def one():
        raw = mutator.request()
        try:
            async with asyncio.timeout(20):
                reader, writer = await asyncio.open_connection(host, int(port))
                writer.write(raw)
                top = await reader.readline()
                writer.close()
        except (OSError, TimeoutError):
            top = b""
        status = int(top.split()[1]) if top.startswith(b"HTTP/1.1 ") else 0
        statuses[status] += 1
        if status >= 500:
            bad.append((status, raw))

    async def lane(share):
        for _ in range(share):
            await one()

    await asyncio.gather(*(lane(count // AT_ONCE) for _ in range(AT_ONCE)))
    return statuses, bad


def test_nothing_that_arrives_is_a_5xx(api, tmp_path):
    seed = int(os.environ.get("FUZZ_SEED", random.randrange(10**6)))
    print(f"FUZZ_SEED={seed}")
    with running_ingress(tmp_path, api.amqp_url, api.database_url, REQUEST_SECONDS="1") as hardened:
        sender = approved(hardened)
        mutator = Mutator(random.Random(seed), sender)
        statuses, bad = asyncio.run(send_all(hardened.url, mutator, REQUESTS))
        print(dict(statuses))
        assert not bad, bad[:3]
        # It goes on as if nothing had been, and both kinds of answers were seen.
        assert sender.send().status_code == 201
    assert statuses[201]
    assert statuses[400]
    assert statuses[401]
