"""The cost of `/readyz`, which anyone may call, and what it shows to whom."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
from falcon.asgi import Response
from falcon.testing import create_asgi_req

from services.ingress.credentials.cache import SecretCache
from services.ingress.credentials.policies import Policies
from services.ingress.server import health

WELL = SimpleNamespace(status=SimpleNamespace(is_well=True), where="rabbit2:5672")
BUS = SimpleNamespace(state="connected", standing=WELL, is_listening=True)


@pytest.fixture
def asked(monkeypatch):
    """Counts the queries."""
    found = []

    class Database:
        def connect(self):
            found.append(1)
            return nullcontext(SimpleNamespace(execute=lambda _: None))

    monkeypatch.setattr(health, "engine", Database)
    return found


def answers(count, address="127.0.0.1"):
    async def ask(readyz):
        req, resp = create_asgi_req(), Response()
        req.scope["client"] = (address, 50_000)
        await readyz.on_get(req, resp)
        return resp.media

    async def flood():
        with ThreadPoolExecutor(4) as threads:
            cache = SecretCache(threads, threads, Policies())
            readyz = health.Readyz(BUS, cache, BUS, threads)
            return await asyncio.gather(*(ask(readyz) for _ in range(count)))

    return asyncio.run(flood())


def test_concurrent_probes_share_one_query(asked):
    assert {answer["database"] for answer in answers(100)} == {"connected"}
    assert len(asked) == 1


@pytest.mark.parametrize(("address", "told"), [("10.0.0.7", "rabbit2:5672"), ("9.9.9.9", None)])
def test_the_brokers_address_is_shown_to_internal_addresses_only(asked, address, told):
    assert answers(1, address)[0].get("bus_address") == told
