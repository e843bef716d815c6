"""The addresses of `AMQP_URL`, which of them is tried next, and how long to wait before that.

All connections of a process share one place in the list: whoever finds a node away or in trouble
leaves it for all that connect from then on, so that a host that swallows every packet costs a
process its connect timeout once, and not each connection. Who is connected stays where it is.
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
    """The nodes of one broker, in a circle.

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
        """Each of them once, in the order in which they are to be tried now."""
        at = self._at  # another thread may go on meanwhile
        return self._all[at:] + self._all[:at]

    def leave(self, url: str) -> None:
        """Have others try the next one first; nothing happens where somebody has done so.

        Args:
            url: the one that is away, or refuses.
        """
        with self._lock:
            if self._all[self._at] == url:
                self._at = (self._at + 1) % len(self._all)


class Pauses:
    """How long to wait between attempts of one connection that is opened again and again.

    Not at all until each address was tried; then ever longer, up to `LONGEST_PAUSE`.

    Args:
        count: of the addresses.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._tried = 0
        self._pause = FIRST_PAUSE
        self._worked_at: float | None = None

    def worked(self) -> None:
        """An attempt succeeded."""
        self._pause = FIRST_PAUSE
        self._worked_at = time.monotonic()

    def after_failure(self) -> float:
        """Seconds to wait; asked once after each failed attempt, and each loss of a connection."""
        worked_at, self._worked_at = self._worked_at, None
        # One that ends as soon as it works is no news of the others, and may well end there too.
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
    """The addresses of a setting, the same for all of this process."""
    return Addresses(amqp_url)


def credentials(amqp_url: str) -> tuple[str, str]:
    """The user and the password that all addresses sign in with; `guest` where none is named."""
    parts = urlsplit(addresses(amqp_url)[0])
    return unquote(parts.username or "guest"), unquote(parts.password or "guest")


def signed_in_as(amqp_url: str, user: str, password: str) -> str:
    """The same addresses, each for another user."""
    person = f"{quote(user, safe='')}:{quote(password, safe='')}"
    parts = [urlsplit(url) for url in addresses(amqp_url)]
    return ";".join(
        each._replace(netloc=f"{person}@{each.netloc.rpartition('@')[2]}").geturl()
        for each in parts
    )


def place(amqp_url: str) -> str:
    """Host and port of each address, such as `rabbit1:5672, rabbit2:5672`; never a password."""
    parts = [urlsplit(url) for url in addresses(amqp_url)]
    return ", ".join(
        # Of `netloc`, in which an IPv6 address has its brackets.
        each.netloc.rpartition("@")[2]
        if each.port
        else f"{each.netloc.rpartition('@')[2]}:{5671 if each.scheme == 'amqps' else 5672}"
        for each in parts
    )
