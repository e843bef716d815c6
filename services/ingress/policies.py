"""From where an account's requests may come, and how many a second, in a worker's memory.

Most accounts have no policy, and cost nothing here.
"""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from shared.networks import is_within, readable

MAX_VERDICTS = 1_000  # addresses an account whose verdict is remembered


class Policy:
    """What one account wants.

    Attributes:
        rate: requests a second; None for the default.
        changed_at: when the database last changed it.
    """

    __slots__ = ("_is_open", "_networks", "_verdicts", "changed_at", "rate")

    def __init__(self, row: Any) -> None:
        self.rate: int | None = row.rate_per_second
        self.changed_at: datetime = row.updated_at
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
        self.seen_until = datetime.min.replace(tzinfo=UTC)
        """The latest change that was seen."""

    def get(self, account_id: UUID) -> Policy | None:
        """An account's policy, if it has one."""
        return self._policies.get(account_id)

    def put(self, rows: Iterable[Any]) -> None:
        """Take in rows of `webhook_policies`."""
        for row in rows:
            held = self._policies.get(row.account_id)
            # Of two queries under way the older may answer last.
            if held is None or held.changed_at < row.updated_at:
                self._policies[row.account_id] = Policy(row)
            self.seen_until = max(self.seen_until, row.updated_at)
