"""The webhook policies of accounts in a worker's memory: allowlist, rate, schemes, block.

Most accounts have no policy, and take no memory here.
"""

import copy
import time
from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any
from uuid import UUID

from shared.security.networks import is_within, valid_networks

MAX_VERDICTS = 1_000  # addresses an account whose verdict is cached


class Policy:
    """The policy of one account.

    Attributes:
        rate: requests a second; None for the default.
        is_blocked: whether ops staff have blocked the account.
        is_standard_only: whether it accepts Standard Webhooks only.
        change: the number of the database change that it shows.
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
        self._networks = valid_networks(row.allowed_networks)
        self._verdicts: dict[str, bool] = {}

    def allows(self, address: str) -> bool:
        """Return whether the allowlist has an address; False for a text that is none."""
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
        self._blocked_by_event: dict[UUID, tuple[float, Policy | None]] = {}

    def get(self, account_id: UUID) -> Policy | None:
        """Return an account's policy, if it has one."""
        return self._policies.get(account_id)

    def put(self, rows: Iterable[Any]) -> None:
        """Store rows of `webhook_policies`, except those older than the stored ones."""
        for row in rows:
            held = self._policies.get(row.account_id)
            # Of two concurrent queries the older may answer last.
            if held is None or held.change < row.change:
                self._policies[row.account_id] = Policy(row)
                self._blocked_by_event.pop(row.account_id, None)

    def replace(self, rows: Iterable[Any]) -> None:
        """Replace all policies by these rows; blocks by events stay."""
        self._policies = {row.account_id: Policy(row) for row in rows}
        blocked, self._blocked_by_event = self._blocked_by_event, {}
        for account_id, (at, _) in blocked.items():
            self._block(account_id, at)

    def block(self, account_id: UUID) -> None:
        """Block an account that an event names, until `settle` of a later poll."""
        self._block(account_id, time.monotonic())

    def settle(self, since: float) -> None:
        """Drop the blocks by events from before a finished poll began.

        An event is sent after its change was committed, so that poll has read the change, and any
        newer one.

        Args:
            since: the beginning of the poll, on the monotonic clock.
        """
        for account_id, (at, before) in list(self._blocked_by_event.items()):
            if at < since:
                del self._blocked_by_event[account_id]
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
        self._blocked_by_event[account_id] = at, held
        self._policies[account_id] = blocked
