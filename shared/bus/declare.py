"""`python -m shared.bus.declare`: make users, rights and topology; a step of each deployment."""

import base64
import json
import sys
import time
import urllib.error
import urllib.request
from typing import Any

from amqp.exceptions import AMQPError, RecoverableConnectionError
from kombu.exceptions import KombuError

from shared import versions
from shared.bus.broker import declaration
from shared.bus.broker.addresses import credentials
from shared.bus.broker.kombu_connection import BrokerConnection, connect, server_version
from shared.bus.broker.refusal import explain
from shared.bus.contract import permissions
from shared.config.environment import ConfigurationError
from shared.config.loading import begin
from shared.config.settings import Settings
from shared.http import direct

PAUSES = (1, 3, 5, 5, 5, 5, 5, 5, 5, 5)
"""Seconds between attempts to connect, while the broker starts."""
BODY_BYTES = 2000
"""How much of an error's body is printed; the broker gives its reasons there."""


def main() -> int:
    """Declare the topology on the broker of `AMQP_URL`, and make the services' users.

    The users of `SERVICE_PASSWORDS` and `OPERATOR_PASSWORDS` are made through
    `RABBITMQ_MANAGEMENT_URL`; without that address users are left unchanged.

    Returns:
        The exit code: 2 for a bad configuration, 1 if the broker refuses.
    """
    try:
        config = begin("topology")
        passwords = config.passwords_of(permissions.RIGHTS)
        operators = config.passwords_in("OPERATOR_PASSWORDS")
    except ConfigurationError as error:
        return _say(2, str(error))
    try:
        if config.rabbitmq_management_url:
            _import(config, permissions.definitions(passwords, operators=operators))
        with _open(config.amqp_url) as connection:
            untried = versions.warning("RabbitMQ", server_version(connection))
            if untried:
                print(untried, file=sys.stderr)  # noqa: T201
            declaration.declare(connection, config.intake_shards)
            left = declaration.retire(connection, config.intake_shards)
    except urllib.error.HTTPError as error:
        said = " ".join(error.read(BODY_BYTES).decode(errors="replace").split())
        return _say(1, f"{error.url} answered {error.code} {error.reason}: {said}")
    except OSError as error:
        return _say(1, f"{type(error).__name__}: {error}")
    except (AMQPError, KombuError) as error:
        return _say(1, explain(error).sentence)
    if left:
        print(  # noqa: T201
            f"INTAKE_SHARDS is {config.intake_shards}, and {', '.join(left)} are there: nothing "
            "comes into them any more, and recorders empty them. How they go: docs/deploying.md",
            file=sys.stderr,
        )
    print("The broker has every queue, exchange and right, and the services' users.")  # noqa: T201
    return 0


def _open(amqp_url: str) -> BrokerConnection:
    for pause in PAUSES:
        try:
            return connect(amqp_url, timeout=10)
        except (OSError, RecoverableConnectionError):
            time.sleep(pause)
    return connect(amqp_url, timeout=10)


def _import(config: Settings, definitions: dict[str, Any]) -> None:
    """POST /api/definitions (RabbitMQ, "HTTP API Reference") adds and updates, and removes nothing.

    Raises:
        urllib.error.HTTPError: the broker refuses.
        OSError: it does not answer.
    """
    user, password = credentials(config.amqp_url)
    basic = base64.b64encode(f"{user}:{password}".encode()).decode()
    request = urllib.request.Request(  # noqa: S310 - the scheme is checked with the settings
        f"{config.rabbitmq_management_url.rstrip('/')}/api/definitions",
        data=json.dumps(definitions).encode(),
        headers={"Authorization": f"Basic {basic}", "Content-Type": "application/json"},
    )
    with direct.ask(request, seconds=30):
        return


def _say(code: int, sentence: str) -> int:
    print(f"The topology cannot be declared. {sentence}", file=sys.stderr)  # noqa: T201
    return code


if __name__ == "__main__":
    sys.exit(main())
