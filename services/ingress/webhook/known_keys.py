"""The worker's cache of recent idempotency keys, each with a hash of its event.

draft-ietf-httpapi-idempotency-key-header-07, 2.7: a key that is reused with another payload is
refused. Reuse that no worker remembers is found by `services/orders/conflicts.py`, which notifies
the business.
"""

from collections import OrderedDict

from shared.http.errors import ApiError

MAX_KEYS = 20_000
IN_USE = (409, "idempotency_key_in_use", "Another order with this key is on its way.")
REUSED = (422, "idempotency_key_reused", "This key was used for another order.")


class KnownKeys:
    """An LRU of the latest `MAX_KEYS` keys of one worker.

    A key is stored as the order id derived from account and key, even if the order has another id,
    from its number. The payload is stored as the hash of its event, so that the same order in
    another JSON layout is equal. A key is in flight until one of its requests was accepted.
    """

    def __init__(self, most: int = MAX_KEYS) -> None:
        self._most = most
        self._sent: OrderedDict[str, int] = OrderedDict()
        self._numbered: dict[str, str] = {}
        self._in_flight: set[str] = set()

    def claim(self, key: str, event: bytes, order_id: str = "") -> None:
        """Register a request under its key.

        Args:
            key: the order id that is derived from it.
            event: the encoded event.
            order_id: the order's id, where it differs from `key`.

        Raises:
            ApiError: 409 while another order is in flight under that key, 422 afterwards.
        """
        digest = hash(event)
        known = self._sent.get(key)
        if known is not None:
            if known != digest:
                refusal = IN_USE if key in self._in_flight else REUSED
                raise ApiError(*refusal, order_id=self._numbered.get(key, key))
            return
        self._sent[key] = digest
        self._in_flight.add(key)
        if order_id:
            self._numbered[key] = order_id
        if len(self._sent) > self._most:
            oldest, _ = self._sent.popitem(last=False)
            if self._numbered:
                self._numbered.pop(oldest, None)

    def settle(self, key: str, *, is_accepted: bool) -> None:
        """End a request that was registered by `claim`.

        Args:
            key: as given to `claim`.
            is_accepted: whether the order was stored. Otherwise the key is free for any order,
                unless an earlier request under it was accepted.
        """
        if not is_accepted and key in self._in_flight:
            self._sent.pop(key, None)
            self._numbered.pop(key, None)
        self._in_flight.discard(key)
