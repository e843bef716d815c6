"""The worker's cache of idempotency keys."""

import pytest

from services.ingress.webhook.known_keys import KnownKeys
from shared.http.errors import ApiError


def refused(keys, order_id, event):
    with pytest.raises(ApiError) as error:
        keys.claim(order_id, event)
    assert error.value.more == {"order_id": order_id}
    return error.value.status, error.value.code


def test_another_order_under_a_key_is_refused_in_flight_and_afterwards():
    keys = KnownKeys()
    keys.claim("1", b"kettle")
    keys.claim("1", b"kettle")
    assert refused(keys, "1", b"teapot") == (409, "idempotency_key_in_use")
    keys.settle("1", is_accepted=True)
    assert refused(keys, "1", b"teapot") == (422, "idempotency_key_reused")
    keys.claim("1", b"kettle")
    keys.claim("2", b"teapot")


def test_an_order_that_was_not_accepted_frees_its_key():
    keys = KnownKeys()
    keys.claim("1", b"kettle")
    keys.settle("1", is_accepted=False)
    keys.claim("1", b"teapot")


def test_an_accepted_order_keeps_its_key_when_a_retry_fails():
    keys = KnownKeys()
    keys.claim("1", b"kettle")
    keys.settle("1", is_accepted=True)
    keys.claim("1", b"kettle")
    assert refused(keys, "1", b"teapot") == (422, "idempotency_key_reused")
    keys.settle("1", is_accepted=False)
    assert refused(keys, "1", b"teapot") == (422, "idempotency_key_reused")


def test_the_oldest_key_is_evicted():
    keys = KnownKeys(2)
    for order_id in ("1", "2", "3"):
        keys.claim(order_id, b"kettle")
        keys.settle(order_id, is_accepted=True)
    keys.claim("1", b"teapot")
    assert refused(keys, "3", b"teapot")[0] == 422


def test_a_key_is_known_for_an_order_with_a_number():
    keys = KnownKeys(1)
    keys.claim("key", b"A-1", "order-1")
    keys.claim("key", b"A-1", "order-1")
    keys.settle("key", is_accepted=True)
    with pytest.raises(ApiError) as error:
        keys.claim("key", b"A-2", "order-2")
    assert error.value.more == {"order_id": "order-1"}
    keys.claim("other", b"A-3", "order-3")
    keys.claim("key", b"A-2", "order-2")
    keys.settle("key", is_accepted=False)
    keys.claim("key", b"plain")
    assert refused(keys, "key", b"A-4")[0] == 409
