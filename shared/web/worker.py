"""The gunicorn worker for pages, based on uvicorn's."""

from typing import Any, ClassVar

from uvicorn_worker import UvicornWorker

from shared.http.protocol.request_timeout import RequestTimeoutProtocol


class Worker(UvicornWorker):
    """The worker class of the console and the portal."""

    CONFIG_KWARGS: ClassVar[dict[str, Any]] = {
        "loop": "uvloop",
        "http": RequestTimeoutProtocol,
        "proxy_headers": False,
        "server_header": False,
        # Event streams do not end by themselves; browsers reconnect.
        "timeout_graceful_shutdown": 2,
    }
