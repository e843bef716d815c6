"""One webhook secret in a worker's memory."""

from collections.abc import Sequence
from typing import Any, Protocol, TypeVar
from uuid import UUID

from shared.security import webhook_keys

STATES = ("active", "retiring", "expired", "revoked")
"""In the only order in which a secret goes through them."""
LIVE = ("active", "retiring")
# How many of an account's secrets a signature is tried against, the newest ones of each mode.
MAX_TRIED = 5
MAX_GIVEN_TRIED = 20
"""The same of those that one platform has made, for all shops together."""


class Tried(Protocol):
    """A secret that a signature may be tried against."""

    @property
    def is_test(self) -> bool: ...  # noqa: D102


TriedT = TypeVar("TriedT", bound=Tried)


def tried(newest_first: Sequence[TriedT]) -> Sequence[TriedT]:
    """Those of an account's secrets that a signature is tried against.

    However many test secrets are made, they leave the live ones their place.
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
    """One secret. Slots, since there may be a hundred thousand.

    Attributes:
        id: the secret's id.
        account_id: whose it is.
        platform: that has made it and signs with it; empty for one of ours.
        state: one of `STATES`.
        expires_at: the end of validity, in seconds since 1970.
        replaced_at: when it was replaced, in seconds since 1970; None when it was not.
        change: which change of the database's it shows.
        is_test: whether what it signs is about test orders.
        is_counted: whether its requests are counted among everybody's: neither a test secret's
            are nor the standing proof's.
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
        """Become what a row of `webhook_secrets` says, unless that is older news.

        Its state goes forward only, whatever the row says: it may have been revoked by an event
        since the row was read.
        """
        self.advance(row.state)
        # Of two queries under way the older may answer last.
        if row.change < self.change:
            return
        self.change = row.change
        self.expires_at: float = row.expires_at.timestamp()
        replaced_at = row.replaced_at
        self.replaced_at: float | None = None if replaced_at is None else replaced_at.timestamp()
        self._sealed: bytes | None = None if self._raw else bytes(row.sealed)

    def advance(self, state: str) -> None:
        """Go on to a state, unless it is there or further."""
        if STATES.index(state) > STATES.index(self.state):
            self.state = state

    def raw(self) -> bytes:
        """The 32 bytes, or what was given.

        Opened at the first call: most secrets in memory are never used here.

        Raises:
            shared.security.encryption.CannotOpenError: no listed key opens them.
        """
        if self._raw is None:
            self._raw = webhook_keys.unseal(self._sealed or b"", self.id)
            self._sealed = None
        return self._raw

    def is_valid(self, now: float) -> bool:
        """Whether it may be signed with at `now` (seconds since 1970)."""
        return now < self.expires_at and self.state in LIVE

    def state_at(self, now: float) -> str:
        """Its state at `now` (seconds since 1970); see the function of that name."""
        return state_at(self.state, is_over=now >= self.expires_at)


def state_at(state: str, *, is_over: bool) -> str:
    """The state of a secret, also where nobody has marked yet that its time `is_over`."""
    return "expired" if is_over and state in LIVE else state
