"""Decodes any event, of a known type or not, with its actor and address.

The body is stored verbatim: so events of a newer service are kept, and no field is lost to a
changed Struct.
"""

from dataclasses import dataclass
from typing import Any

import msgspec

from shared.bus.contract.delivery import RawDelivery
from shared.bus.contract.errors import Malformed
from shared.bus.contract.message import MENDED_BY, Received

SYSTEM = "the system"
UNKNOWN = "somebody unknown"
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
    """An event in the form of the audit log.

    Attributes:
        actor: who did it.
        address: the client's IP address, else the publishing service; followed by the operator who
            has edited the message, if any.
        data: the JSON body, verbatim.
    """

    actor: str
    address: str
    data: str


def decode_fact(incoming: RawDelivery) -> Received[Any]:
    """Decode an event.

    Raises:
        Malformed: it has no type, or its body is not a JSON object in UTF-8.
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
    # PostgreSQL's text type holds no NUL. In the JSON it is always escaped.
    actor, address = (_actor(str(type_), given).replace("\0", "?"), address.replace("\0", "?"))
    fact = Fact(actor, address, data)
    return incoming.received(str(type_), fact)


def _actor(type_: str, given: dict[str, Any]) -> str:
    """Return who did it: the named actor, or the one that the event's cause or type implies."""
    for name in ("by", "decided_by"):
        if isinstance(given.get(name), str) and given[name]:
            return str(given[name])
    cause = given.get("cause")
    if cause in ("scheduled", "expired_use"):
        return SYSTEM
    if cause == "operator":
        return "an operator"
    # Actions of a business at the API, such as registration or a new secret.
    if cause == "business" or type_.startswith(_BY_THE_BUSINESS):
        return str(given.get("email") or UNKNOWN)
    return SYSTEM
