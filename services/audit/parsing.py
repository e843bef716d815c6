"""Reading any fact, known here or not: who did it, and from where.

A fact is kept as it came. So one that a newer service tells is kept too, and nothing is lost to a
Struct that has changed since.
"""

from dataclasses import dataclass
from typing import Any

import msgspec

from shared.bus.contract.delivery import Incoming
from shared.bus.contract.errors import Malformed
from shared.bus.contract.message import MENDED_BY, Received

NOBODY = "the system"
SOMEBODY = "somebody unknown"
_BY_THE_BUSINESS = (
    "account.",
    "kyc.submitted",
    "secret.shown",
    "secret.given",
    "secret.key_",
    "webhook.allowlist_changed",
    "email.",
    "webhook.file_sent",
)


@dataclass(frozen=True, slots=True)
class Fact:
    """One fact, as the audit log keeps it.

    Attributes:
        actor: who did it.
        address: from where; the service that told it, where it says no more; and who has changed
            what it says since.
        data: its JSON, as it came.
    """

    actor: str
    address: str
    data: str


def decode_fact(incoming: Incoming) -> Received[Any]:
    """What a message tells.

    Raises:
        Malformed: it has no type, or its body is no JSON object that PostgreSQL can keep.
    """
    type_ = incoming.properties.get("type")
    if not type_:
        raise Malformed("the message has no type property")
    try:
        given = msgspec.json.decode(incoming.body)
        data = incoming.body.decode()
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Malformed(f"the body is not JSON: {error}") from None
    if not isinstance(given, dict):
        raise Malformed("the body is not a JSON object")
    source = str(incoming.headers.get("ce-source") or "")
    address = given.get("address")
    address = address if isinstance(address, str) and address else source
    if source.startswith(MENDED_BY) and address != source:
        address = f"{address}, {source}"
    # PostgreSQL's text holds no NUL. In the JSON itself it can only stand escaped.
    actor, address = (_actor(str(type_), given).replace("\0", "?"), address.replace("\0", "?"))
    fact = Fact(actor, address, data)
    return incoming.received(str(type_), fact)


def _actor(type_: str, given: dict[str, Any]) -> str:
    """Who did it: the one that the fact names, or whom it is about, or the one it was caused by."""
    for name in ("by", "decided_by"):
        if isinstance(given.get(name), str) and given[name]:
            return str(given[name])
    cause = given.get("cause")
    if cause in ("scheduled", "expired_use"):
        return NOBODY
    if cause == "operator":
        return "an operator"
    # What a business does at the API: registering, signing in, submitting, asking for a new secret.
    if cause == "business" or type_.startswith(_BY_THE_BUSINESS):
        return str(given.get("email") or SOMEBODY)
    return NOBODY
