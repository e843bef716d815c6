"""State table of applications: the effect of each decision."""

from typing import Literal

Status = Literal["pending", "approved", "rejected", "revoked", "incomplete"]
Decision = Literal["approve", "reject", "revoke", "ask"]

OPEN: tuple[Status, ...] = ("pending", "approved", "incomplete")
"""States that may still change or take effect; the database forbids them for a closed account."""


class NotPossible(Exception):  # noqa: N818
    """The decision does not fit the application's state; the message says what to do instead."""


_TABLE: dict[Decision, dict[Status, Status]] = {
    # The requested information may have arrived by another way, so `incomplete` can be approved.
    "approve": {"pending": "approved", "incomplete": "approved", "approved": "approved"},
    "reject": {"pending": "rejected", "incomplete": "rejected", "rejected": "rejected"},
    "revoke": {"approved": "revoked", "revoked": "revoked"},
    "ask": {"pending": "incomplete", "incomplete": "incomplete"},
}
_ADVICE: dict[tuple[Decision, Status], str] = {
    ("approve", "rejected"): "it was rejected; the business must submit again",
    ("approve", "revoked"): "it was revoked; the business must submit again",
    ("reject", "approved"): "it is approved; revoke it instead",
    ("reject", "revoked"): "it was revoked already",
    ("revoke", "pending"): "it is pending; reject it instead",
    ("revoke", "rejected"): "it was rejected, so there is nothing to revoke",
    ("revoke", "incomplete"): "it waits for the business's answer; reject it instead",
    ("ask", "approved"): "it is approved; revoke it instead",
    ("ask", "rejected"): "it was rejected; the business may submit again",
    ("ask", "revoked"): "it was revoked; the business may submit again",
}


def after(decision: Decision, status: Status) -> Status:
    """Return the state after a decision, which may be the same state.

    Raises:
        NotPossible: the decision is not possible in this state.
    """
    new = _TABLE[decision].get(status)
    if new is None:
        raise NotPossible(f"cannot {decision} the application: {_ADVICE[decision, status]}")
    return new
