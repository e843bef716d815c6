"""IP addresses and networks, as people write them and as connections have them."""

import ipaddress
from collections.abc import Iterable
from contextlib import suppress

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_MAPPED = ipaddress.IPv6Network("::ffff:0:0/96")  # RFC 4291, 2.5.5.2


class NetworkError(ValueError):
    """A text is no network; the message says why, and what may have been meant."""


def parse(text: str) -> Network:
    """The network in CIDR notation (RFC 4632); an address alone is a network of its own.

    Raises:
        NetworkError: see there.
    """
    text = text.strip()
    try:
        found = ipaddress.ip_network(text)
    except ValueError:
        try:
            meant = ipaddress.ip_network(text, strict=False)
        except ValueError:
            raise NetworkError(
                f"{text!r:.60} is no network: write it like 203.0.113.0/24 or 2001:db8::/32"
            ) from None
        raise NetworkError(
            f"{text} has bits set behind its prefix: write {meant}, or an address without a prefix"
        ) from None
    if isinstance(found, ipaddress.IPv6Network) and found.subnet_of(_MAPPED):
        raise NetworkError(f"{text} is IPv4 written as IPv6: write it as IPv4")
    return found


def readable(texts: Iterable[str]) -> list[Network]:
    """The networks among stored texts.

    What is none, since somebody wrote it by hand, holds nobody: a list of such is not an empty one.
    """
    found = []
    for text in texts:
        with suppress(NetworkError):
            found.append(parse(text))
    return found


def is_within(address: str, networks: Iterable[Network]) -> bool:
    """Whether an address lies in one of the networks; what is no address does not.

    An IPv4 address that came as IPv6 counts as the IPv4 address.
    """
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    mapped = getattr(found, "ipv4_mapped", None) or found
    return any(mapped in network for network in networks)


def network_of(address: str) -> str:
    """The network that a client at an address counts as: whoever has the one has all of it.

    An IPv4 address alone, and a /64 of IPv6, which is what one subscriber is given (RFC 6177, 2);
    a port that a proxy has written behind it counts for nothing. What is no address stands for
    itself, cut to 64 characters.
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
    """An address without the port that some proxies write: `192.0.2.7:443`, `[2001:db8::1]:443`."""
    if address.startswith("["):
        return address[1:].partition("]")[0]
    return address.partition(":")[0] if address.count(":") == 1 else address
