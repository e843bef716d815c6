"""Gunicorn's settings; the values come from shared/config/settings.py."""

from shared.config.loading import begin
from shared.http.serving import *  # noqa: F403 - gunicorn reads it here

_config = begin("ops")

wsgi_app = "services.ops.console.app:create_app()"
worker_class = "shared.web.worker.Worker"
# One: it has one sampler for all browsers, and the long work that people look after is in it.
workers = 1
bind = f"{_config.host}:{_config.ops_port}"
proc_name = "order-fellow-console"
