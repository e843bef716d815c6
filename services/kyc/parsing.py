"""Parses an operator's decision, which may be typed by hand into any AMQP tool.

The body is bare JSON, `{type, data}` or a structured CloudEvent, and fields have several accepted
names. The form is lenient, the meaning strict: contradictory values are refused.
"""

from typing import Any

from shared.bus.contract.delivery import RawDelivery
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
"""Decisions that need a reason, with their names in error messages."""
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


def decode_decision(incoming: RawDelivery) -> Received[KycDecide]:
    """Decode a delivery.

    Raises:
        Malformed: the decision is ambiguous or incomplete; the message says what is missing.
    """
    type_ = incoming.properties.get("type")
    if type_ and type_ != KycDecide.TYPE:
        raise Malformed(f"the type property is {type_!r}; a decision's is {KycDecide.TYPE!r}")
    return incoming.received(KycDecide.TYPE, read(incoming.body))


def read(body: bytes) -> KycDecide:
    """Parse a decision.

    Raises:
        Malformed: as `decode_decision`.
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
    # Beside another identifier, `id` is the operator's own number of the decision.
    if not found.keys() & _IDENTIFIERS and given.get("id"):
        found["account_id"] = given["id"]
    if len(set(words)) > 1:
        raise Malformed("it says two different decisions")
    decision = words[0]
    if not found.keys() & _IDENTIFIERS:
        raise Malformed("name the business: account_id, email or business_registration_number")
    try:
        decided = reading.read(found | {"decision": decision}, KycDecide, quotes=False)
    except reading.InvalidValueError as error:
        raise Malformed(str(error)) from None
    if decision in REASONED and not decided.reason.strip():
        raise Malformed(f"{REASONED[decision]} needs a 'reason', which the business is sent")
    return decided


def _given(given: dict[str, Any], name: str) -> list[Any]:
    """Return the values given under any of the accepted names of a field."""
    values = [given.get(alias) for alias in _NAMES[name]]
    stripped = [value.strip() if isinstance(value, str) else value for value in values]
    return [value for value in stripped if value not in (None, "")]


def _agreed(given: dict[str, Any], name: str) -> Any:
    first, *rest = _given(given, name)
    if name in _IDENTIFIERS and any(str(value).lower() != str(first).lower() for value in rest):
        raise Malformed(f"it names two different businesses, by {' and '.join(_NAMES[name])}")
    return first
