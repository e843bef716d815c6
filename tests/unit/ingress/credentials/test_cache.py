"""The rules of the secret cache; integration tests check it across workers."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.ingress.credentials import cache as secret_cache
from services.ingress.credentials import rows as database
from services.ingress.credentials.cache import SecretCache
from services.ingress.credentials.policies import Policies
from services.ingress.credentials.rows import Found, Position
from services.ingress.credentials.secret import MAX_GIVEN_TRIED, MAX_TRIED, STATES, CachedSecret
from shared.db.deadline import NoAnswerError
from shared.http.errors import ApiError
from shared.ids import new_id
from shared.security.webhook_keys import generate, key_hash, seal

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
FAR = NOW + timedelta(days=36_500)  # live ones are asked for, by the clock
KEY = b"whsk_key"


ACCOUNT = new_id()


def row(state="active", change=0, expires=FAR, key=KEY, **more):
    return SimpleNamespace(
        key_hash=key_hash(key),
        id=more.get("id") or new_id(),
        account_id=ACCOUNT,
        sealed=more.get("sealed", b""),
        replaced_at=more.get("replaced_at"),
        platform=more.get("platform", ""),
        is_synthetic=False,
        is_test=False,
        state=state,
        expires_at=expires,
        change=change,
    )


def put(cache, *rows):
    for new in rows:
        cache._take(new)


@pytest.fixture
def cache():
    with ThreadPoolExecutor(1) as threads, ThreadPoolExecutor(1) as lookups:
        yield SecretCache(threads, lookups, Policies())


def test_an_older_row_that_arrives_last_does_not_restore_a_revoked_secret(cache):
    id_ = new_id()
    put(cache, row("active", 1, id=id_), row("revoked", 2, id=id_), row("active", 1, id=id_))
    assert cache.peek(KEY).state == "revoked"


def test_the_same_row_may_be_stored_twice(cache):
    id_ = new_id()
    put(cache, row("active", id=id_), row("retiring", id=id_, expires=NOW))
    assert (cache.peek(KEY).state, cache.peek(KEY).expires_at) == ("retiring", NOW.timestamp())


def test_an_older_row_changes_nothing(cache):
    id_ = new_id()
    put(cache, row(change=2, id=id_, expires=NOW), row(change=1, id=id_))
    assert cache.peek(KEY).expires_at == NOW.timestamp()


def test_replaced_secrets_of_one_shop_do_not_displace_anothers(cache):
    cache.clock.read(NOW.timestamp(), 0.0, 0.0)
    kept = row(platform="shopify", key=b"kept")
    ended = [
        row("expired", platform="shopify", key=b"%d" % number, expires=NOW - timedelta(days=1))
        for number in range(MAX_GIVEN_TRIED)
    ]
    retiring = [row("retiring", platform="shopify", key=b"r%d" % n) for n in range(30)]
    put(cache, kept, *ended, *retiring, row(platform="shopify", key=b"newest"))
    tried = [secret.id for secret in cache.given(ACCOUNT, "shopify")]
    assert kept.id in tried
    assert len(tried) == MAX_GIVEN_TRIED
    assert not {one.id for one in ended} & set(tried)


def test_an_event_revokes_what_it_names_and_nothing_else(cache):
    other, named = row(key=b"other"), row()
    put(cache, other, named)
    cache.revoke(ACCOUNT, [named.id])
    assert [secret.id for secret in cache.of(ACCOUNT)] == [other.id]
    assert cache.peek(KEY).state == "revoked"


@given(st.data())
def test_the_state_of_a_secret_only_advances(data):
    """The states of a secret; rows and events about it arrive in any order."""
    id_, key_state = new_id(), 0
    life = [STATES[0]]
    for _ in range(data.draw(st.integers(1, 4))):
        key_state = data.draw(st.integers(key_state, len(STATES) - 1))
        life.append(STATES[key_state])
    rows = [row(state, change, id=id_) for change, state in enumerate(life)]
    news: list[Any] = [*rows, *rows]
    if life[-1] == "revoked":
        news.append(None)
    with ThreadPoolExecutor(1) as threads:
        cache = SecretCache(threads, threads, Policies())
        furthest, is_revoked = -1, False
        for new in data.draw(st.permutations(news)):
            if new is None:
                cache.revoke(ACCOUNT, [id_])
            else:
                put(cache, new)
            is_revoked = is_revoked or new is None
            held = cache.peek(KEY)
            if held is not None:
                assert STATES.index(held.state) >= furthest
                furthest = STATES.index(held.state)
                assert not is_revoked or held.state == "revoked"
        assert held.state == life[-1]
        assert bool(cache.of(ACCOUNT)) == (life[-1] != "revoked")


def test_the_number_of_remembered_revocations_is_bounded(cache, monkeypatch):
    monkeypatch.setattr(secret_cache, "MAX_REVOKED", 10)
    cache.revoke(ACCOUNT, [new_id() for _ in range(100)])
    assert len(cache._revoked) == 10
    known = row()
    cache.revoke(ACCOUNT, [known.id])
    put(cache, row("revoked", id=known.id))
    assert len(cache._revoked) == 9


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
    assert (secret.state_at(end + seconds) == "expired") is expired


def test_the_bytes_are_decrypted_once(monkeypatch):
    raw, id_ = generate(), new_id()
    first = row(id=id_, sealed=seal(raw, id_))
    secret = CachedSecret(first)
    assert secret.raw() == raw
    # Sealed again under another key, which this process need not know to go on.
    secret.take(row("retiring", 1, id=id_, sealed=b"unreadable"))
    assert (secret.raw(), secret.state) == (raw, "retiring")


def test_an_accounts_secrets_are_sorted_newest_first(cache):
    rows = [row(key=bytes([n])) for n in range(MAX_TRIED + 3)]
    put(cache, *rows[3:], *rows[:3])
    newest = [r.id for r in reversed(rows)][:MAX_TRIED]
    assert [secret.id for secret in cache.of(ACCOUNT)] == newest


def test_revoked_secrets_are_not_tried_and_do_not_count_for_the_limit(cache):
    rows = [row(key=bytes([n])) for n in range(MAX_TRIED + 1)]
    put(cache, *rows)
    for revoked in rows[1:]:
        revoked.state = "revoked"
    put(cache, *rows[1:])
    assert [secret.id for secret in cache.of(ACCOUNT)] == [rows[0].id]
    assert cache.of(new_id()) == []


def test_secrets_of_platforms_are_separate_and_revoked_by_the_same_event(cache):
    ours, theirs = row(), row(key=b"random", platform="shopify")
    put(cache, ours, theirs)
    assert [secret.id for secret in cache.of(ACCOUNT)] == [ours.id]
    assert [secret.id for secret in cache.given(ACCOUNT, "shopify")] == [theirs.id]
    cache.revoke(ACCOUNT, [theirs.id])
    assert cache.given(ACCOUNT, "shopify") == []
    assert [secret.id for secret in cache.of(ACCOUNT)] == [ours.id]


def test_a_platforms_secret_revoked_before_it_was_loaded_is_never_tried(cache):
    late = row(key=b"random", platform="shopify")
    cache.revoke(ACCOUNT, [late.id])
    put(cache, late)
    assert cache.given(ACCOUNT, "shopify") == []


NOTHING = Found(Position("1:1:", "server"), (NOW.timestamp(), 0.0, 0.0))


@pytest.fixture
def silent(monkeypatch):
    """A database that answers no look-up before the end of the test, and all else immediately."""
    over = threading.Event()

    def hang(*_):
        over.wait()
        return NOTHING

    monkeypatch.setattr(database, "by_hash", hang)
    for question in ("here", "page", "since"):
        monkeypatch.setattr(database, question, lambda *_: NOTHING)
    yield over
    over.set()


async def settled(lookups, over):
    over.set()
    await asyncio.gather(*lookups, return_exceptions=True)


def test_changes_are_loaded_while_look_ups_are_running(cache, silent):
    async def poll_amid():
        lookups = [asyncio.create_task(cache.find(b"%d" % n)) for n in range(10)]
        await asyncio.sleep(0)
        async with asyncio.timeout(20):
            await cache.poll()
        await settled(lookups, silent)

    asyncio.run(poll_amid())
    assert cache.refreshed_at is not None


def test_concurrent_look_ups_are_bounded_and_one_more_gets_retry_after(cache, silent):
    async def one_too_many():
        lookups = [
            asyncio.create_task(cache.find(b"%d" % n)) for n in range(secret_cache.MAX_LOOKUPS)
        ]
        await asyncio.sleep(0)
        # Of one that is under way any number may wait.
        same = asyncio.create_task(cache.find(b"0"))
        with pytest.raises(ApiError) as error:
            async with asyncio.timeout(20):
                await cache.find(b"one more")
        await settled([*lookups, same], silent)
        assert same.result() is None
        return error.value

    error = asyncio.run(one_too_many())
    assert (error.code, error.headers) == ("overloaded", {"Retry-After": "1"})


def test_a_look_up_without_an_answer_times_out(cache, silent, monkeypatch):
    monkeypatch.setattr(secret_cache, "LOOKUP_SECONDS", 0.01)

    async def wait():
        try:
            async with asyncio.timeout(20):
                await cache.find(KEY)
        finally:
            silent.set()

    with pytest.raises(NoAnswerError):
        asyncio.run(wait())
