"""Who may do what on the broker: a user for each service, and no more rights than its work needs.

`python -m shared.bus.declare` makes them, over the management API. Where there is none,
`python -m shared.bus.contract.permissions` prints them as RabbitMQ definitions, with the passwords
of `SERVICE_PASSWORDS`, for `rabbitmqctl import_definitions`.

What each operation needs (RabbitMQ, "Access Control"): declaring is *configure*; publishing is
*write* on the exchange; consuming is *read* on the queue; binding is *write* on the queue and
*read* on the exchange. On a topic exchange the key is checked too, which is why all of ours where
the key matters are of that kind. A passive declare needed nothing before 4.2.6 and 4.3.0; since
then it needs one of the three, whichever (in just these two *configure*), so nobody looks at what
is none of their business.
"""

import base64
import hashlib
import json
import re
import secrets
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from shared.bus.contract import topology
from shared.config.environment import ConfigurationError
from shared.config.loading import settings
from shared.security.service_accounts import OPERATOR, login

NOTHING, ANYTHING = "^$", ".*"
DEFAULT_EXCHANGE = "amq.default"
FEEDS = r"ingress\.secrets\..*"  # a queue of its own for each ingress worker


@dataclass(frozen=True, slots=True)
class Keys:
    """Regular expressions for the routing keys of one topic exchange.

    Attributes:
        write: those to publish with.
        read: those to bind with.
    """

    write: str = NOTHING
    read: str = NOTHING


@dataclass(frozen=True, slots=True)
class Rights:
    """Of one user, in one virtual host; each a regular expression over names.

    Attributes:
        configure: what may be declared and deleted.
        write: what may be published to, or bound.
        read: what may be consumed, or bound to.
        keys: by exchange; on one that is not named here every key is allowed.
    """

    configure: str = NOTHING
    write: str = NOTHING
    read: str = NOTHING
    keys: Mapping[str, Keys] = field(default_factory=dict)


def _any_of(*expressions: str) -> str:
    return f"^({'|'.join(expressions)})$"


def _exactly(names: Iterable[str]) -> str:
    return _any_of(*(re.escape(name) for name in sorted(set(names))))


def _consumer(*queues: topology.Queue) -> Rights:
    """Keeps its own queues declared, consumes them, and puts what failed on the ladder."""
    own = [queue.name for queue in queues]
    failed = [topology.DEAD, *(rung.name for rung in topology.RETRY_LADDER)]
    sources: dict[str, list[str]] = {}
    for queue in queues:
        for binding in queue.bindings:
            sources.setdefault(binding.exchange, []).append(binding.key)
    return Rights(
        configure=_exactly(own),
        write=_exactly([*own, *failed]),
        read=_exactly([*own, *sources]),
        # A failed message goes back to its own queue: the key names it.
        keys={name: Keys(write=_exactly(own)) for name in failed}
        | {name: Keys(read=_exactly(keys)) for name, keys in sources.items()},
    )


ROTATE = r"^secret\.rotate$"

# Ops staff look at every queue and put messages back, by the default exchange.
_OPS = Rights(
    write=_exactly([DEFAULT_EXCHANGE, topology.COMMANDS]),
    read=_exactly(queue.name for queue in topology.QUEUES),
)

RIGHTS: Mapping[str, Rights] = {
    "ingress": Rights(
        configure=_any_of(FEEDS),
        write=_any_of(topology.INTAKE, topology.JOURNAL.name, topology.COMMANDS, FEEDS),
        read=_any_of(topology.EVENTS, FEEDS),
        keys={
            topology.COMMANDS: Keys(write=ROTATE),
            topology.EVENTS: Keys(read=_exactly(topology.FEED_KEYS)),
        },
    ),
    "kyc": _consumer(topology.KYC_DECISIONS),
    "secrets": _consumer(topology.SECRETS_ISSUE, topology.SECRETS_ROTATE),
    "orders": _consumer(topology.ORDERS_INTAKE),
    "notifier": _consumer(
        topology.NOTIFIER_URGENT, topology.NOTIFIER_ORDERS, topology.NOTIFIER_BULK
    ),
    "audit": _consumer(topology.AUDIT),
    # It also publishes what the ingress left in the outbox while the broker was away.
    "relay": Rights(
        write=_exactly(
            [
                topology.EVENTS,
                topology.INTAKE,
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
    # The same, and believed of persons: see delivery.py.
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
    """RabbitMQ definitions (RabbitMQ, "Schema Definition Export and Import") of users and rights.

    The exchanges stand among them, since there are rights on their keys.

    Args:
        passwords: by service; a user is made, or gets a new password, for those that are named.
        vhosts: where the users have their rights; made where they are not there.
        operators: passwords by name, of those who have a user of their own.
        administrator: name and password of a user who may do everything there.
    """
    places = list(vhosts)
    made: dict[str, Any] = {
        "vhosts": [{"name": vhost} for vhost in places],
        "users": [_user(login(name), passwords[name]) for name in RIGHTS if name in passwords],
        "permissions": [],
        # RabbitMQ 4.3 refuses a right on the keys of an exchange that is not there.
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
    """Print the definitions; returns the exit code, 2 for a bad configuration."""
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
