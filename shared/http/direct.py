"""HTTP to servers of one's own, past the proxy that `http_proxy` names: that one leads out."""

import urllib.request
from typing import Any

_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def ask(request: str | urllib.request.Request, *, seconds: float) -> Any:
    """Send a request without any proxy; returns the answer, to be closed.

    Args:
        request: an http or https address, or a request to one.
        seconds: that nothing may happen for.

    Raises:
        urllib.error.HTTPError: it is answered by a refusal.
        OSError: it is not answered.
    """
    return _OPENER.open(request, timeout=seconds)
