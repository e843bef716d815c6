"""Gunicorn's settings; the values come from shared/config/settings.py."""

import os
import shutil
from typing import Any

from prometheus_client import multiprocess

from shared.config.loading import begin
from shared.http.serving import *  # noqa: F403 - gunicorn reads it here

_config = begin("ingress")

wsgi_app = "services.ingress.app:create_app()"
worker_class = "services.ingress.server.worker.Worker"
workers = _config.web_concurrency
bind = f"{_config.host}:{_config.port}"
backlog = 2048
proc_name = "order-fellow-ingress"


def child_exit(_: Any, worker: Any) -> None:
    """Take a dead worker's gauges off the metrics page."""
    multiprocess.mark_process_dead(worker.pid)


def on_exit(_: Any) -> None:
    """Remove the folder that `__main__.py` made for the metrics."""
    shutil.rmtree(os.environ["PROMETHEUS_MULTIPROC_DIR"], ignore_errors=True)
