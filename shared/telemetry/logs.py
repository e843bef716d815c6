"""Logging setup: one event per line, as text in development and as JSON in production.

Never log a secret, a code, a token, a body or an address: log the id of the record that has it.
"""

import logging
import sys
from typing import Any

import structlog

from shared.config.settings import Settings


def configure(config: Settings, service: str) -> None:
    """Set up logging for this process.

    Args:
        config: provides `log_level` and `log_format`.
        service: added to every line.
    """
    processors: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if config.log_format == "json":
        processors += [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    else:
        processors.append(
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(),
                # The default prints local variables, which contain addresses and secrets.
                exception_formatter=structlog.dev.plain_traceback,
            )
        )
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(
            logging.getLevelNamesMapping()[config.log_level]
        ),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(service=service)
    logging.basicConfig(level=config.log_level, stream=sys.stderr, format="%(message)s")
    # These log each failed connection attempt at length; we log one line ourselves.
    for library in ("pika", "kombu", "amqp"):
        logging.getLogger(library).setLevel(logging.CRITICAL)
    # These log the URL of each request, which may contain tokens and personal data.
    for library in ("httpx", "httpcore"):
        logging.getLogger(library).setLevel(logging.WARNING)
