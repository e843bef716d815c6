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

_config = begin("portal")

wsgi_app = "services.portal.app:create_app()"
worker_class = "shared.web.worker.Worker"
# One serves a metrics page at its port; more portals are more processes.
workers = 1
bind = f"{_config.host}:{_config.portal_port}"
proc_name = "order-fellow-portal"
