"""Gunicorn's settings; the values come from shared/config/settings.py."""

from shared.config.loading import begin
from shared.http.serving import *  # noqa: F403 - gunicorn reads it here

_config = begin("portal")

wsgi_app = "services.portal.app:create_app()"
worker_class = "shared.web.worker.Worker"
# One worker, whose metrics have a port; scale by more portal processes.
workers = 1
bind = f"{_config.host}:{_config.portal_port}"
proc_name = "order-fellow-portal"
