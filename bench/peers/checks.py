"""What every contender does with a request before it publishes: the same checks, the same words."""

import hashlib
import hmac
import json
import os
from pathlib import Path

KEYS: dict[str, str] = json.loads(Path(os.environ["SECRETS_FILE"]).read_text())
"""From each webhook secret to its account's id: all in memory, as with Order Fellow's cache."""
AMQP_URL = os.environ["AMQP_URL"]
QUEUE = os.environ["PEER_QUEUE"]


def account_of(key: str, signature: str, body: bytes) -> str | None:
    """The account that signed `body`; None when nobody did."""
    account = KEYS.get(key)
    right = hmac.new(key.encode(), body, hashlib.sha256).hexdigest()
    return account if hmac.compare_digest(right, signature) else None
