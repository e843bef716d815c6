"""The servers' versions that this program was tried with, and a warning for all others."""

from functools import cache
from typing import Literal

import structlog

Product = Literal["RabbitMQ", "PostgreSQL"]

KNOWN: dict[Product, tuple[str, ...]] = {
    "RabbitMQ": ("3.10", "4.0", "4.3"),
    "PostgreSQL": ("15", "16", "17", "18"),
}
# In these two not even who reads a queue may look at it (rabbitmq-server, pull request 16272).
BLIND = ("4.2.6", "4.3.0")

log = structlog.get_logger()


def warning(product: Product, version: object) -> str | None:
    """What is to be said of a server's version; None for one that is known.

    Args:
        product: which server.
        version: as it says itself, such as `4.3.6` or `15.18 (Debian 15.18-1)`; what is no text
            counts as unknown.
    """
    numbers = str(version).split(" ")[0].split(".")
    if product == "RabbitMQ" and ".".join(numbers) in BLIND:
        return (
            f"RabbitMQ {version} lets nobody look at a queue but who may declare it: consumers "
            "work, `fellow` and the console see no figures. Take the next patch version."
        )
    series = ".".join(numbers[: 2 if product == "RabbitMQ" else 1])
    if series not in KNOWN[product]:
        return (
            f"{product} {version} is a version that Order Fellow was not tried with; known are "
            f"{', '.join(KNOWN[product])}. It goes on, and may be refused something."
        )
    return None


@cache
def warn_once(product: Product, version: str) -> None:
    """Log what is to be said of a server's version, once in a process."""
    said = warning(product, version)
    if said is not None:
        log.warning("untried_version", product=product, version=version, reason=said)
