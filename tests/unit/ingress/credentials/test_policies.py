"""Policies in memory: closed where they are unreadable, true whatever comes last."""

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
def test_who_may_come(networks, address, allowed):
    policy = Policy(row(*networks))
    assert policy.allows(address) is allowed
    assert policy.allows(address) is allowed


def test_what_is_remembered_is_bounded(monkeypatch):
    monkeypatch.setattr(policies, "MAX_VERDICTS", 10)
    policy = Policy(row("10.0.0.0/8"))
    assert all(policy.allows(f"10.0.0.{n}") for n in range(100))
    assert len(policy._verdicts) <= 10


def test_an_older_answer_that_comes_last_changes_nothing():
    known = Policies()
    known.put([row(rate=5, change=2)])
    known.put([row(rate=9, change=1)])
    assert known.get(ACCOUNT).rate == 5
    known.put([row(rate=7, change=3)])
    assert known.get(ACCOUNT).rate == 7
    assert known.get(new_id()) is None


def test_all_anew_forgets_what_is_gone():
    known = Policies()
    known.put([row(rate=5, change=2)])
    known.replace([])
    assert known.get(ACCOUNT) is None
