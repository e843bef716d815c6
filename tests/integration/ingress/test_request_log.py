"""The request log: what became of each request, as its account may see it, and within bounds."""

import hashlib
import json
import re
from datetime import UTC, datetime, timedelta
from uuid import UUID

from sqlalchemy import select

from services.ingress import signatures
from shared.db.models import WebhookRequest
from tests.integration.arrange import until
from tests.integration.ingress.conftest import ORDER


def rows(api, sender):
    with api.session() as session:
        return session.scalars(
            select(WebhookRequest)
            .where(WebhookRequest.account_id == sender.account_id)
            .order_by(WebhookRequest.at)
        ).all()


def logged(api, sender, count):
    """The rows of a sender, when there are so many."""
    return until(lambda: len(found := rows(api, sender)) >= count and found, f"{count} are logged")


def counter(api, name):
    found = re.search(rf"^{re.escape(name)} (\S+)$", api.http.get(f"{api.url}/metrics").text, re.M)
    return float(found[1]) if found else 0.0


def test_an_accepted_request_can_be_verified_again_from_its_row_and_the_secret(api, sender):
    answer = sender.send()
    (row,) = logged(api, sender, 1)
    raw = json.dumps(ORDER).encode()
    assert (row.accepted, row.code, row.event_type) == (True, "accepted", "order.created")
    assert str(row.order_id) == str(row.event_id) == answer.json()["order_id"]
    assert (row.body_sha256, row.body_bytes) == (hashlib.sha256(raw).digest(), len(raw))
    shown = api.http.get("/webhook/secret/", headers=sender.bearer).json()
    assert row.secret_id == UUID(shown["id"])
    key = shown["secret_key"].encode()
    assert signatures.matches(key, raw, row.signature.encode())
    assert not signatures.matches(key, raw + b" ", row.signature.encode())
    assert (row.scheme, row.client_address) == ("x-api-key", "127.0.0.1")
    assert 0 < row.latency_us < 10_000_000
    assert abs(row.at - datetime.now(UTC)) < timedelta(minutes=1)
