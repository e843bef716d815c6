"""Parses and compares IP addresses and networks."""

import ipaddress
from collections.abc import Iterable
from contextlib import suppress
from functools import lru_cache

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_MAPPED = ipaddress.IPv6Network("::ffff:0:0/96")  # RFC 4291, 2.5.5.2


class NetworkError(ValueError):
    """A text is not a network; the message suggests a correction."""


def parse(text: str) -> Network:
    """Parse a network in CIDR notation (RFC 4632); a single address is a network of one.

    Raises:
        NetworkError: it is not a network, has host bits set, or is IPv4 written as IPv6.
    """
    text = text.strip()
    try:
        found = ipaddress.ip_network(text)
    except ValueError:
        try:
            likely = ipaddress.ip_network(text, strict=False)
        except ValueError:
            raise NetworkError(
                f"{text!r:.60} is not a network: write it like 203.0.113.0/24 or 2001:db8::/32"
            ) from None
        raise NetworkError(
            f"{text} has bits set behind its prefix: write {likely}, or an address without a prefix"
        ) from None
    if isinstance(found, ipaddress.IPv6Network) and found.subnet_of(_MAPPED):
        raise NetworkError(f"{text} is IPv4 written as IPv6: write it as IPv4")
    return found


def valid_networks(texts: Iterable[str]) -> list[Network]:
    """Return the valid networks of stored texts, some of which may have been edited by hand.

    An invalid text matches no address. Callers must test whether `texts` is empty, not the result.
    """
    found = []
    for text in texts:
        with suppress(NetworkError):
            found.append(parse(text))
    return found


def is_within(address: str, networks: Iterable[Network]) -> bool:
    """Return whether an address is in one of the networks; False for other text.

    An IPv4-mapped IPv6 address counts as the IPv4 address.
    """
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    mapped = getattr(found, "ipv4_mapped", None) or found
    return any(mapped in network for network in networks)


def is_this_machine(host: str) -> bool:
    """Return whether the host of a URL is this machine, without resolving names.

    An empty host is, and so is a path, the name of a local socket.
    """
    if host in ("", "localhost") or host.startswith("/"):
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


@lru_cache(maxsize=1_000)
def network_of(address: str) -> str:
    """Return the network by which a client is counted.

    An IPv4 address, or the /64 of an IPv6 address, which one subscriber has (RFC 6177, 2). A port
    written by a proxy is ignored. Other text is returned unmodified, cut to 64 characters.
    """
    text = without_port(address)
    try:
        found = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return text[:64]
    mapped = getattr(found, "ipv4_mapped", None) or found
    if isinstance(mapped, ipaddress.IPv4Address):
        return str(mapped)
    return str(ipaddress.ip_network((mapped, 64), strict=False))


def without_port(address: str) -> str:
    """Remove the port that some proxies write: `192.0.2.7:443`, `[2001:db8::1]:443`."""
    if address.startswith("["):
        return address[1:].partition("]")[0]
    return address.partition(":")[0] if address.count(":") == 1 else address
