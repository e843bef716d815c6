"""The policies in a worker's memory."""

import time
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest

from services.ingress.credentials import policies
from services.ingress.credentials.policies import Policies, Policy
from shared.ids import new_id

ACCOUNT = new_id()


def row(*networks, rate=None, change=0):
    return SimpleNamespace(
        account_id=ACCOUNT,
        allowed_networks=list(networks),
        rate_per_second=rate,
        blocked_at=None,
        standard_webhooks_only=False,
        change=change,
    )


@pytest.mark.parametrize(
    ("networks", "address", "allowed"),
    [
        ([], "203.0.113.7", True),
        ([], "no address", True),
        (["203.0.113.0/24"], "203.0.113.7", True),
        (["203.0.113.0/24"], "198.51.100.7", False),
        (["203.0.113.0/24"], "no address", False),
        (["nonsense"], "203.0.113.7", False),
    ],
)
def test_allowed_addresses(networks, address, allowed):
    policy = Policy(row(*networks))
    assert policy.allows(address) is allowed
    assert policy.allows(address) is allowed


def test_the_cache_of_verdicts_is_bounded(monkeypatch):
    monkeypatch.setattr(policies, "MAX_VERDICTS", 10)
    policy = Policy(row("10.0.0.0/8"))
    assert all(policy.allows(f"10.0.0.{n}") for n in range(100))
    assert len(policy._verdicts) <= 10


def test_an_older_row_that_arrives_last_is_ignored():
    known = Policies()
    known.put([row(rate=5, change=2)])
    known.put([row(rate=9, change=1)])
    assert known.get(ACCOUNT).rate == 5
    known.put([row(rate=7, change=3)])
    assert known.get(ACCOUNT).rate == 7
    assert known.get(new_id()) is None


def test_replacing_all_policies_removes_missing_ones():
    known = Policies()
    known.put([row(rate=5, change=2)])
    known.replace([])
    assert known.get(ACCOUNT) is None


def blocked_row(change):
    found = row(rate=5, change=change)
    found.blocked_at = datetime.now(UTC)
    return found


@pytest.mark.parametrize("known_before", [True, False])
def test_an_event_blocks_until_a_later_poll_has_finished(known_before):
    known = Policies()
    if known_before:
        known.put([row(rate=5, change=1)])
    before = time.monotonic()
    known.block(ACCOUNT)
    assert known.get(ACCOUNT).is_blocked
    # A look that had begun by then may not have seen it, nor the whole that is loaded anew.
    known.settle(before)
    assert known.get(ACCOUNT).is_blocked
    known.replace([row(rate=5, change=1)] if known_before else [])
    assert known.get(ACCOUNT).is_blocked
    known.block(ACCOUNT)
    # One that began later has: the event was late, and the account is let in again.
    known.settle(time.monotonic() + 1)
    found = known.get(ACCOUNT)
    assert (found.rate if found else None) == (5 if known_before else None)
    assert found is None or not found.is_blocked


def test_a_row_replaces_the_block_by_an_event():
    known = Policies()
    known.put([row(rate=5, change=1)])
    known.block(ACCOUNT)
    assert known.get(ACCOUNT).rate == 5
    known.put([blocked_row(change=2)])
    known.settle(time.monotonic() + 1)
    assert known.get(ACCOUNT).is_blocked
    known.put([row(rate=5, change=3)])
    assert not known.get(ACCOUNT).is_blocked
