"""Which decisions without an operator's name are accepted."""

from contextlib import nullcontext
from types import SimpleNamespace

import pytest

from services.kyc import approvals
from shared.bus.contract.delivery import RawDelivery
from shared.bus.contract.errors import Permanent


@pytest.mark.parametrize(
    ("environment", "unnamed", "user", "is_taken"),
    [
        ("production", "", "ada", True),
        ("production", "", "fellow_operator", False),  # which many share
        ("production", "", "fellow_ops", False),
        ("production", "", None, False),
        ("production", "take", "fellow_operator", True),
        ("development", "", "fellow_operator", True),
        ("development", "refuse", "fellow_operator", False),
    ],
)
def test_in_production_a_decision_needs_an_operator(
    monkeypatch, environment, unnamed, user, is_taken
):
    config = SimpleNamespace(environment=environment, kyc_unnamed_decisions=unnamed)
    monkeypatch.setattr(approvals, "settings", lambda: config)
    properties = {"user_id": user} if user else {}
    decision = RawDelivery(b"{}", properties, {}, "commands", routing_key="kyc.decide")
    refused = pytest.raises(Permanent, match="set the property user_id to its name")
    with nullcontext() if is_taken else refused:
        approvals.refuse_unnamed(decision.received("kyc.decide", None))
