"""What an ingress worker hears of secrets it believes where it came by the facts alone."""

import msgspec
import pytest
from pika.spec import Basic

from services.ingress.credentials.feed import SecretFeed
from shared.ids import new_id


class Revoked:
    """A cache that notes what it is told to revoke."""

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
def test_a_block_is_believed_of_the_fact_alone_and_the_rest_is_asked(
    exchange, key, what, is_blocked
):
    cache = Revoked()
    feed = SecretFeed(cache, "amqp://127.0.0.1", heartbeat=10, poll_seconds=1)
    account = new_id()
    body = msgspec.json.encode({"account_id": account, "what": what})
    feed._on_event(None, Basic.Deliver(exchange=exchange, routing_key=key), None, body)
    assert cache.blocked == ([account] if is_blocked else [])
    assert feed._wake.is_set() is (exchange == "events")
