"""The ceiling: Order Fellow's own ingress, answering without publishing."""

from typing import Any

from services.ingress.app import create_app as create_ingress
from services.ingress.webhook.acceptor import Acceptor
from shared.bus.contract.message import Message


async def _accept(_: Acceptor, __: Message) -> None:
    return


def create_app() -> Any:
    """The same app but for the one call."""
    Acceptor.accept = _accept  # type: ignore[method-assign]
    return create_ingress()
