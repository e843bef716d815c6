"""One public key of a business, in a worker's memory."""

import math
from typing import Any
from uuid import UUID

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from services.ingress.credentials.secret import CachedSecret

MAX_PUBLIC_KEYS = 3  # of an account; each costs every wrong signature a verification


class CachedPublicKey:
    """What signs a request, as `CachedSecret` is. It ends by being removed, and by no time.

    Attributes:
        id: the key's id.
        account_id: whose it is.
        state: `active` or `revoked`.
        change: which change of the database's it shows.
        key: to verify with.
        is_counted: whether its requests are counted among everybody's: not the standing proof's.
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
        """Become what a row of `webhook_public_keys` says; its state goes forward only."""
        self.change = max(self.change, row.change)
        if row.state == "revoked":
            self.state = "revoked"

    def is_valid(self, _: float) -> bool:
        """Whether it may be signed with, at whatever time."""
        return self.state == "active"

    def state_at(self, _: float) -> str:
        """Its state, at whatever time."""
        return self.state


Signer = CachedSecret | CachedPublicKey
"""What a request is signed by."""


class PublicKeys:
    """The public keys of all accounts that have some. Most have none, and cost nothing here."""

    def __init__(self) -> None:
        self._keys: dict[UUID, CachedPublicKey] = {}
        self._accounts: dict[UUID, list[CachedPublicKey]] = {}

    def of(self, account_id: UUID) -> list[CachedPublicKey]:
        """An account's keys that are not revoked; never more than `MAX_PUBLIC_KEYS`."""
        return self._accounts.get(account_id, [])[:MAX_PUBLIC_KEYS]

    def take(self, row: Any, *, is_revoked: bool) -> None:
        """Take in a row of `webhook_public_keys`.

        Args:
            row: as it was read.
            is_revoked: whether an event has revoked it since, whatever the row says.
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
            self._let_go(held)

    def revoke(self, key_id: UUID) -> None:
        """Revoke one, where it is in memory."""
        held = self._keys.get(key_id)
        if held is not None:
            held.state = "revoked"
            self._let_go(held)

    def keep(self, ids: set[UUID]) -> None:
        """Forget all others: those are all that there are."""
        for held in [held for held in self._keys.values() if held.id not in ids]:
            held.state = "revoked"
            self._let_go(held)
            del self._keys[held.id]

    def _let_go(self, key: CachedPublicKey) -> None:
        theirs = self._accounts.get(key.account_id, [])
        if key in theirs:
            theirs.remove(key)
        if not theirs:
            self._accounts.pop(key.account_id, None)
