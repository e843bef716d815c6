"""Connections to the broker by kombu, with full TLS verification.

For `amqps://` kombu and py-amqp verify the certificate's chain but not its host name, so any valid
certificate would do for a man in the middle. kombu's own failover is not used: it loses that host
name, tries one address twice, and does not share what it learns with other connections.
"""

import ssl
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

from amqp.exceptions import AMQPError
from kombu import Connection
from kombu.exceptions import KombuError

from shared.bus.broker import addresses
from shared.bus.broker.addresses import Addresses
from shared.bus.broker.refusal import explain

FAILURES = (AMQPError, KombuError, OSError)
"""Exceptions of the broker and of the network to it."""


class NoBrokerError(ConnectionError):
    """No address answers; the message has the reason of each."""


class BrokerConnection(Connection):
    """A connection to one address; as a context manager it leaves that address if it fails.

    Args:
        url: the address.
        among: the list that the address is from.
        **options: of kombu's `Connection`.
    """

    def __init__(self, url: str, among: Addresses, **options: Any) -> None:
        super().__init__(url, **options)
        self._url = url
        self._among = among

    @property
    def place(self) -> str:
        """Its address, `host:port`."""
        return addresses.place(self._url)

    def leave(self) -> None:
        """Make later connections begin with the next address."""
        self._among.leave(self._url)

    def __exit__(
        self, _: type[BaseException] | None, error: BaseException | None, __: TracebackType | None
    ) -> None:
        if isinstance(error, FAILURES):
            self.leave()
        self.release()


def connect(
    amqp_url: str, *, timeout: float, tries: int | None = None, **options: Any
) -> BrokerConnection:
    """Open a connection at the first address that accepts it; each is tried once.

    Args:
        amqp_url: addresses, separated by `;`, `amqp://` or, with TLS, `amqps://`: the certificate
            must be one that this machine trusts, for the host of the address (RFC 6125).
        timeout: seconds, for connecting and for each answer.
        tries: how many addresses to try; all when not given.
        **options: of kombu's `Connection`.

    Raises:
        NoBrokerError: none of several addresses is reachable.
        Exception: of kombu, py-amqp or the system, if there is one address, or one refuses us.
    """
    among = addresses.of(amqp_url)
    failed: list[tuple[str, Exception]] = []
    for url in among.round()[:tries]:
        try:
            return _open(url, among, timeout, options)
        except FAILURES as error:
            among.leave(url)
            failed.append((addresses.place(url), error))
    # A refusal has to be acted on, so it is raised rather than an unreachable address.
    failed.sort(key=lambda one: not explain(one[1]).is_refusal)
    if len(failed) == 1 or explain(failed[0][1]).is_refusal:
        raise failed[0][1]
    raise NoBrokerError("; ".join(f"{at}: {explain(error).sentence}" for at, error in failed))


def server_version(connection: Connection) -> str:
    """Return the broker's version, such as `4.3.6`, of an open connection."""
    return str(connection.connection.server_properties.get("version"))


def user_of(connection: Connection) -> str:
    """Return the user of a connection, the only `user_id` that its messages may have."""
    return addresses.credentials(connection.as_uri(include_password=True))[0]


def _open(url: str, among: Addresses, timeout: float, options: dict[str, Any]) -> BrokerConnection:
    parts = urlsplit(url)
    if parts.scheme == "amqps":
        tls = {"server_hostname": parts.hostname, "cert_reqs": ssl.CERT_REQUIRED}
        options = options | {"ssl": tls}
    connection = BrokerConnection(url, among, connect_timeout=timeout, **options)
    # Once: by default it retries after two seconds.
    connection.ensure_connection(max_retries=0, reraise_as_library_errors=False)
    return connection
