"""Each service signs in as itself, in development as in production.

Nothing is stored: a service's password is derived from its server's own.
"""

import base64
import hashlib
import hmac
import json
import zlib
from collections.abc import Sequence
from urllib.parse import urlsplit

from shared.bus.contract import permissions
from shared.security.service_accounts import BROKER_USERS, CONSOLE, login


def as_service(url: str, service: str) -> str:
    """The address of a server for a service, made from the address for its administrator.

    Args:
        url: of a broker's nodes, several separated by `;`.
        service: which.
    """
    return ";".join(_as_service(node, service) for node in url.split(";"))


def broker_user(process: str) -> str:
    """Which of `BROKER_USERS` a process signs in to the broker as; `ops` is the console."""
    return CONSOLE if process == "ops" else process


def passwords(url: str) -> dict[str, str]:
    """Every service's password on the server at `url`, given with its administrator's."""
    return {service: _password(url, service) for service in BROKER_USERS}


def service_passwords(url: str) -> str:
    """The same, in the form of `SERVICE_PASSWORDS`."""
    return ",".join(f"{name}={password}" for name, password in passwords(url).items())


def admission(url: str, vhosts: Sequence[str]) -> str:
    """The Erlang expression, for a broker's `evaluate`, that makes users and virtual hosts.

    Args:
        url: of the broker, with its administrator, who may do everything everywhere.
        vhosts: to make, where they are not there.
    """
    parts = urlsplit(url)
    made = permissions.definitions(
        passwords(url), vhosts, (str(parts.username), str(parts.password))
    )
    # Compressed: in a container it is an argument, of 128 KiB at most (execve(2)).
    encoded = base64.b64encode(zlib.compress(json.dumps(made).encode())).decode()
    read = f'Made = zlib:uncompress(base64:decode(<<"{encoded}">>))'
    return f"{read}, ok = rabbit_definitions:import_raw(Made)"


def _as_service(url: str, service: str) -> str:
    host = urlsplit(url).netloc.rpartition("@")[2]
    return url.replace(
        urlsplit(url).netloc, f"{login(service)}:{_password(url, service)}@{host}", 1
    )


def _password(url: str, service: str) -> str:
    key = (urlsplit(url).password or "").encode()
    if not key:
        raise ValueError("a server without a password has none to derive others from")
    return hmac.new(key, service.encode(), hashlib.sha256).hexdigest()[:32]
