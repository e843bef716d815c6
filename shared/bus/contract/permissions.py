"""The broker's users and rights: one user for each service, with the least rights.

`python -m shared.bus.declare` makes them through the management API. Without that API,
`python -m shared.bus.contract.permissions` prints them as RabbitMQ definitions, with the passwords
of `SERVICE_PASSWORDS`, for `rabbitmqctl import_definitions`.

The rights of each operation (RabbitMQ, "Access Control"): declaring needs *configure*; publishing
*write* on the exchange; consuming *read* on the queue; binding *write* on the queue and *read* on
the exchange. Rights to routing keys are checked on topic exchanges only, so every exchange whose
keys matter is one. A passive declare needed no right before 4.2.6 and 4.3.0; since then any of the
three (in just these two versions *configure*), so no service declares foreign queues passively.
"""

import base64
import hashlib
import json
import re
import secrets
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from shared.bus.contract import topology
from shared.config.environment import ConfigurationError
from shared.config.loading import settings
from shared.security.service_accounts import OPERATOR, login

NOTHING, ANYTHING = "^$", ".*"
DEFAULT_EXCHANGE = "amq.default"
FEEDS = r"ingress\.secrets\..*"  # one queue for each ingress worker


@dataclass(frozen=True, slots=True)
class Keys:
    """Regular expressions for the routing keys of one topic exchange.

    Attributes:
        write: for publishing.
        read: for binding.
    """

    write: str = NOTHING
    read: str = NOTHING


@dataclass(frozen=True, slots=True)
class Rights:
    """The rights of one user in one virtual host; regular expressions over names.

    Attributes:
        configure: queues and exchanges that may be declared and deleted.
        write: exchanges that may be published to, and queues that may be bound.
        read: queues that may be consumed, and exchanges that may be bound to.
        keys: by exchange; every key is allowed on an exchange that is not listed.
    """

    configure: str = NOTHING
    write: str = NOTHING
    read: str = NOTHING
    keys: Mapping[str, Keys] = field(default_factory=dict)


def _any_of(*expressions: str) -> str:
    return f"^({'|'.join(expressions)})$"


def _exactly(names: Iterable[str]) -> str:
    return _any_of(*(re.escape(name) for name in sorted(set(names))))


def _consumer(*queues: topology.Queue, beside: Sequence[str] = ()) -> Rights:
    """Return the rights to declare and consume queues, and to publish copies of failed messages.

    Args:
        queues: of the service.
        beside: regular expressions for the names of further queues that it consumes.
    """
    own = [queue.name for queue in queues]
    failed = [topology.DEAD, *(rung.name for rung in topology.RETRY_DELAYS)]
    sources: dict[str, list[str]] = {}
    for queue in queues:
        for binding in queue.bindings:
            sources.setdefault(binding.exchange, []).append(binding.key)
    return Rights(
        configure=_exactly(own),
        write=_exactly([*own, *failed]),
        read=_any_of(*map(re.escape, sorted({*own, *sources})), *beside),
        # A failed message returns to its own queue, which is its routing key.
        keys={name: Keys(write=_exactly(own)) for name in failed}
        | {name: Keys(read=_exactly(keys)) for name, keys in sources.items()},
    )


ROTATE = r"^secret\.rotate$"

# Ops staff read every queue and put messages back through the default exchange.
_OPS = Rights(
    write=_exactly([DEFAULT_EXCHANGE, topology.COMMANDS]),
    read=_any_of(*(re.escape(queue.name) for queue in topology.QUEUES), topology.SHARDS),
)

