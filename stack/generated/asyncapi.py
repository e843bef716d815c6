"""AsyncAPI 3.0, made from the Structs, the topology and the rights: who sends and receives what.

A channel for each routing key of an exchange, and one for each queue. An operation for each service
and channel that its rights on the broker allow, so that the document says no more and no less than
the broker enforces. Bindings: "AMQP 0-9-1 Bindings" 0.3.0, which know no queue arguments and no
queue's bindings; those are in `x-arguments` and `x-bound-to`.
"""

import re
from collections.abc import Iterable, Iterator
from typing import Any

from shared.bus.contract import topology
from shared.bus.contract.events import EVENT_TYPES, Event
from shared.bus.contract.headers import (
    ATTEMPT_HEADER,
    CONSUMER_HEADER,
    FAILED_AT_HEADER,
    FIRST_FAILED_AT_HEADER,
    QUEUE_HEADER,
    REASON_HEADER,
    REPLAY_HEADER,
)
from shared.bus.contract.journal import place
from shared.bus.contract.permissions import ANYTHING, RIGHTS, Keys, Rights
from shared.docstrings import REF, schema_components, summary

BINDING = "0.3.0"
FEED = "ingress.secrets"
_KINDS = {
    topology.INTAKE: "What a sender told us about an order.",
    topology.COMMANDS: "What somebody wants done.",
    topology.EVENTS: "A fact, relayed from the outbox.",
}


def document() -> dict[str, Any]:
    """The AsyncAPI document."""
    structs = list(EVENT_TYPES.values())
    references, schemas = schema_components(structs)
    channels = _channels()
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Order Fellow",
            "version": "1",
            "description": (
                "Every message between the services, over RabbitMQ. A message is a CloudEvent 1.0 "
                "in binary mode: its data is the body, its attributes are headers. Every effect is "
                "idempotent by the `message_id` property, which is also `ce-id`."
            ),
        },
        "defaultContentType": "application/json",
        "servers": {
            "rabbitmq": {
                "host": "127.0.0.1:5672",
                "protocol": "amqp",
                "protocolVersion": "0-9-1",
                "description": "RabbitMQ 3.10 or newer. Each service signs in as itself.",
            }
        },
        "channels": channels,
        "operations": dict(_operations(channels)),
        "components": {
            "messages": {
                struct.__name__: _message(struct, reference)
                for struct, reference in zip(structs, references, strict=True)
            },
            "correlationIds": {
                "story": {
                    "description": "The order or account that the story is about.",
                    "location": "$message.header#/ce-subject",
                }
            },
            "schemas": schemas | {"Headers": _HEADERS},
        },
    }


def _message(struct: type[Event], payload: dict[str, Any]) -> dict[str, Any]:
    type_ = {"properties": {"ce-type": {"const": struct.TYPE}}}
    return {
        "name": struct.TYPE,
        "title": struct.__name__,
        "summary": summary(struct),
        "contentType": "application/json",
        "headers": {"allOf": [{"$ref": REF.format(name="Headers")}, type_]},
        "payload": payload,
        "correlationId": {"$ref": "#/components/correlationIds/story"},
        "bindings": {"amqp": {"messageType": struct.TYPE, "bindingVersion": BINDING}},
    }


def _channels() -> dict[str, Any]:
    channels: dict[str, Any] = {}
    brought: dict[str, dict[str, type[Event]]] = {queue.name: {} for queue in topology.QUEUES}
    for exchange in topology.EXCHANGES:
        for type_, struct in EVENT_TYPES.items():
            if exchange.name != struct.EXCHANGE:
                continue
            for key in _keys(exchange, type_):
                queues = topology.reached(exchange, key)
                if place(exchange.name, key) == topology.JOURNAL_OF_FACTS:
                    queues.append(topology.JOURNAL)
                channels[key] = {
                    "address": key,
                    "description": _KINDS[exchange.name],
                    "messages": _messages([struct]),
                    "bindings": {"amqp": _routing_key(exchange)},
                    "x-reaches": [queue.name for queue in queues],
                }
                for queue in queues:
                    brought[queue.name][type_] = struct
    everything = {queue.name: brought[queue.name] for queue in topology.WORK_QUEUES}
    everything |= {queue.dead: brought[queue.name] for queue in topology.WORK_QUEUES}
    kept = {type_: struct for type_, struct in EVENT_TYPES.items() if place(struct.EXCHANGE, type_)}
    everything |= {topology.JOURNAL.name: brought[topology.JOURNAL.name] | kept}
    failing = {t: s for queue in topology.WORK_QUEUES for t, s in brought[queue.name].items()}
    everything |= {rung.name: failing for rung in topology.RETRY_DELAYS}
    for queue in topology.QUEUES:
        channels[queue.name] = {
            "address": queue.name,
            "messages": _messages(everything[queue.name].values()),
            "bindings": {"amqp": _queue(queue)},
        }
    channels[FEED] = _feed()
    return channels


def _keys(exchange: topology.Exchange, type_: str) -> list[str]:
    """The routing keys that a type travels under: its own, and in the bulk lane where it may."""
    in_bulk = f"{topology.BULK}{type_}"
    reached = topology.reached(exchange, in_bulk) if exchange.kind == "topic" else []
    return [type_, in_bulk] if topology.NOTIFIER_BULK in reached else [type_]


