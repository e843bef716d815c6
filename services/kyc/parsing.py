"""Reading an operator's decision, also one typed by hand into any AMQP tool.

Bare JSON, `{type, data}` or a CloudEvent in structured mode; a few words for the same thing. It is
lenient in form and strict in meaning: two words that contradict each other decide nothing.
"""

from typing import Any

from shared.bus.contract.delivery import Incoming
from shared.bus.contract.errors import Malformed
from shared.bus.contract.events import KycDecide
from shared.bus.contract.message import Received
from shared.validation import json_text, reading

_DECISIONS = {
    "approve": "approve",
    "approved": "approve",
    "reject": "reject",
    "rejected": "reject",
    "revoke": "revoke",
    "revoked": "revoke",
    "ask": "ask",
    "incomplete": "ask",
    "more_information_needed": "ask",
    "more information needed": "ask",
}
REASONED = {"reject": "a rejection", "ask": "a question"}
"""Decisions that tell nothing without a reason."""
_NAMES = {
    "decision": ("decision", "action", "status"),
    "account_id": ("account_id", "user_id"),
    "email": ("email",),
    "business_registration_number": ("business_registration_number", "registration_number"),
    "application_id": ("application_id",),
    "looked_at": ("looked_at",),
    "reason": ("reason", "rejection_reason", "question", "message"),
}
_IDENTIFIERS = frozenset({"account_id", "email", "business_registration_number"})


def decode_decision(incoming: Incoming) -> Received[KycDecide]:
    """What the operator means.

    Raises:
        Malformed: it is not clear; the sentence says what is missing.
    """
    type_ = incoming.properties.get("type")
    if type_ and type_ != KycDecide.TYPE:
        raise Malformed(f"the type property is {type_!r}; a decision's is {KycDecide.TYPE!r}")
    return incoming.received(KycDecide.TYPE, read(incoming.body))


def read(body: bytes) -> KycDecide:
    """The decision in a body.

    Raises:
        Malformed: see `decode_decision`.
    """
    try:
        given = json_text.parse(body)
    except json_text.NotJsonError as error:
        raise Malformed(f"the body is not JSON. {error}") from None
    if isinstance(given, dict) and isinstance(given.get("data"), dict):
        if given.get("type", KycDecide.TYPE) != KycDecide.TYPE:
            raise Malformed(f"the envelope's type is not {KycDecide.TYPE!r}")
        given = given["data"]
    if not isinstance(given, dict):
        raise Malformed("the body is not a JSON object")
    words = [_DECISIONS.get(str(word).lower()) for word in _given(given, "decision")]
    if not words or None in words:
        raise Malformed("'decision' must be approve, reject, revoke or ask")
    found = {name: _agreed(given, name) for name in _NAMES if _given(given, name)}
    # An `id` beside a better name is the operator's own number for the decision.
    if not found.keys() & _IDENTIFIERS and given.get("id"):
        found["account_id"] = given["id"]
    if len(set(words)) > 1:
        raise Malformed("it says two different decisions")
    decision = words[0]
    if not found.keys() & _IDENTIFIERS:
        raise Malformed("name the business: account_id, email or business_registration_number")
    try:
        decided = reading.read(found | {"decision": decision}, KycDecide, shows=False)
    except reading.InvalidValueError as error:
        raise Malformed(str(error)) from None
    if decision in REASONED and not decided.reason.strip():
        raise Malformed(f"{REASONED[decision]} needs a 'reason': the business is told it")
    return decided


def _given(given: dict[str, Any], name: str) -> list[Any]:
    """What is given under any of the words for `name`."""
    values = [given.get(alias) for alias in _NAMES[name]]
    stripped = [value.strip() if isinstance(value, str) else value for value in values]
    return [value for value in stripped if value not in (None, "")]


def _agreed(given: dict[str, Any], name: str) -> Any:
    first, *others = _given(given, name)
    if name in _IDENTIFIERS and any(str(other).lower() != str(first).lower() for other in others):
        raise Malformed(f"it names two different businesses, by {' and '.join(_NAMES[name])}")
    return first
