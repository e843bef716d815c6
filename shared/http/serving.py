"""What every gunicorn of ours has in common; each `gunicorn.conf.py` takes all of it from here."""

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
"""What the master imports and its workers find: of our own, nothing that depends on the process."""

keepalive = 30
graceful_timeout = 8
timeout = 30
# The heartbeat file of a worker must not lie on a disk that may be slow or full.
_memory = "/dev/shm"  # noqa: S108
worker_tmp_dir = _memory if os.access(_memory, os.W_OK) else None
accesslog = None
# Nobody manages it at run time, and a socket in the home is a door more.
control_socket_disable = True
loglevel = "warning"


def main(process: str, name: str, conf: Path, before: Callable[[], None] = lambda: None) -> int:
    """Check the configuration and be gunicorn's master; ends with SystemExit.

    In the process that calls it: a program of its own would import anew what is here already.

    Args:
        process: whose settings are checked, as for `begin`.
        name: what is started, such as `services.ingress`.
        conf: a `gunicorn.conf.py`.
        before: called when the settings are good.

    Returns:
        The exit code, only when the configuration is bad.
    """
    try:
        begin(process)
    except ConfigurationError as error:
        print(f"{name} cannot start. {error}", file=sys.stderr)  # noqa: T201 - no log yet
        return 2
    before()
    from gunicorn.app import wsgiapp  # reads WEB_CONCURRENCY, and has no sentence for a wrong one

    # As its own command line; on SIGUSR2 it starts this anew.
    sys.argv = [str(Path(gunicorn.__file__).with_name("__main__.py")), "--config", str(conf)]
    wsgiapp.run()
    return 0


def on_starting(_: Any) -> None:
    """Import what takes long before the first fork, so that a worker that dies is soon replaced."""
    for name in SHARED:
        importlib.import_module(name)


def post_fork(_: Any, __: Any) -> None:
    """End a worker with its master: one that outlives it would keep the port from the next."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
