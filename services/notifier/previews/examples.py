"""Example emails for previews."""

from collections.abc import Callable, Mapping
from typing import Any
from uuid import UUID

from services.notifier.composing import CONTENTS, HIDDEN
from services.notifier.contents import orders, rendering
from services.notifier.contents.content import Setting, portal_of
from services.notifier.previews import to_business
from services.notifier.senders import Sender
from shared.bus.contract.events import (
    OrderCancellationRecorded,
    OrderRecorded,
    OrderStatusRecorded,
    TrackingStatus,
)
from shared.config.loading import settings
from shared.languages import time_zones
from shared.languages.language import Language, language
from shared.security import unsubscribe_tokens

NOBODY = UUID(int=0)
NUMBER = "A-1001"
ADDRESS = "customer@shop.example"
OrderFact = OrderRecorded | OrderStatusRecorded | OrderCancellationRecorded


def preview(name: str, company_name: str, chosen: Sender) -> rendering.Parts:
    """Render an example by its name in `SAMPLES` or `to_business.SAMPLES`.

    Its links lead to no order, and its code is hidden.

    Args:
        name: the name.
        company_name: the business's name.
        chosen: the business's settings for its emails.

    Raises:
        KeyError: there is no example with this name.
    """
    say = language(chosen.language)
    config = settings()
    setting = Setting(
        say=say,
        zone=time_zones.zone(chosen.time_zone),
        public_url=config.public_url,
        reply_to=chosen.reply_to,
        portal_url=portal_of(config.tracking_url),
    )
    if name in to_business.SAMPLES:
        account = {"account_id": NOBODY, "company_name": company_name, "email": ADDRESS}
        fact = to_business.SAMPLES[name](account, say)
        return rendering.parts(fact, CONTENTS[type(fact)][1], setting._replace(code=HIDDEN))
    order_fact = SAMPLES[name](_common(company_name, say), say)
    setting = setting._replace(
        tracking_page=config.tracking_url,
        unsubscribe_url=f"{config.public_url.rstrip('/')}/api/v1{unsubscribe_tokens.PATH}",
        excerpt=orders.excerpt(order_fact),
    )
    return rendering.parts(order_fact, CONTENTS[type(order_fact)][1], setting)


def _common(company_name: str, say: Language) -> dict[str, Any]:
    return {
        "order_id": NOBODY,
        "account_id": NOBODY,
        "company_name": company_name,
        "customer_name": say("pages.sample.name"),
        "customer_email": ADDRESS,
        "item_summary": say("pages.sample.items"),
        "order_number": NUMBER,
    }


def _received(common: dict[str, Any], say: Language) -> OrderFact:
    return OrderRecorded(
        **common, address=say("pages.sample.address"), tracking_status=TrackingStatus.PENDING
    )


def _status(now: TrackingStatus) -> Callable[[dict[str, Any], Language], OrderFact]:
    def made(common: dict[str, Any], say: Language) -> OrderFact:
        is_over = now == TrackingStatus.DELIVERED
        return OrderStatusRecorded(
            **common,
            tracking_status=now,
            previous_status=TrackingStatus.PENDING,
            note="" if is_over else say("pages.sample.note"),
        )

    return made


def _cancelled(common: dict[str, Any], say: Language) -> OrderFact:
    return OrderCancellationRecorded(
        **common, tracking_status=TrackingStatus.CANCELLED, reason=say("pages.sample.reason")
    )


SAMPLES: Mapping[str, Callable[[dict[str, Any], Language], OrderFact]] = {
    "order_received": _received,
    "order_in_transit": _status(TrackingStatus.IN_TRANSIT),
    "order_out_for_delivery": _status(TrackingStatus.OUT_FOR_DELIVERY),
    "order_delivered": _status(TrackingStatus.DELIVERED),
    "order_cancelled": _cancelled,
}
"""Every email about an order, by name."""
