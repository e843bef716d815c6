"""The addresses of `AMQP_URL`: which one to try next, and after which delay.

All connections of a process share one position in the list. A connection that finds a node
unreachable moves it on for later connections, so that a host that drops every packet costs the
process one connect timeout and not one a connection. Open connections stay where they are.
"""

import random
import threading
import time
from collections.abc import Sequence
from functools import lru_cache
from urllib.parse import quote, unquote, urlsplit

from shared.config.environment import addresses

FIRST_PAUSE, LONGEST_PAUSE = 0.2, 5.0  # seconds between two rounds of attempts


class Addresses:
    """The nodes of one broker, tried in turn.

    Args:
        amqp_url: one address or several, separated by `;`.
    """

    def __init__(self, amqp_url: str) -> None:
        self._all = addresses(amqp_url)
        self._at = 0
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._all)

    def round(self) -> Sequence[str]:
        """Return each address once, in the order to try them now."""
        at = self._at  # read once: another thread may change it
        return self._all[at:] + self._all[:at]

    def leave(self, url: str) -> None:
        """Move on from an address, unless another connection did so already.

        Args:
            url: the address that is unreachable, or refuses.
        """
        with self._lock:
            if self._all[self._at] == url:
                self._at = (self._at + 1) % len(self._all)


class Pauses:
    """The delays between attempts to open one connection.

    None until each address was tried once, then doubling up to `LONGEST_PAUSE`.

    Args:
        count: the number of addresses.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._tried = 0
        self._pause = FIRST_PAUSE
        self._worked_at: float | None = None

    def worked(self) -> None:
        """Reset the delays: an attempt succeeded."""
        self._pause = FIRST_PAUSE
        self._worked_at = time.monotonic()

    def after_failure(self) -> float:
        """Return the seconds to wait after a failed attempt, or the loss of a connection."""
        worked_at, self._worked_at = self._worked_at, None
        # A connection that ended soon after it opened says nothing new of the other addresses.
        if worked_at is not None and time.monotonic() - worked_at >= LONGEST_PAUSE:
            self._tried = 0
        self._tried += 1
        if self._tried < self._count:
            return 0.0
        pause, self._tried = self._pause, 0
        self._pause = min(2 * pause, LONGEST_PAUSE)
        return pause * random.uniform(0.5, 1.0)  # noqa: S311 - jitter


@lru_cache(maxsize=64)
def of(amqp_url: str) -> Addresses:
    """Return the addresses of a setting; one object for the whole process."""
    return Addresses(amqp_url)


def credentials(amqp_url: str) -> tuple[str, str]:
    """Return the user and password of all addresses; `guest` where there is none."""
    parts = urlsplit(addresses(amqp_url)[0])
    return unquote(parts.username or "guest"), unquote(parts.password or "guest")


def signed_in_as(amqp_url: str, user: str, password: str) -> str:
    """Return the same addresses with other credentials."""
    person = f"{quote(user, safe='')}:{quote(password, safe='')}"
    parts = [urlsplit(url) for url in addresses(amqp_url)]
    return ";".join(
        each._replace(netloc=f"{person}@{each.netloc.rpartition('@')[2]}").geturl()
        for each in parts
    )


def place(amqp_url: str) -> str:
    """Return host and port of each address, such as `rabbit1:5672, rabbit2:5672`."""
    parts = [urlsplit(url) for url in addresses(amqp_url)]
    return ", ".join(
        # From `netloc`, in which an IPv6 address keeps its brackets.
        each.netloc.rpartition("@")[2]
        if each.port
        else f"{each.netloc.rpartition('@')[2]}:{5671 if each.scheme == 'amqps' else 5672}"
        for each in parts
    )
