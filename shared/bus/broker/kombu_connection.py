"""Connections to the broker by kombu, with TLS that knows whom it talks to.

For `amqps://` kombu and py-amqp verify the certificate's chain and not its name, so that the
holder of any valid certificate could stand in between.
"""

import ssl
from typing import Any
from urllib.parse import unquote, urlsplit

from kombu import Connection


def connect(amqp_url: str, *, timeout: float, **options: Any) -> Connection:
    """A connection, not opened yet.

    Args:
        amqp_url: `amqp://` or, with TLS, `amqps://`: the certificate must be one that this
            machine trusts, for the host of the URL (RFC 6125).
        timeout: seconds, for connecting.
        **options: of kombu's `Connection`.
    """
    parts = urlsplit(amqp_url)
    if parts.scheme == "amqps":
        options["ssl"] = {"server_hostname": parts.hostname, "cert_reqs": ssl.CERT_REQUIRED}
    return Connection(amqp_url, connect_timeout=timeout, **options)


def server_version(connection: Connection) -> str:
    """The version that the broker says it is of, such as `4.3.6`; of an open connection."""
    return str(connection.connection.server_properties.get("version"))


def user_of(connection: Connection) -> str:
    """Who a connection signs in as; what it publishes may bear this `user_id` and no other."""
    return credentials(connection.as_uri(include_password=True))[0]


def credentials(amqp_url: str) -> tuple[str, str]:
    """The user and the password that an AMQP URL signs in with; `guest` where it names none."""
    parts = urlsplit(amqp_url)
    return unquote(parts.username or "guest"), unquote(parts.password or "guest")
