"""Gunicorn's settings; the values come from shared/config/settings.py."""

from shared.config.loading import begin
from shared.http.serving import (  # noqa: F401 - gunicorn reads them here
    accesslog,
    control_socket_disable,
    graceful_timeout,
    keepalive,
    loglevel,
    on_starting,
    post_fork,
    timeout,
    worker_tmp_dir,
)

_config = begin("ops")

wsgi_app = "services.ops.console.app:create_app()"
worker_class = "shared.web.worker.Worker"
# One: it has one sampler for all browsers, and the long work that people look after is in it.
workers = 1
bind = f"{_config.host}:{_config.ops_port}"
proc_name = "order-fellow-console"
