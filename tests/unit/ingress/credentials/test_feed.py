"""What an ingress worker hears of secrets it believes where it came by the facts alone."""

import msgspec
import pytest
from pika.spec import Basic

from services.ingress.credentials.feed import SecretFeed
from shared.ids import new_id


class Revoked:
    """A cache that notes what it is told to revoke."""

    def __init__(self):
        self.told = []

    def revoke(self, account_id, secret_ids):
        self.told.append((account_id, secret_ids))


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
