"""How secrets and policies come into a worker's memory: never the one without the other."""

import asyncio

import pytest
from sqlalchemy import text

from services.ingress.credentials import rows
from services.secrets import rotation
from shared.db.models import WebhookPolicy
from shared.security import webhook_keys
from tests.integration.arrange import account


@pytest.fixture
def service():
    return "ingress"


@pytest.fixture
def businesses(settings, db):
    made = [account(db, status="approved") for _ in range(7)]
    for business in made:
        rotation.issue(db, business)
    db.add(WebhookPolicy(account_id=made[3].id, allowed_networks=["203.0.113.0/24"]))
    db.commit()
    return made


def raw_of(db, business):
    secret = rotation.active(db, business.id)
    return webhook_keys.unseal(secret.sealed, secret.id)


@pytest.mark.parametrize("page", [1, 3, 7, 100])
def test_all_are_loaded_however_many_fit_a_page(db, cache, policies, businesses, page, monkeypatch):
    monkeypatch.setattr(rows, "PAGE", page)
    asyncio.run(cache.poll())
    assert len(cache) == len(businesses)
    assert all(len(cache.of(business.id)) == 1 for business in businesses)
    assert [b.id for b in businesses if policies.get(b.id)] == [businesses[3].id]


def test_a_secret_that_is_looked_up_brings_its_policy(db, cache, policies, businesses):
    key = webhook_keys.encode_key(raw_of(db, businesses[3])).encode()
    assert asyncio.run(cache.find(key)).account_id == businesses[3].id
    assert not policies.get(businesses[3].id).allows("198.51.100.7")


def test_an_accounts_new_secret_is_found_at_once_and_asked_for_once(
    db, cache, businesses, monkeypatch
):
    business = businesses[0]
    queries = []
    ask = cache._ask

    async def counted(question, *threads):
        queries.append(question)
        return await ask(question, *threads)

    monkeypatch.setattr(cache, "_ask", counted)

    async def story():
        await cache.poll()
        rotation.rotate(db, business, "business")
        db.commit()
        fresh = raw_of(db, business)
        del queries[:]
        await asyncio.gather(*(cache.look_again(business.id) for _ in range(10)))
        assert cache.of(business.id)[0].raw() == fresh
        for _ in range(10):
            await cache.look_again(business.id)
        assert len(queries) == 1

    asyncio.run(story())


def test_what_has_been_revoked_for_long_is_in_no_workers_memory(db, engine, cache, businesses):
    """A given secret has no end of its own: by that it would be kept for ever."""
    for business, days in ((businesses[0], 31), (businesses[1], 29)):
        with engine.begin() as hand:
            revoke = (
                "UPDATE webhook_secrets SET state = 'revoked', expires_at = now() + interval "
                f"'1000 years', revoked_at = now() - interval '{days} days' "
                f"WHERE account_id = '{business.id}'"
            )
            hand.execute(text(revoke))
    asyncio.run(cache.poll())
    assert len(cache) == len(businesses) - 1
