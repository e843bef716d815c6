"""Idempotency keys that this worker has seen lately, each with what was sent under it.

draft-ietf-httpapi-idempotency-key-header-07, 2.7: a key that comes with another payload is refused.
What no worker remembers, `services.orders` finds (`conflicts.py`) and tells the business.
"""

from collections import OrderedDict

from shared.http.errors import ApiError

MAX_KEYS = 20_000
IN_USE = (409, "idempotency_key_in_use", "Another order with this key is on its way.")
REUSED = (422, "idempotency_key_reused", "This key was used for another order.")


class KnownKeys:
    """The keys of one worker, the latest `MAX_KEYS`.

    A key is known by the order's id that is derived from account and key, also where the order has
    another, by its number; what was sent, by the hash of the event that it became, so that the same
    order in another layout is the same. On its way is what no try has made safe yet.
    """

    def __init__(self, most: int = MAX_KEYS) -> None:
        self._most = most
        self._sent: OrderedDict[str, int] = OrderedDict()
        self._numbered: dict[str, str] = {}
        self._on_the_way: set[str] = set()

    def claim(self, key: str, event: bytes, order_id: str = "") -> None:
        """Note that an order is sent under its key now.

        Args:
            key: the id that is derived from it.
            event: what was sent.
            order_id: the order's own id, where that is another one.

        Raises:
            ApiError: 409 while another order is on its way under that key, 422 afterwards.
        """
        digest = hash(event)
        known = self._sent.get(key)
        if known is not None:
            if known != digest:
                refusal = IN_USE if key in self._on_the_way else REUSED
                raise ApiError(*refusal, order_id=self._numbered.get(key, key))
            return
        self._sent[key] = digest
        self._on_the_way.add(key)
        if order_id:
            self._numbered[key] = order_id
        if len(self._sent) > self._most:
            oldest, _ = self._sent.popitem(last=False)
            if self._numbered:
                self._numbered.pop(oldest, None)

    def settle(self, key: str, *, is_accepted: bool) -> None:
        """Note that an order has its answer.

        Args:
            key: as it was claimed.
            is_accepted: whether it is safe; else the key may come with any order, unless an
                earlier try was safe.
        """
        if not is_accepted and key in self._on_the_way:
            self._sent.pop(key, None)
            self._numbered.pop(key, None)
        self._on_the_way.discard(key)
