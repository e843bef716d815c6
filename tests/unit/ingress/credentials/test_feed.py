"""The feed of the secret cache trusts events of their own exchange alone."""

import asyncio

import msgspec
import pytest
from pika.spec import Basic
from sqlalchemy.exc import OperationalError

from services.ingress.credentials.feed import SecretFeed
from shared.ids import new_id


class Revoked:
    """A cache that records revocations and blocks."""

    def __init__(self):
        self.told, self.blocked = [], []

    def revoke(self, account_id, secret_ids):
        self.told.append((account_id, secret_ids))

    def block(self, account_id):
        self.blocked.append(account_id)


@pytest.mark.parametrize(
    ("exchange", "key", "is_believed"),
    [
        ("events", "secret.revoked", True),
        ("events", "kyc.revoked", True),
        ("events", "order.recorded", False),
        ("events", "kyc.approved", False),
        ("commands", "secret.rotate", False),
        ("", "notifier.urgent", False),
        ("", "secret.revoked", False),
    ],
)
def test_a_copy_by_cc_revokes_nothing(exchange, key, is_believed):
    cache = Revoked()
    feed = SecretFeed(cache, "amqp://127.0.0.1", heartbeat=10, poll_seconds=1)
    account, secret = new_id(), new_id()
    body = msgspec.json.encode({"account_id": account, "secret_ids": [secret]})
    feed._on_event(None, Basic.Deliver(exchange=exchange, routing_key=key), None, body)
    assert cache.told == ([(account, (secret,))] if is_believed else [])


@pytest.mark.parametrize(
    ("exchange", "key", "what", "is_blocked"),
    [
        ("events", "account.changed", "blocked", True),
        ("events", "account.changed", "unblocked", False),
        ("events", "account.changed", "password_changed", False),
        ("events", "secret.revoked", "blocked", False),
        ("commands", "account.changed", "blocked", False),
        ("", "account.changed", "blocked", False),
    ],
)
def test_only_a_blocking_event_blocks_and_every_event_wakes_the_poll(
    exchange, key, what, is_blocked
):
    cache = Revoked()
    feed = SecretFeed(cache, "amqp://127.0.0.1", heartbeat=10, poll_seconds=1)
    account = new_id()
    body = msgspec.json.encode({"account_id": account, "what": what})
    feed._on_event(None, Basic.Deliver(exchange=exchange, routing_key=key), None, body)
    assert cache.blocked == ([account] if is_blocked else [])
    assert feed._wake.is_set() is (exchange == "events")


class Polled:
    """A cache whose polls end with given errors; it records the feed's state at each."""

    def __init__(self, *errors):
        self.errors, self.states, self.feed = [*errors, None], [], None
        self.over = asyncio.Event()

    async def poll(self):
        self.states.append(self.feed.standing.status.state)
        if not self.errors:
            self.over.set()
            await asyncio.Event().wait()
        if (error := self.errors.pop(0)) is not None:
            raise error

    def __len__(self):
        return 0


def test_a_poll_that_fails_with_the_database_reachable_is_in_the_heartbeat():
    async def run():
        cache = Polled(OperationalError("SELECT 1", {}, Exception("it is gone")), ValueError("so"))
        cache.feed = feed = SecretFeed(cache, "amqp://127.0.0.1", heartbeat=10, poll_seconds=0)
        feed.standing.working("127.0.0.1:5672")
        feed._wake.wait = lambda: asyncio.sleep(0)
        polling = asyncio.create_task(feed._poll())
        await cache.over.wait()
        polling.cancel()
        # That the database is away is everybody's to tell.
        assert cache.states == ["working", "working", "failing", "working"]

    asyncio.run(run())
