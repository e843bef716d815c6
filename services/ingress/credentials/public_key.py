"""The public keys of businesses in a worker's memory."""

import math
from typing import Any
from uuid import UUID

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from services.ingress.credentials.secret import CachedSecret

MAX_PUBLIC_KEYS = 3  # of an account; each costs every wrong signature a verification


class CachedPublicKey:
    """One public key, with the interface of `CachedSecret`. It never expires, but is removed.

    Attributes:
        id: the key's id.
        account_id: of its owner.
        state: `active` or `revoked`.
        change: the number of the database change that it shows.
        key: to verify with.
        is_counted: whether its requests count in the metrics: not those of the standing proof.
    """

    __slots__ = ("account_id", "change", "id", "is_counted", "key", "state")
    expires_at = math.inf
    replaced_at: float | None = None
    is_test = False

    def __init__(self, row: Any) -> None:
        self.id: UUID = row.id
        self.account_id: UUID = row.account_id
        self.is_counted = not row.is_synthetic
        self.key = Ed25519PublicKey.from_public_bytes(bytes(row.public_key))
        self.state = "active"
        self.change = -1
        self.take(row)

    def take(self, row: Any) -> None:
        """Update from a row of `webhook_public_keys`; a revoked key stays revoked."""
        self.change = max(self.change, row.change)
        if row.state == "revoked":
            self.state = "revoked"

    def is_valid(self, _: float) -> bool:
        """Return whether it may be signed with; the time does not matter."""
        return self.state == "active"

    def state_at(self, _: float) -> str:
        """Return its state; the time does not matter."""
        return self.state


Signer = CachedSecret | CachedPublicKey
"""What verifies the signature of a request."""


class PublicKeys:
    """The public keys of all accounts. Most accounts have none, and take no memory here."""

    def __init__(self) -> None:
        self._keys: dict[UUID, CachedPublicKey] = {}
        self._accounts: dict[UUID, list[CachedPublicKey]] = {}

    def of(self, account_id: UUID) -> list[CachedPublicKey]:
        """Return an account's keys that are not revoked, at most `MAX_PUBLIC_KEYS`."""
        return self._accounts.get(account_id, [])[:MAX_PUBLIC_KEYS]

    def take(self, row: Any, *, is_revoked: bool) -> None:
        """Store a row of `webhook_public_keys`.

        Args:
            row: the row.
            is_revoked: whether an event has revoked the key since the row was read.
        """
        held = self._keys.get(row.id)
        if held is None:
            held = self._keys[row.id] = CachedPublicKey(row)
            self._accounts.setdefault(held.account_id, []).append(held)
        else:
            held.take(row)
        if is_revoked:
            held.state = "revoked"
        if held.state == "revoked":
            self._drop(held)

    def revoke(self, key_id: UUID) -> None:
        """Revoke a key, if it is in memory."""
        held = self._keys.get(key_id)
        if held is not None:
            held.state = "revoked"
            self._drop(held)

    def keep(self, ids: set[UUID]) -> None:
        """Remove all keys but these."""
        for held in [held for held in self._keys.values() if held.id not in ids]:
            held.state = "revoked"
            self._drop(held)
            del self._keys[held.id]

    def _drop(self, key: CachedPublicKey) -> None:
        keys = self._accounts.get(key.account_id, [])
        if key in keys:
            keys.remove(key)
        if not keys:
            self._accounts.pop(key.account_id, None)
