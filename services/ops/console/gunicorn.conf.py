"""Gunicorn's settings; the values come from shared/config.py."""

import ctypes
import os
import signal
import sys
from typing import Any

from shared.config import settings

PR_SET_PDEATHSIG = 1  # prctl(2)
_config = settings()

wsgi_app = "services.ops.console.app:create_app()"
worker_class = "services.ops.console.worker.Worker"
# One: it has one sampler for all browsers, and the long work that people look after is in it.
workers = 1
bind = f"{_config.host}:{_config.ops_port}"
keepalive = 30
graceful_timeout = 8
timeout = 30
_memory = "/dev/shm"  # noqa: S108
worker_tmp_dir = _memory if os.access(_memory, os.W_OK) else None
accesslog = None
control_socket_disable = True
loglevel = "warning"
proc_name = "order-fellow-console"


def post_fork(_: Any, __: Any) -> None:
    """End a worker with its master: one that outlives it would keep the port from the next."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
