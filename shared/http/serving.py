"""What every gunicorn of ours has in common; each `gunicorn.conf.py` takes it from here."""

import ctypes
import importlib
import os
import signal
import sys
from pathlib import Path
from typing import Any

import gunicorn

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


def serve(conf: Path) -> None:
    """Be gunicorn's master, with the settings of a `gunicorn.conf.py`; ends with SystemExit.

    In the process that calls it: a program of its own would import anew what is here already.
    Call it when the settings have been checked.
    """
    from gunicorn.app import wsgiapp  # reads WEB_CONCURRENCY, and has no sentence for a wrong one

    # As its own command line; on SIGUSR2 it starts this anew.
    sys.argv = [str(Path(gunicorn.__file__).with_name("__main__.py")), "--config", str(conf)]
    wsgiapp.run()


def on_starting(_: Any) -> None:
    """Import what takes long before the first fork, so that a worker that dies is soon replaced."""
    for name in SHARED:
        importlib.import_module(name)


def post_fork(_: Any, __: Any) -> None:
    """End a worker with its master: one that outlives it would keep the port from the next."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
