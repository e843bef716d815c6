"""Logs: one event a line, as text in development and as JSON in production.

Never log a secret, a code, a token, a body or an address: log the id that leads to it.
"""

import logging
import sys
from typing import Any

import structlog

from shared.config.settings import Settings


def configure(config: Settings, service: str) -> None:
    """Set logging up for this process.

    Args:
        config: `log_level` and `log_format` count.
        service: named in every line.
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
                # The default one prints local variables, and so addresses and secrets.
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
    # pika and kombu report each failed attempt at length; we say it once ourselves.
    for library in ("pika", "kombu", "amqp"):
        logging.getLogger(library).setLevel(logging.CRITICAL)
    # They tell the whole address of each request, with tokens and people's addresses in it.
    for library in ("httpx", "httpcore"):
        logging.getLogger(library).setLevel(logging.WARNING)
