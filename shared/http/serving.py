"""Common gunicorn configuration and entry point; each `gunicorn.conf.py` imports all of it."""

import ctypes
import importlib
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gunicorn

from shared.config.environment import ConfigurationError
from shared.config.loading import begin

__all__ = [
    "accesslog",
    "control_socket_disable",
    "graceful_timeout",
    "keepalive",
    "loglevel",
    "on_starting",
    "post_fork",
    "timeout",
    "worker_tmp_dir",
]
PR_SET_PDEATHSIG = 1  # prctl(2)
SHARED = (
    "falcon.asgi",
    "httpx",
    "jinja2",
    "jwt",
    "pika",
    "shared.db.models",
    "sqlalchemy.dialects.postgresql.psycopg2",
    "structlog",
)
"""Modules that the master imports before forking; of ours only ones that read no settings."""

keepalive = 30
graceful_timeout = 8
timeout = 30
# A worker's heartbeat file must not be on a disk, which may be slow or full.
_memory = "/dev/shm"  # noqa: S108
worker_tmp_dir = _memory if os.access(_memory, os.W_OK) else None
accesslog = None
# Unused, and a socket in the home directory is an attack surface.
control_socket_disable = True
loglevel = "warning"


def main(process: str, name: str, conf: Path, before: Callable[[], None] = lambda: None) -> int:
    """Check the configuration and run gunicorn's master in this process; ends with SystemExit.

    A separate gunicorn process would import all modules again.

    Args:
        process: whose settings are checked, see `begin`.
        name: of the service, such as `services.ingress`, for messages.
        conf: a `gunicorn.conf.py`.
        before: called after the check.

    Returns:
        The exit code, only if the configuration is invalid.
    """
    try:
        begin(process)
    except ConfigurationError as error:
        print(f"{name} cannot start. {error}", file=sys.stderr)  # noqa: T201 - no log yet
        return 2
    before()
    # It would override our file in all our gunicorns, e.g. by another program's address.
    os.environ.pop("GUNICORN_CMD_ARGS", None)
    from gunicorn.app import wsgiapp  # reads WEB_CONCURRENCY, and fails if it is invalid

    # As the gunicorn command line, which is executed again on SIGUSR2.
    sys.argv = [str(Path(gunicorn.__file__).with_name("__main__.py")), "--config", str(conf)]
    wsgiapp.run()
    return 0


def on_starting(_: Any) -> None:
    """Import slow modules before the first fork, so that a dead worker is replaced quickly."""
    for name in SHARED:
        importlib.import_module(name)


def post_fork(_: Any, __: Any) -> None:
    """End a worker when its master dies; otherwise it would keep the port from the next one."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