def _feed() -> dict[str, Any]:
    """The queue that keeps an ingress worker's secrets true."""
    address = f"{FEED}.{{worker}}"
    secrets = [
        struct
        for type_, struct in EVENT_TYPES.items()
        if struct.EXCHANGE == topology.EVENTS
        and any(topology.matches(key, type_) for key in topology.FEED_KEYS)
    ]
    return {
        "address": address,
        "description": "Each ingress worker's own; it goes when the worker goes.",
        "parameters": {"worker": {"description": "A new id for each connection of a worker."}},
        "messages": _messages(secrets),
        "bindings": {
            "amqp": {
                "is": "queue",
                "queue": {
                    "name": address,
                    "durable": False,
                    "exclusive": True,
                    "autoDelete": True,
                },
                "bindingVersion": BINDING,
                "x-bound-to": [
                    {"exchange": topology.EVENTS, "key": key} for key in topology.FEED_KEYS
                ],
            }
        },
    }


def _operations(channels: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for service, rights in RIGHTS.items():
        for key, channel in channels.items():
            binding = channel["bindings"]["amqp"]
            if binding["is"] == "routingKey" and _may_send(
                rights, binding["exchange"]["name"], key
            ):
                yield f"{service}.sends.{key}", _operation("send", service, key, channel)
        for queue in topology.WORK_QUEUES:
            # Its own: ops staff may look into every queue, and consume none.
            if _allows(rights.configure, queue.name):
                channel = channels[queue.name]
                yield (
                    f"{service}.receives.{queue.name}",
                    _operation("receive", service, queue.name, channel),
                )
        if _allows(rights.read, f"{FEED}.x") and _allows(rights.configure, f"{FEED}.x"):
            yield f"{service}.receives.{FEED}", _operation("receive", service, FEED, channels[FEED])


def _operation(action: str, service: str, key: str, channel: dict[str, Any]) -> dict[str, Any]:
    pointer = f"#/channels/{key}"
    bindings: dict[str, Any] = {"bindingVersion": BINDING}
    # Messages are published mandatory as well; the binding has that for receivers only.
    bindings |= {"deliveryMode": 2, "timestamp": True} if action == "send" else {"ack": True}
    return {
        "action": action,
        "channel": {"$ref": pointer},
        "messages": [{"$ref": f"{pointer}/messages/{name}"} for name in channel["messages"]],
        "tags": [{"name": service}],
        "bindings": {"amqp": bindings},
    }


def _may_send(rights: Rights, exchange: str, key: str) -> bool:
    keys = rights.keys.get(exchange, Keys(write=ANYTHING))
    return _allows(rights.write, exchange) and _allows(keys.write, key)


def _allows(expression: str, name: str) -> bool:
    return re.search(expression, name) is not None


def _messages(structs: Iterable[type[Event]]) -> dict[str, Any]:
    return {s.__name__: {"$ref": f"#/components/messages/{s.__name__}"} for s in structs}


def _routing_key(exchange: topology.Exchange) -> dict[str, Any]:
    return {
        "is": "routingKey",
        "exchange": {
            "name": exchange.name,
            "type": exchange.kind,
            "durable": True,
            "autoDelete": False,
        },
        "bindingVersion": BINDING,
    }


def _queue(queue: topology.Queue) -> dict[str, Any]:
    return {
        "is": "queue",
        "queue": {"name": queue.name, "durable": True, "exclusive": False, "autoDelete": False},
        "bindingVersion": BINDING,
        "x-arguments": queue.arguments,
        "x-bound-to": [{"exchange": b.exchange, "key": b.key} for b in queue.bindings],
    }


def _text(description: str, **more: Any) -> dict[str, Any]:
    return {"type": "string", "description": description, **more}


_HEADERS = {
    "type": "object",
    "description": "CloudEvents 1.0 attributes, and what a copy of a failed message carries.",
    "required": ["ce-specversion", "ce-id", "ce-source", "ce-type", "ce-time", "ce-subject"],
    "properties": {
        "ce-specversion": {"const": "1.0"},
        "ce-id": _text("The message's id; a redelivery has the same.", format="uuid"),
        "ce-source": _text("The service that says it, such as `services.orders`."),
        "ce-type": _text("The message's type, also its `type` property."),
        "ce-time": _text("When it happened, to the millisecond.", format="date-time"),
        "ce-subject": _text("The order or account that the story is about."),
        "traceparent": _text("W3C Trace Context, where there is one."),
        ATTEMPT_HEADER: {
            "type": "integer",
            "minimum": 0,
            "description": "How many times it was tried and failed.",
        },
        REASON_HEADER: _text("Why it failed the last time."),
        QUEUE_HEADER: _text("The queue it failed in, and comes back to."),
        CONSUMER_HEADER: _text("Who failed on it."),
        FAILED_AT_HEADER: _text("When it failed the last time.", format="date-time"),
        FIRST_FAILED_AT_HEADER: _text("When it failed the first time.", format="date-time"),
        REPLAY_HEADER: {
            "enum": ["again", "done"],
            "description": "On a copy from the journal, how it is to be taken.",
        },
    },
}
