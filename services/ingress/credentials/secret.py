"""A webhook secret in a worker's memory."""

from collections.abc import Sequence
from typing import Any, Protocol, TypeVar
from uuid import UUID

from shared.security import webhook_keys

STATES = ("active", "retiring", "expired", "revoked")
"""In the order in which a secret goes through them."""
LIVE = ("active", "retiring")
# How many of an account's secrets a signature is checked against, the newest of each mode.
MAX_TRIED = 5
MAX_GIVEN_TRIED = 20
"""The same for the secrets that one platform made, of all shops together."""


class Tried(Protocol):
    """A secret that a signature may be checked against."""

    @property
    def is_test(self) -> bool: ...  # noqa: D102


TriedT = TypeVar("TriedT", bound=Tried)


def tried(newest_first: Sequence[TriedT]) -> Sequence[TriedT]:
    """Return the secrets that a signature is checked against: the newest live and test ones.

    Each mode has its own limit, so that test secrets displace no live secret.
    """
    if len(newest_first) <= MAX_TRIED:
        return newest_first
    left = {False: MAX_TRIED, True: MAX_TRIED}
    found = []
    for secret in newest_first:
        if left[secret.is_test]:
            left[secret.is_test] -= 1
            found.append(secret)
    return found


class CachedSecret:
    """One secret. With slots, since a worker may hold a hundred thousand.

    Attributes:
        id: the secret's id.
        account_id: of its owner.
        platform: that made it and signs with it; empty for one of ours.
        state: one of `STATES`.
        expires_at: the end of its validity, in seconds since 1970.
        replaced_at: in seconds since 1970; None if it was not replaced.
        change: the number of the database change that it shows.
        is_test: whether it signs test orders.
        is_counted: whether its requests count in the metrics: not those of a test secret or of the
            standing proof.
    """

    __slots__ = (
        "_raw",
        "_sealed",
        "account_id",
        "change",
        "expires_at",
        "id",
        "is_counted",
        "is_test",
        "platform",
        "replaced_at",
        "state",
    )

    def __init__(self, row: Any) -> None:
        self.id: UUID = row.id
        self.account_id: UUID = row.account_id
        self.platform: str = row.platform
        self.is_test: bool = row.is_test
        self.is_counted = not (row.is_test or row.is_synthetic)
        self.state = STATES[0]
        self._raw: bytes | None = None
        self.change = -1
        self.take(row)

    def take(self, row: Any) -> None:
        """Update from a row of `webhook_secrets`, unless the row is older.

        The state only advances, since an event may have revoked the secret after the row was read.
        """
        self.advance(row.state)
        # Of two concurrent queries the older may answer last.
        if row.change < self.change:
            return
        self.change = row.change
        self.expires_at: float = row.expires_at.timestamp()
        replaced_at = row.replaced_at
        self.replaced_at: float | None = None if replaced_at is None else replaced_at.timestamp()
        self._sealed: bytes | None = None if self._raw else bytes(row.sealed)

    def advance(self, state: str) -> None:
        """Set the state, unless the secret is in it or in a later one."""
        if STATES.index(state) > STATES.index(self.state):
            self.state = state

    def raw(self) -> bytes:
        """Return the 32 bytes of the secret, or the bytes that a platform's text has.

        Decrypted at the first call, since most secrets in memory are never used here.

        Raises:
            shared.security.encryption.CannotOpenError: no configured key decrypts it.
        """
        if self._raw is None:
            self._raw = webhook_keys.unseal(self._sealed or b"", self.id)
            self._sealed = None
        return self._raw

    def is_valid(self, now: float) -> bool:
        """Return whether it is valid at `now` (seconds since 1970)."""
        return now < self.expires_at and self.state in LIVE

    def state_at(self, now: float) -> str:
        """Return its state at `now` (seconds since 1970)."""
        return state_at(self.state, is_over=now >= self.expires_at)


def state_at(state: str, *, is_over: bool) -> str:
    """Return the state of a secret that may have expired (`is_over`) before it was marked so."""
    return "expired" if is_over and state in LIVE else state
