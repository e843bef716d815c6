"""What production refuses: keys that can be guessed or are used twice, connections in the clear,
links that nobody else can open.

Each complaint names the setting and says what to do.
"""

import base64
import binascii
import ipaddress
import re
import socket
from collections import Counter
from collections.abc import Collection, Iterator
from itertools import pairwise
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import msgspec
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from shared.config.environment import ConfigurationError, addresses
from shared.config.processes import KEYS
from shared.validation.words import shortened

if TYPE_CHECKING:
    from shared.config.settings import Settings

SHORTEST_KEY = 32  # RFC 7518, 3.2: no shorter than the hash's output, which is 32 bytes for HS256
SHORTEST_PASSWORD = 12
LINKS = ("PUBLIC_URL", "TRACKING_URL")
"""What begins links in emails, on pages and in documents: whoever reads those opens them."""
_FEWEST_DIFFERENT = 8
_WORDS = (
    b"changeme",
    b"change-me",
    b"change_me",
    b"default",
    b"development",
    b"example",
    b"password",
    b"qwerty",
    b"replace",
    b"secret",
)
_ENCRYPTED = frozenset({"require", "verify-ca", "verify-full"})  # libpq, "SSL Mode Descriptions"


def complaints(settings: "Settings", reads: Collection[str]) -> Iterator[str]:
    """Why a process may not start in production, a sentence each.

    Args:
        settings: all of them.
        reads: the names of those that the process reads; no other is looked at.
    """
    yield from _weak_keys(settings, reads)
    yield from _used_twice(settings, reads)
    yield from _given_passwords(settings, reads)
    if "DATABASE_URL" in reads and "sslmode=" not in settings.database_url:
        yield (
            "DATABASE_URL does not say how it is protected: end it with ?sslmode=verify-full, or "
            "with ?sslmode=disable where nobody else is on the network to the database"
        )
    if "AMQP_URL" in reads and "guest:guest@" in settings.amqp_url:
        yield "AMQP_URL signs in as guest: give the service its own user"
    yield from _in_the_clear(settings, reads)
    yield from _links_to_nowhere(settings, reads)
    if "EMAIL_FROM" in reads and _is_default(settings, "EMAIL_FROM"):
        named = _named_hosts(settings)
        # A mailbox on one's own network, for trying it out, keeps whatever comes.
        if not _is_this_machine(settings.smtp_host) and settings.smtp_host.lower() not in named:
            yield (
                "EMAIL_FROM is not set, and no server delivers what comes from a domain that does "
                "not exist: say from whom emails are, such as Order Fellow <orders@yours.example>"
            )
    if "ALERT_WEBHOOK_URL" in reads and settings.alert_webhook_url.startswith("http://"):
        # Wherever it is: whoever reads its path can write there.
        yield "ALERT_WEBHOOK_URL is not encrypted: it must begin with https://"
    # Of what everybody reaches; the console is for a network of one's own.
    is_direct = settings.clients_connect_directly or "CLIENTS_CONNECT_DIRECTLY" not in reads
    if not settings.trusted_proxies and not is_direct:
        yield (
            "TRUSTED_PROXIES is 0, so all who come through a proxy are one client, whom strangers' "
            "guesses hold up: say how many proxies add to X-Forwarded-For, or "
            "CLIENTS_CONNECT_DIRECTLY=true where none stands in front"
        )
    for name in reads:
        if name.startswith("RETENTION_") and not getattr(settings, name.lower()):
            yield f"{name} is 0, for ever: say after how many days that ends"


