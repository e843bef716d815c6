"""From where an account's requests may come, and how many a second, in a worker's memory.

Most accounts have no policy, and cost nothing here.
"""

from collections.abc import Iterable
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


class Policies:
    """The policies of all accounts that have one."""

    def __init__(self) -> None:
        self._policies: dict[UUID, Policy] = {}

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

    def replace(self, rows: Iterable[Any]) -> None:
        """Take in all rows that there are, and forget what was before."""
        self._policies = {row.account_id: Policy(row) for row in rows}
