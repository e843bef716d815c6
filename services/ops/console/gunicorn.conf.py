"""Gunicorn's settings; the values come from shared/config/settings.py."""

from shared.config.loading import begin
from shared.http.serving import *  # noqa: F403 - gunicorn reads it here

_config = begin("ops")

wsgi_app = "services.ops.console.app:create_app()"
worker_class = "shared.web.worker.Worker"
# One: all browsers share its poller, and it holds the background jobs.
workers = 1
bind = f"{_config.host}:{_config.ops_port}"
proc_name = "order-fellow-console"
