"""The cache's own rules; that it is true across workers, the integration tests see."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest

from services.ingress import secret_cache
from services.ingress.cached_secret import CachedSecret
from services.ingress.policies import Policies
from services.ingress.secret_cache import SecretCache
from shared.ids import new_id
from shared.webhook_keys import generate, key_hash, seal

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
KEY = b"whsk_key"


ACCOUNT = new_id()


def row(state="active", changed=NOW, expires=NOW + timedelta(days=90), key=KEY, **more):
    return SimpleNamespace(
        key_hash=key_hash(key),
        id=more.get("id") or new_id(),
        account_id=ACCOUNT,
        sealed=more.get("sealed", b""),
        replaced_at=more.get("replaced_at"),
        state=state,
        expires_at=expires,
        updated_at=changed,
    )


@pytest.fixture
def cache():
    with ThreadPoolExecutor(1) as threads:
        yield SecretCache(threads, Policies())


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
    secret = CachedSecret(row(state, expires=NOW))
    assert secret.is_valid(end + seconds) is valid
    assert secret.is_expired(end + seconds) is expired


def test_the_bytes_are_opened_once_and_stay_open(monkeypatch):
    raw, id_ = generate(), new_id()
    first = row(id=id_, sealed=seal(raw, id_))
    secret = CachedSecret(first)
    assert secret.raw() == raw
    # Sealed again under another key, which this process need not know to go on.
    secret.take(row("retiring", NOW + timedelta(seconds=1), id=id_, sealed=b"unreadable"))
    assert (secret.raw(), secret.state) == (raw, "retiring")


def test_an_account_has_its_newest_secrets_first_whatever_the_order_they_came_in(cache):
    rows = [row(key=bytes([n])) for n in range(secret_cache.MAX_TRIED + 3)]
    cache._put(rows[3:] + rows[:3])
    newest = [r.id for r in reversed(rows)][: secret_cache.MAX_TRIED]
    assert [secret.id for secret in cache.of(ACCOUNT)] == newest


def test_revoked_secrets_are_not_tried_and_take_nobodys_place(cache):
    rows = [row(key=bytes([n])) for n in range(secret_cache.MAX_TRIED + 1)]
    cache._put(rows)
    for revoked in rows[1:]:
        revoked.state = "revoked"
    cache._put(rows[1:])
    assert [secret.id for secret in cache.of(ACCOUNT)] == [rows[0].id]
    assert cache.of(new_id()) == []
