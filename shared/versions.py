"""Server versions that were tested, and a warning for all others."""

from functools import cache
from typing import Literal

import structlog

Product = Literal["RabbitMQ", "PostgreSQL"]

KNOWN: dict[Product, tuple[str, ...]] = {
    "RabbitMQ": ("3.10", "3.12", "4.0", "4.3"),
    "PostgreSQL": ("15", "16", "17", "18"),
}
# Passive declares need the configure permission here (rabbitmq-server, pull request 16272).
WITHOUT_PASSIVE_DECLARE = ("4.2.6", "4.3.0")

log = structlog.get_logger()


def warning(product: Product, version: object) -> str | None:
    """Return a warning about a server's version; None for a tested one.

    Args:
        product: of the server.
        version: as reported, such as `4.3.6` or `15.18 (Debian 15.18-1)`; other types count as
            unknown.
    """
    numbers = str(version).split(" ")[0].split(".")
    if product == "RabbitMQ" and ".".join(numbers) in WITHOUT_PASSIVE_DECLARE:
        return (
            f"RabbitMQ {version} shows queues only to users who may declare them: consumers work, "
            "but `fellow` and the console see no figures. Use the next patch version."
        )
    series = ".".join(numbers[: 2 if product == "RabbitMQ" else 1])
    if series not in KNOWN[product]:
        return (
            f"{product} {version} is a version that Order Fellow was not tested with; tested are "
            f"{', '.join(KNOWN[product])}. It continues, and the server may refuse some operations."
        )
    return None


@cache
def warn_once(product: Product, version: str) -> None:
    """Log the warning about a server's version, once per process."""
    reason = warning(product, version)
    if reason is not None:
        log.warning("untried_version", product=product, version=version, reason=reason)
