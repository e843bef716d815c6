"""Connections to the broker by kombu, with TLS that knows whom it talks to.

For `amqps://` kombu and py-amqp verify the certificate's chain and not its name, so that the
holder of any valid certificate could stand in between. Nor is kombu's own way from one address to
the next used: it forgets that name, tries one address twice, and knows of no other connection.
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
"""What the broker and the network to it raise."""


class NoBrokerError(ConnectionError):
    """No address answers; the message says of each why."""


class BrokerConnection(Connection):
    """A connection to one address. As a context manager it leaves that one if it fails there.

    Args:
        url: the address.
        among: the addresses that it is one of.
        **options: of kombu's `Connection`.
    """

    def __init__(self, url: str, among: Addresses, **options: Any) -> None:
        super().__init__(url, **options)
        self._url = url
        self._among = among

    @property
    def place(self) -> str:
        """Where it is, `host:port`."""
        return addresses.place(self._url)

    def leave(self) -> None:
        """Have the next connection begin with another address, where there is one."""
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
    """Open a connection at the first address that lets us in; each is tried once.

    Args:
        amqp_url: addresses, separated by `;`, `amqp://` or, with TLS, `amqps://`: the certificate
            must be one that this machine trusts, for the host of the address (RFC 6125).
        timeout: seconds, for reaching one, and again for each of its answers.
        tries: how many addresses to try; all when not given.
        **options: of kombu's `Connection`.

    Raises:
        NoBrokerError: none of several is there.
        Exception: of kombu, py-amqp or the system, where there is one address, or one refuses us.
    """
    among = addresses.of(amqp_url)
    failed: list[tuple[str, Exception]] = []
    for url in among.round()[:tries]:
        try:
            return _open(url, among, timeout, options)
        except FAILURES as error:
            among.leave(url)
            failed.append((addresses.place(url), error))
    # Of one that refuses us somebody has to know, before one that is away.
    failed.sort(key=lambda one: not explain(one[1]).is_refusal)
    if len(failed) == 1 or explain(failed[0][1]).is_refusal:
        raise failed[0][1]
    raise NoBrokerError("; ".join(f"{at}: {explain(error).sentence}" for at, error in failed))


def server_version(connection: Connection) -> str:
    """The version that the broker says it is of, such as `4.3.6`; of an open connection."""
    return str(connection.connection.server_properties.get("version"))


def user_of(connection: Connection) -> str:
    """Who a connection signs in as; what it publishes may bear this `user_id` and no other."""
    return addresses.credentials(connection.as_uri(include_password=True))[0]


def _open(url: str, among: Addresses, timeout: float, options: dict[str, Any]) -> BrokerConnection:
    parts = urlsplit(url)
    if parts.scheme == "amqps":
        tls = {"server_hostname": parts.hostname, "cert_reqs": ssl.CERT_REQUIRED}
        options = options | {"ssl": tls}
    connection = BrokerConnection(url, among, connect_timeout=timeout, **options)
    # Once: its default is to try the same again after two seconds.
    connection.ensure_connection(max_retries=0, reraise_as_library_errors=False)
    return connection
