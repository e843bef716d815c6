"""The cache's own rules; that it is true across workers, the integration tests see."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest

from services.ingress.secret_cache import CachedSecret, SecretCache
from shared.ids import new_id
from shared.webhook_keys import key_hash

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
KEY = b"whsk_key"


def row(state="active", changed=NOW, expires=NOW + timedelta(days=90)):
    return SimpleNamespace(
        key_hash=key_hash(KEY),
        id=new_id(),
        account_id=new_id(),
        state=state,
        expires_at=expires,
        updated_at=changed,
    )


@pytest.fixture
def cache():
    with ThreadPoolExecutor(1) as threads:
        yield SecretCache(threads)


def test_an_older_answer_that_comes_last_does_not_bring_a_revoked_secret_back(cache):
    cache._put([row("active", NOW)])
    cache._put([row("revoked", NOW + timedelta(microseconds=1))])
    cache._put([row("active", NOW)])
    assert cache.peek(KEY).state == "revoked"


def test_the_same_row_again_is_taken(cache):
    cache._put([row("active")])
    cache._put([row("revoked")])
    assert cache.peek(KEY).state == "revoked"


@pytest.mark.parametrize(
    ("state", "seconds", "valid", "expired"),
    [
        ("active", -1, True, False),
        ("active", 0, False, True),
        ("retiring", -1, True, False),
        ("retiring", 1, False, True),
        ("expired", -1, False, True),
        ("revoked", -1, False, False),
        ("revoked", 1, False, False),
    ],
)
def test_validity_follows_the_clock_and_not_only_the_state(state, seconds, valid, expired):
    end = NOW.timestamp()
    secret = CachedSecret(new_id(), new_id(), state, end, end)
    assert secret.is_valid(end + seconds) is valid
    assert secret.is_expired(end + seconds) is expired
