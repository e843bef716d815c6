"""What `/readyz` costs, which anybody may ask for."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from types import SimpleNamespace

from falcon.asgi import Response
from falcon.testing import create_asgi_req

from services.ingress.credentials.cache import SecretCache
from services.ingress.credentials.policies import Policies
from services.ingress.server import health


def test_however_many_ask_at_once_the_database_is_asked_once(monkeypatch):
    asked = []

    class Database:
        def connect(self):
            asked.append(1)
            return nullcontext(SimpleNamespace(execute=lambda _: None))

    monkeypatch.setattr(health, "engine", Database)
    well = SimpleNamespace(told=SimpleNamespace(is_well=True))
    bus = SimpleNamespace(state="connected", standing=well, is_listening=True)

    async def ask(readyz):
        resp = Response()
        await readyz.on_get(create_asgi_req(), resp)
        return resp.media["database"]

    async def flood():
        with ThreadPoolExecutor(4) as threads:
            cache = SecretCache(threads, threads, Policies())
            readyz = health.Readyz(bus, cache, bus, threads)
            return await asyncio.gather(*(ask(readyz) for _ in range(100)))

    assert set(asyncio.run(flood())) == {"connected"}
    assert len(asked) == 1
