"""From where an account's requests may come, and how many a second, in a worker's memory.

Most accounts have no policy, and cost nothing here.
"""

import copy
import time
from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any
from uuid import UUID

from shared.security.networks import is_within, readable

MAX_VERDICTS = 1_000  # addresses an account whose verdict is remembered


class Policy:
    """What one account wants.

    Attributes:
        rate: requests a second; None for the default.
        is_blocked: whether ops staff have blocked the account.
        is_standard_only: whether it takes nothing but Standard Webhooks.
        change: which change of the database's it shows.
    """

    __slots__ = (
        "_is_open",
        "_networks",
        "_verdicts",
        "change",
        "is_blocked",
        "is_standard_only",
        "rate",
    )

    def __init__(self, row: Any) -> None:
        self.rate: int | None = row.rate_per_second
        self.change: int = row.change
        self.is_blocked: bool = row.blocked_at is not None
        self.is_standard_only: bool = row.standard_webhooks_only
        self._is_open = not row.allowed_networks
        self._networks = readable(row.allowed_networks)
        self._verdicts: dict[str, bool] = {}

    def allows(self, address: str) -> bool:
        """Whether requests may come from an address; what is none may not."""
        if self._is_open:
            return True
        verdict = self._verdicts.get(address)
        if verdict is None:
            if len(self._verdicts) >= MAX_VERDICTS:
                self._verdicts.clear()
            verdict = self._verdicts[address] = is_within(address, self._networks)
        return verdict


_NONE = SimpleNamespace(
    allowed_networks=[],
    rate_per_second=None,
    standard_webhooks_only=False,
    blocked_at=None,
    change=-1,
)


class Policies:
    """The policies of all accounts that have one."""

    def __init__(self) -> None:
        self._policies: dict[UUID, Policy] = {}
        self._told: dict[UUID, tuple[float, Policy | None]] = {}

    def get(self, account_id: UUID) -> Policy | None:
        """An account's policy, if it has one."""
        return self._policies.get(account_id)

    def put(self, rows: Iterable[Any]) -> None:
        """Take in rows of `webhook_policies`."""
        for row in rows:
            held = self._policies.get(row.account_id)
            # Of two queries under way the older may answer last.
            if held is None or held.change < row.change:
                self._policies[row.account_id] = Policy(row)
                self._told.pop(row.account_id, None)

    def replace(self, rows: Iterable[Any]) -> None:
        """Take in all rows that there are, and forget what was before."""
        self._policies = {row.account_id: Policy(row) for row in rows}
        told, self._told = self._told, {}
        for account_id, (at, _) in told.items():
            self._block(account_id, at)

    def block(self, account_id: UUID) -> None:
        """Block an account by the word of an event, until a look into the database has begun."""
        self._block(account_id, time.monotonic())

    def settle(self, since: float) -> None:
        """Let the rows decide again on what events said before a look began, which is over.

        What an event tells was committed before, so the look has seen it: and what came after it,
        should the event be late.

        Args:
            since: when the look began, on the monotonic clock.
        """
        for account_id, (at, before) in list(self._told.items()):
            if at < since:
                del self._told[account_id]
                if before is None:
                    del self._policies[account_id]
                else:
                    self._policies[account_id] = before

    def _block(self, account_id: UUID, at: float) -> None:
        held = self._policies.get(account_id)
        if held is not None and held.is_blocked:
            return
        blocked = copy.copy(held) if held is not None else Policy(_NONE)
        blocked.is_blocked = True
        self._told[account_id] = at, held
        self._policies[account_id] = blocked