RIGHTS: Mapping[str, Rights] = {
    "ingress": Rights(
        configure=_any_of(FEEDS),
        write=_any_of(
            topology.INTAKE,
            re.escape(topology.INTAKE_SHARDS.name),
            topology.JOURNAL.name,
            topology.COMMANDS,
            FEEDS,
        ),
        read=_any_of(topology.EVENTS, FEEDS),
        keys={
            topology.COMMANDS: Keys(write=ROTATE),
            topology.EVENTS: Keys(read=_exactly(topology.FEED_KEYS)),
        },
    ),
    "kyc": _consumer(topology.KYC_DECISIONS),
    "secrets": _consumer(topology.SECRETS_ISSUE, topology.SECRETS_ROTATE),
    "orders": _consumer(topology.ORDERS_INTAKE, beside=[topology.SHARDS]),
    "notifier": _consumer(
        topology.NOTIFIER_URGENT, topology.NOTIFIER_ORDERS, topology.NOTIFIER_BULK
    ),
    "audit": _consumer(topology.AUDIT),
    # It also publishes orders that the ingress wrote to the outbox.
    "relay": Rights(
        write=_exactly(
            [
                topology.EVENTS,
                topology.INTAKE,
                topology.INTAKE_SHARDS.name,
                topology.JOURNAL.name,
                topology.JOURNAL_OF_FACTS,
                topology.COMMANDS,
            ]
        ),
        keys={
            topology.EVENTS: Keys(write=ANYTHING),
            topology.COMMANDS: Keys(write=ROTATE),
        },
    ),
    "ops": _OPS,
    # The same rights; trusted to name persons: see delivery.py.
    "console": _OPS,
    "operator": Rights(
        write=_exactly([topology.COMMANDS]),
        keys={topology.COMMANDS: Keys(write=r"^kyc\.decide$")},
    ),
}


def definitions(
    passwords: Mapping[str, str],
    vhosts: Iterable[str] = ("/",),
    administrator: tuple[str, str] | None = None,
    operators: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Return users and rights as definitions (RabbitMQ, "Schema Definition Export and Import").

    They include the exchanges, since rights to keys refer to them.

    Args:
        passwords: by service, of the users to make or to give a new password.
        vhosts: the virtual hosts of the rights; made if missing.
        administrator: name and password of a user with all rights.
        operators: passwords by name, of persons with their own user.
    """
    places = list(vhosts)
    made: dict[str, Any] = {
        "vhosts": [{"name": vhost} for vhost in places],
        "users": [_user(login(name), passwords[name]) for name in RIGHTS if name in passwords],
        "permissions": [],
        # RabbitMQ 4.3 refuses rights to the keys of an exchange that does not exist.
        "exchanges": [_exchange(exchange, v) for v in places for exchange in topology.EXCHANGES],
        "topic_permissions": [],
    }
    if administrator is not None:
        name, password = administrator
        made["users"].append(_user(name, password, "administrator"))
        made["permissions"] += [_permission(name, v, ".*", ".*", ".*") for v in places]
    people = operators or {}
    made["users"] += [_user(name, password) for name, password in people.items()]
    allowed = {login(service): rights for service, rights in RIGHTS.items() if service in passwords}
    for user, rights in (allowed | dict.fromkeys(people, RIGHTS[OPERATOR])).items():
        made["permissions"] += [
            _permission(user, v, rights.configure, rights.write, rights.read) for v in places
        ]
        made["topic_permissions"] += [
            {"user": user, "vhost": v, "exchange": name, "write": keys.write, "read": keys.read}
            for v in places
            for name, keys in rights.keys.items()
        ]
    return made


def _permission(user: str, vhost: str, configure: str, write: str, read: str) -> dict[str, str]:
    return {"user": user, "vhost": vhost, "configure": configure, "write": write, "read": read}


def _exchange(exchange: topology.Exchange, vhost: str) -> dict[str, Any]:
    return {
        "name": exchange.name,
        "vhost": vhost,
        "type": exchange.kind,
        "durable": True,
        "auto_delete": False,
        "internal": False,
        "arguments": {},
    }


def _user(name: str, password: str, *tags: str) -> dict[str, Any]:
    # RabbitMQ, "Passwords": base64(salt + sha256(salt + password)) with a salt of four bytes.
    salt = secrets.token_bytes(4)
    hashed = salt + hashlib.sha256(salt + password.encode()).digest()
    return {
        "name": name,
        "password_hash": base64.b64encode(hashed).decode(),
        "hashing_algorithm": "rabbit_password_hashing_sha256",
        "tags": list(tags),
    }


def main() -> int:
    """Print the definitions; return the exit code, 2 for a bad configuration."""
    try:
        passwords = settings().passwords_of(RIGHTS)
        operators = settings().passwords_in("OPERATOR_PASSWORDS")
    except ConfigurationError as error:
        print(f"There are no definitions to make. {error}", file=sys.stderr)  # noqa: T201
        return 2
    print(json.dumps(definitions(passwords, operators=operators), indent=2))  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
