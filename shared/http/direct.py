"""HTTP requests to our own servers, which ignore `http_proxy`."""

import urllib.request
from typing import Any

_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def ask(request: str | urllib.request.Request, *, seconds: float) -> Any:
    """Send a request without a proxy; return the response, which the caller must close.

    Args:
        request: an http or https URL, or a request to one.
        seconds: socket timeout.

    Raises:
        urllib.error.HTTPError: the status is an error.
        OSError: there is no response.
    """
    return _OPENER.open(request, timeout=seconds)
