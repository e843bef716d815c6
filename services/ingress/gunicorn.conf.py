"""Gunicorn's settings; the values come from shared/config.py."""

import ctypes
import os
import shutil
import signal
import sys
from typing import Any

from prometheus_client import multiprocess

from shared.config import settings

PR_SET_PDEATHSIG = 1  # prctl(2)
_config = settings()

wsgi_app = "services.ingress.app:create_app()"
worker_class = "services.ingress.worker.Worker"
workers = _config.web_concurrency
bind = f"{_config.host}:{_config.port}"
backlog = 2048
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
proc_name = "order-fellow-ingress"


def post_fork(_: Any, __: Any) -> None:
    """End a worker with its master: one that outlives it would keep the port from the next."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def child_exit(_: Any, worker: Any) -> None:
    """Take a dead worker's gauges off the metrics page."""
    multiprocess.mark_process_dead(worker.pid)


def on_exit(_: Any) -> None:
    """Remove the folder that `__main__.py` made for the metrics."""
    shutil.rmtree(os.environ["PROMETHEUS_MULTIPROC_DIR"], ignore_errors=True)
