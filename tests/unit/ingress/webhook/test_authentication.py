"""The cost of strangers' requests: invalid ids, unknown keys, wrong signatures."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from uuid import uuid4

import pytest
from falcon.testing import create_asgi_req

from services.ingress.credentials import rows
from services.ingress.credentials.cache import SecretCache
from services.ingress.credentials.policies import Policies
from services.ingress.credentials.rows import Found, Position
from services.ingress.platforms import platform as platforms
from services.ingress.platforms.shopify import PLATFORM as SHOPIFY
from services.ingress.platforms.woocommerce import PLATFORM as WOOCOMMERCE
from services.ingress.request_log.attempt import Attempt
from services.ingress.shops.authentication import PlatformScheme
from services.ingress.webhook import authentication
from services.ingress.webhook.refusals import Refusals
from shared.http.errors import ApiError
from shared.ids import new_id
from shared.security.webhook_keys import generate, key_hash, seal
from shared.token_buckets import TokenBuckets

NOTHING = Found(Position("1:1:", "server"), (1_800_000_000.0, 0.0, 0.0))


@pytest.fixture
def cache():
    with ThreadPoolExecutor(4) as threads:
        yield SecretCache(threads, threads, Policies())


@pytest.mark.parametrize("form", ["{}", "urn:uuid:{}", "{{{}}}"])
def test_every_form_of_an_account_id_is_accepted(form):
    id_ = uuid4()
    assert authentication.account_of(form.format(id_)) == id_


@pytest.mark.parametrize("text", ["x" * 46, "-" * 8_000, "0" * 32 + "-" * 14])
def test_a_text_longer_than_an_id_is_not_cached(text):
    authentication._parsed.cache_clear()
    assert authentication.account_of(text) is None
    assert authentication._parsed.cache_info().currsize == 0


def refused(scheme, headers, account=""):
    """The code of a refused request; all come from one address."""

    async def authenticate():
        req = create_asgi_req(body=b"{}")
        req.scope["headers"] = [(k.lower().encode(), v.encode()) for k, v in headers.items()]
        with pytest.raises(ApiError) as error:
            await scheme.authenticate(req, Attempt(0.0), account)
        return error.value.code

    return authenticate()


def standard(cache, refusals):
    headers = {
        "webhook-id": "msg_1",
        "webhook-timestamp": str(int(cache.clock.now())),
        "webhook-signature": "v1,AAAA",
    }
    return authentication.StandardScheme(cache, refusals, 1_000), headers


def shop(platform):
    def made(cache, refusals):
        headers = dict.fromkeys((*platform.required, platform.signature), "AAAA")
        return PlatformScheme(platform, cache, refusals, 1_000), headers

    return made


@pytest.mark.parametrize(
    "made", [None, standard, shop(WOOCOMMERCE), shop(SHOPIFY)],
    ids=["x-api-key", "standard", "woocommerce", "shopify"],
)  # fmt: skip
def test_concurrent_look_ups_are_limited_like_refusals(cache, monkeypatch, made):
    """Each names another unknown key or account, so that each needs a query."""
    cache.clock.read(*NOTHING.reading)
    monkeypatch.setattr(rows, "by_hash", lambda _: NOTHING)
    monkeypatch.setattr(rows, "newest_of", lambda *_: NOTHING)
    refusals = Refusals(TokenBuckets(0.001, 10))

    async def flood():
        if made is None:
            scheme = authentication.ApiKeyScheme(cache, refusals, 1_000)
            signed = {"X-Webhook-Signature": "00"}
            several = [refused(scheme, signed | {"X-API-Key": f"whsk_{n}"}) for n in range(300)]
        else:
            scheme, headers = made(cache, refusals)
            several = [refused(scheme, headers, str(uuid4())) for n in range(300)]
        return await asyncio.gather(*several)

    codes = asyncio.run(flood())
    assert cache.misses == 10
    assert codes.count("rate_limited") == 290
    assert len(set(codes)) == 2


def test_a_wrong_signature_is_compared_once_without_a_new_look_up(cache, monkeypatch):
    account, raw, id_ = new_id(), generate(), new_id()
    cache._take(
        SimpleNamespace(
            key_hash=key_hash(b"whsk_key"),
            id=id_,
            account_id=account,
            sealed=seal(raw, id_),
            replaced_at=None,
            platform="",
            is_synthetic=False,
            is_test=False,
            state="active",
            expires_at=datetime.now(UTC) + timedelta(days=90),
            change=0,
        )
    )
    monkeypatch.setattr(rows, "newest_of", lambda *_: NOTHING)
    compared = []
    monkeypatch.setattr(platforms, "matches", lambda *_: compared.append(1))
    scheme, headers = shop(WOOCOMMERCE)(cache, Refusals(TokenBuckets(1, 100)))

    async def twice():
        for _ in range(2):
            await refused(scheme, headers, str(account))

    asyncio.run(twice())
    assert len(compared) == 3
