"""The gunicorn worker: uvicorn's, for pages and their streams."""

from typing import Any, ClassVar

from uvicorn_worker import UvicornWorker

from shared.http.protocol.request_timeout import ImpatientProtocol


class Worker(UvicornWorker):
    """What gunicorn starts."""

    CONFIG_KWARGS: ClassVar[dict[str, Any]] = {
        "loop": "uvloop",
        "http": ImpatientProtocol,
        "proxy_headers": False,
        "server_header": False,
        # A stream has no end of its own; a browser connects again by itself.
        "timeout_graceful_shutdown": 2,
    }