def weakness(key: str) -> str | None:
    """Why a key can be guessed; None when nothing speaks for it.

    What is found is what people type and copy, not every key with too little chance in it.
    """
    if len(key) < SHORTEST_KEY:
        return f"is shorter than {SHORTEST_KEY} characters"
    for raw in {key.encode(), _material(key)}:
        if len(set(raw)) < _FEWEST_DIFFERENT:
            return f"has fewer than {_FEWEST_DIFFERENT} different characters"
        if any(raw[:-period] == raw[period:] for period in range(1, len(raw) // 2 + 1)):
            return "repeats itself"
        steps = Counter((b - a) % 256 for a, b in pairwise(raw))
        if steps.most_common(1)[0][1] > len(raw) // 2:
            return "counts up or down"
        if any(word in raw.lower() for word in _WORDS) or re.fullmatch(rb"[a-z\s.,_-]+", raw):
            return "is made of words"
    return None


def _is_default(settings: "Settings", name: str) -> bool:
    fields = msgspec.structs.fields(type(settings))
    (default,) = (field.default for field in fields if field.encode_name == name)
    return bool(getattr(settings, name.lower()) == default)


def _named_hosts(settings: "Settings") -> set[str]:
    return {host.strip().lower() for host in settings.unprotected_hosts.split(",")}


def _weak_keys(settings: "Settings", reads: Collection[str]) -> Iterator[str]:
    known = {field.encode_name: field.default for field in msgspec.structs.fields(type(settings))}
    for name in KEYS:
        if name not in reads:
            continue
        for key in settings.listed(name):
            found = "is the development key" if key == known[name] else weakness(key)
            if found:
                yield (
                    f"{name}: a key in it {found}: make one with `fellow keys generate` and set it "
                    "before starting in production"
                )


def _used_twice(settings: "Settings", reads: Collection[str]) -> Iterator[str]:
    """One key for two uses gives each of them the other's holders, and its faults."""
    used: dict[bytes, str] = {}
    named = [(name, key) for name in KEYS if name in reads for key in settings.listed(name)]
    named += _server_passwords(settings, reads)
    if "SMTP_PASSWORD" in reads and settings.smtp_password:
        named.append(("SMTP_PASSWORD", settings.smtp_password))
    for name, value in named:
        before = used.setdefault(_material(value), name)
        if before == name and name in KEYS and sum(one == (name, value) for one in named) > 1:
            yield f"{name} lists one key twice: take one out, and make another to rotate to"
        # A service has one password, on both of its servers.
        elif before != name and {before, name} != {"AMQP_URL", "DATABASE_URL"}:
            yield f"{before} and {name} hold the same key: make another for one of them"


def _given_passwords(settings: "Settings", reads: Collection[str]) -> Iterator[str]:
    owners = {
        password: f"the administrator of {url}"
        for url, password in _server_passwords(settings, reads)
    }
    for setting in ("SERVICE_PASSWORDS", "OPERATOR_PASSWORDS"):
        try:
            given = settings.passwords_in(setting) if setting in reads else {}
        except ConfigurationError:
            continue  # which is said everywhere, not only in production
        for name, password in given.items():
            other = owners.setdefault(password, name)
            if other != name:
                yield f"{setting}: {other} and {name} share a password: give each its own"
            if len(password) < SHORTEST_PASSWORD or len(set(password)) < _FEWEST_DIFFERENT:
                yield (
                    f"{setting}: the password of {name} is weak: give it "
                    f"{SHORTEST_PASSWORD} random characters or more"
                )


def _server_passwords(settings: "Settings", reads: Collection[str]) -> list[tuple[str, str]]:
    # All of the broker's addresses have one.
    urls = {"AMQP_URL": addresses(settings.amqp_url)[0], "DATABASE_URL": settings.database_url}
    found = [(name, urlsplit(url).password) for name, url in urls.items() if name in reads]
    return [(name, unquote(password)) for name, password in found if password]


def _in_the_clear(settings: "Settings", reads: Collection[str]) -> Iterator[str]:
    named = _named_hosts(settings)
    for setting, host, cure in _open_connections(settings, reads):
        if not _is_this_machine(host) and host.lower() not in named:
            yield (
                f"{setting} speaks to {host} without TLS: {cure}, or name {host} in "
                "UNPROTECTED_HOSTS where nobody else is on the network to it"
            )


def _open_connections(
    settings: "Settings", reads: Collection[str]
) -> Iterator[tuple[str, str, str]]:
    """Setting, host and cure of each connection that is not encrypted."""
    if "AMQP_URL" in reads:
        for url in addresses(settings.amqp_url):
            parts = urlsplit(url)
            if parts.scheme != "amqps":
                yield "AMQP_URL", parts.hostname or "", "use amqps://"
    if "DATABASE_URL" in reads:
        yield from (
            ("DATABASE_URL", host, "end it with ?sslmode=verify-full")
            for host in _database_hosts(settings.database_url)
        )
    if "SMTP_HOST" in reads and not settings.smtp_starttls:
        yield "SMTP_HOST", settings.smtp_host, "set SMTP_STARTTLS=true"
    for name in ("RABBITMQ_MANAGEMENT_URL", "PROOF_URL", "PORTAL_API_URL"):
        parts = urlsplit(getattr(settings, name.lower()))
        if name in reads and parts.scheme == "http":
            yield name, parts.hostname or "", "use https://"


def _links_to_nowhere(settings: "Settings", reads: Collection[str]) -> Iterator[str]:
    for name in LINKS:
        url: str = getattr(settings, name.lower())
        if name in reads and url and not _is_for_others(url):
            yield (
                f"{name} is the beginning of links that others open: it must begin with https:// "
                f"and name a host that they reach, not {shortened(url)}"
            )


def _is_for_others(url: str) -> bool:
    parts = urlsplit(url)
    host = (parts.hostname or "").rstrip(".")
    # RFC 6761, 6.3: every name under localhost is this machine.
    if parts.scheme != "https" or _is_this_machine(host) or host.endswith(".localhost"):
        return False
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        try:  # browsers read 127.1 and 0x7f000001 as inet_aton(3) does (WHATWG URL, 3.5)
            address = ipaddress.ip_address(socket.inet_aton(host))
        except OSError:
            return True
    address = getattr(address, "ipv4_mapped", None) or address
    return not (address.is_loopback or address.is_unspecified or address.is_link_local)


def _database_hosts(database_url: str) -> list[str]:
    """The hosts of a PostgreSQL URL that are not spoken to by TLS for sure."""
    try:
        url = make_url(database_url)
    except ArgumentError:
        return []  # nothing connects by it
    query = {name: (v,) if isinstance(v, str) else v for name, v in url.query.items()}
    if query.get("sslmode", ("",))[-1] in _ENCRYPTED:
        return []
    hosts = [url.host or "", *query.get("host", ()), *query.get("hostaddr", ())]
    places = [place for given in hosts for place in given.split(",")]
    return [place.rpartition(":")[0] if place.count(":") == 1 else place for place in places]


def _is_this_machine(host: str) -> bool:
    if host in ("", "localhost") or host.startswith("/"):  # a socket of this machine
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _material(key: str) -> bytes:
    """The bytes of a key, however it is written."""
    try:
        standard = key.replace("-", "+").replace("_", "/")
        return base64.b64decode(standard + "=" * (-len(standard) % 4), validate=True)
    except (binascii.Error, ValueError):
        return key.encode()
