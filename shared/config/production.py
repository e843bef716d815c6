"""Checks for production: no guessable or reused keys, unencrypted connections or local-only links.

Each fault names the setting and says what to do.
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
from shared.security.networks import is_this_machine
from shared.validation.phrases import shortened

if TYPE_CHECKING:
    from shared.config.settings import Settings

SHORTEST_KEY = 32  # RFC 7518, 3.2: no shorter than the hash's output, which is 32 bytes for HS256
SHORTEST_PASSWORD = 12
LINKS = ("PUBLIC_URL", "TRACKING_URL")
"""Prefixes of links in emails, on pages and in documents, which readers open."""
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


def production_faults(settings: "Settings", reads: Collection[str]) -> Iterator[str]:
    """Yield the reasons why a process may not start in production, a sentence each.

    Args:
        settings: all settings.
        reads: the names of those that the process reads; others are not checked.
    """
    yield from _weak_keys(settings, reads)
    yield from _used_twice(settings, reads)
    yield from _given_passwords(settings, reads)
    if "DATABASE_URL" in reads and "sslmode=" not in settings.database_url:
        yield (
            "DATABASE_URL does not say how it is protected: end it with ?sslmode=verify-full, or "
            "with ?sslmode=disable on a private network to the database"
        )
    if "AMQP_URL" in reads and "guest:guest@" in settings.amqp_url:
        yield "AMQP_URL signs in as guest: give the service its own user"
    yield from _in_the_clear(settings, reads)
    yield from _links_to_nowhere(settings, reads)
    if "EMAIL_FROM" in reads and _is_default(settings, "EMAIL_FROM"):
        named = _named_hosts(settings)
        # A test mailbox on the private network accepts any sender.
        if not is_this_machine(settings.smtp_host) and settings.smtp_host.lower() not in named:
            yield (
                "EMAIL_FROM is not set, and mail servers refuse a sender whose domain does not "
                "exist: set the sender of emails, such as Order Fellow <orders@yours.example>"
            )
    if "ALERT_WEBHOOK_URL" in reads and settings.alert_webhook_url.startswith("http://"):
        # On any host, because its path is a secret.
        yield "ALERT_WEBHOOK_URL is not encrypted: it must begin with https://"
    # Only for public services; the console is for a private network.
    is_direct = settings.clients_connect_directly or "CLIENTS_CONNECT_DIRECTLY" not in reads
    if not settings.trusted_proxies and not is_direct:
        yield (
            "TRUSTED_PROXIES is 0, so all clients behind a proxy share the limits of one: set how "
            "many proxies add to X-Forwarded-For, or CLIENTS_CONNECT_DIRECTLY=true if there is no "
            "proxy"
        )
    for name in reads:
        if name.startswith("RETENTION_") and not getattr(settings, name.lower()):
            yield f"{name} is 0, so nothing is removed: set the number of days"


def weakness(key: str) -> str | None:
    """Return why a key can be guessed; None if no weakness was found.

    It finds keys that people type or copy, not all keys with too little entropy.
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
    """Yield faults of keys with two uses: whoever holds the key for one use has it for both."""
    used: dict[bytes, str] = {}
    named = [(name, key) for name in KEYS if name in reads for key in settings.listed(name)]
    named += _server_passwords(settings, reads)
    if "SMTP_PASSWORD" in reads and settings.smtp_password:
        named.append(("SMTP_PASSWORD", settings.smtp_password))
    for name, value in named:
        before = used.setdefault(_material(value), name)
        if before == name and name in KEYS and named.count((name, value)) > 1:
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
            passwords = settings.passwords_in(setting) if setting in reads else {}
        except ConfigurationError:
            continue  # reported in every environment
        for name, password in passwords.items():
            other = owners.setdefault(password, name)
            if other != name:
                yield f"{setting}: {other} and {name} share a password: give each its own"
            if len(password) < SHORTEST_PASSWORD or len(set(password)) < _FEWEST_DIFFERENT:
                yield (
                    f"{setting}: the password of {name} is weak: give it "
                    f"{SHORTEST_PASSWORD} random characters or more"
                )


def _server_passwords(settings: "Settings", reads: Collection[str]) -> list[tuple[str, str]]:
    # All URLs of the broker have the same password.
    urls = {"AMQP_URL": addresses(settings.amqp_url)[0], "DATABASE_URL": settings.database_url}
    found = [(name, urlsplit(url).password) for name, url in urls.items() if name in reads]
    return [(name, unquote(password)) for name, password in found if password]


def _in_the_clear(settings: "Settings", reads: Collection[str]) -> Iterator[str]:
    named = _named_hosts(settings)
    for setting, host, remedy in _open_connections(settings, reads):
        if not is_this_machine(host) and host.lower() not in named:
            yield (
                f"{setting} speaks to {host} without TLS: {remedy}, or name {host} in "
                "UNPROTECTED_HOSTS if the network to it is private"
            )


def _open_connections(
    settings: "Settings", reads: Collection[str]
) -> Iterator[tuple[str, str, str]]:
    """Yield setting, host and remedy of each unencrypted connection."""
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
                f"{name} is the prefix of links that others open: it must begin with https:// and "
                f"name a host that they can reach, not {shortened(url)}"
            )


def _is_for_others(url: str) -> bool:
    parts = urlsplit(url)
    host = (parts.hostname or "").rstrip(".")
    # Names under localhost are this machine (RFC 6761, 6.3).
    if parts.scheme != "https" or is_this_machine(host) or host.endswith(".localhost"):
        return False
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        try:  # browsers parse 127.1 and 0x7f000001 like inet_aton(3) (WHATWG URL, 3.5)
            address = ipaddress.ip_address(socket.inet_aton(host))
        except OSError:
            return True
    address = getattr(address, "ipv4_mapped", None) or address
    return not (address.is_loopback or address.is_unspecified or address.is_link_local)


def _database_hosts(database_url: str) -> list[str]:
    """Return the hosts of a PostgreSQL URL that does not require TLS."""
    try:
        url = make_url(database_url)
    except ArgumentError:
        return []  # nothing can connect by it
    query = {name: (v,) if isinstance(v, str) else v for name, v in url.query.items()}
    if query.get("sslmode", ("",))[-1] in _ENCRYPTED:
        return []
    hosts = [url.host or "", *query.get("host", ()), *query.get("hostaddr", ())]
    places = [place for listed in hosts for place in listed.split(",")]
    return [place.rpartition(":")[0] if place.count(":") == 1 else place for place in places]


def _material(key: str) -> bytes:
    """Return the bytes of a key, decoded if it is base64 in either alphabet."""
    try:
        standard = key.replace("-", "+").replace("_", "/")
        return base64.b64decode(standard + "=" * (-len(standard) % 4), validate=True)
    except (binascii.Error, ValueError):
        return key.encode()
