"""Which service may write which messages to the outbox.

To the broker all facts are published by the relay, so its rights cannot separate the services. The
database records the role that wrote a row in `written_by`, which writers cannot set.
"""

from collections.abc import Mapping

from shared.bus.contract import events, topology
from shared.bus.contract.events import Event
from shared.security.service_accounts import login

_SECRETS = (events.SecretIssued, events.SecretRotated, events.SecretRevoked)

SAYS: Mapping[str, tuple[type[Event], ...]] = {
    # Orders accepted while the broker was unreachable, and the HTTP APIs of the other services.
    "ingress": (
        events.OrderCreated,
        events.OrderStatusChanged,
        events.OrderCancelled,
        events.OrderUnaddressed,
        events.OrderNotPlaced,
        events.OrderPlaced,
        events.OrderTestCreated,
        events.OrderTestStatusChanged,
        events.OrderTestCancelled,
        events.OrderTestUnaddressed,
        events.OrderTestNotPlaced,
        events.OrderTestPlaced,
        events.SecretRotate,
        events.AccountOtpRequested,
        events.AccountVerified,
        events.AccountSignedIn,
        events.AccountSignInFailed,
        events.AccountChanged,
        events.SecretShown,
        events.SecretGiven,
        events.SecretKeyAdded,
        events.SecretKeyRemoved,
        events.WebhookAllowlistChanged,
        events.EmailSuppressionLifted,
        events.EmailLocaleChanged,
        events.WebhookFileSent,
        events.KycSubmitted,
        *_SECRETS,
    ),
    "kyc": (
        events.KycApproved,
        events.KycRejected,
        events.KycInformationRequested,
        events.KycRevoked,
        events.OpsKycDecisionRecorded,
    ),
    "secrets": (*_SECRETS, events.SecretExpiring, events.AccountChanged),
    "orders": (
        events.OrderRecorded,
        events.OrderStatusRecorded,
        events.OrderCancellationRecorded,
        events.OrderTestRecorded,
        events.OrderTestStatusRecorded,
        events.OrderTestCancellationRecorded,
        events.OrderNotTaken,
    ),
    "notifier": (events.EmailUndeliverable, events.OrderRecipientsRefused),
    "ops": tuple(
        event
        for event in events.EVENT_TYPES.values()
        if event.TYPE.startswith("ops.") and event is not events.OpsKycDecisionRecorded
    ),
}
"""The events that each service may write."""


def _ways(event: type[Event]) -> list[tuple[str, str, str]]:
    ways = [(event.EXCHANGE, event.TYPE, event.TYPE)]
    if topology.matches(f"{topology.BULK}order.*", f"{topology.BULK}{event.TYPE}"):
        ways.append((event.EXCHANGE, f"{topology.BULK}{event.TYPE}", event.TYPE))
    return ways


_ALLOWED = {
    login(service): frozenset(way for event in said for way in _ways(event))
    for service, said in SAYS.items()
}


def refusal(written_by: str, exchange: str, routing_key: str, type_: str) -> str:
    """Return why a row must not be published; empty if it may be.

    A role of no service is an administrator's, who may write anything; no other role has the right
    to write to the outbox.

    Args:
        written_by: the role that wrote the row.
        exchange: of the message.
        routing_key: of the message.
        type_: the type of the event.
    """
    allowed = _ALLOWED.get(written_by)
    if allowed is None or (exchange, routing_key, type_) in allowed:
        return ""
    return (
        f"{written_by} may not write {type_} (exchange {exchange!r}, key {routing_key!r}): "
        "see services/relay/authors.py"
    )
