"""Emails to a customer about an order."""

from collections.abc import Sequence
from typing import Any

import msgspec

from services.notifier.contents.content import (
    Action,
    Block,
    Content,
    Facts,
    Notice,
    Paragraph,
    Quote,
    Row,
    Setting,
)
from shared.bus.contract.events import (
    OrderCancellationRecorded,
    OrderRecorded,
    OrderStatusRecorded,
)
from shared.ids import is_of_shop
from shared.languages import shops
from shared.languages.delivery_steps import parcel_fields, steps
from shared.languages.language import DEFAULT, Language, capitalised

OrderFact = OrderRecorded | OrderStatusRecorded | OrderCancellationRecorded

_OF_SHOP = ("customer_name", "item_summary", "address", "reason")
MOST_SHOWN = 90  # characters; mail programs cut a preheader about there


def received(fact: OrderRecorded, at: Setting) -> Content:
    """Return the email about a recorded order."""
    news = Paragraph(at.say("orders.received.news", company=fact.company_name))
    return _content(fact, at, "received", at.say("orders.received.heading"), [news])


def status(fact: OrderStatusRecorded, at: Setting) -> Content:
    """Return the email about a new status."""
    word = at.say.status(fact.tracking_status)
    news: list[Block] = [Paragraph(_numbered(fact, at, "orders.status.news", status=word))]
    if fact.note:
        news.append(Quote(fact.note))
    return _content(fact, at, "status", at.say("orders.status.heading", status=word), news)


def cancelled(fact: OrderCancellationRecorded, at: Setting) -> Content:
    """Return the email about a cancellation."""
    news: list[Block] = [Paragraph(_numbered(fact, at, "orders.cancelled.news"))]
    if fact.reason:
        news.append(Quote(fact.reason))
    return _content(fact, at, "cancelled", at.say("orders.cancelled.heading"), news)


def in_language(fact: OrderFact, say: Language) -> OrderFact:
    """Return a fact about a shop's order with our own phrases translated, the shop's unmodified."""
    number, is_test = fact.order_number, fact.IS_TEST
    if say.code == DEFAULT:
        return fact
    if not is_of_shop(fact.account_id, fact.order_id, number, is_test=is_test):
        return fact
    texts = {name: getattr(fact, name, "") for name in _OF_SHOP}
    words = {name: shops.translated(say, text) for name, text in texts.items() if text}
    return msgspec.structs.replace(fact, **words)


def excerpt(fact: OrderFact) -> str:
    """Return the beginning of the item summary, for the preheader."""
    return fact.item_summary[:MOST_SHOWN]


def _content(
    fact: OrderFact, at: Setting, what: str, heading: str, news: Sequence[Block]
) -> Content:
    say, word = at.say, at.say.status(fact.tracking_status)
    blocks: list[Block] = []
    if fact.IS_TEST:
        blocks.append(Notice(say("orders.test")))
    blocks += [Paragraph(say("orders.dear", name=fact.customer_name)), *news]
    blocks.append(Facts(_rows(fact, at, word)))
    blocks.append(Paragraph(say(f"orders.next.{fact.tracking_status}", company=fact.company_name)))
    if tracking_url := _parcel(fact).get("tracking_url"):
        label = say("orders.track_parcel")
        blocks.append(Action(label, tracking_url, label))
    if at.tracking_page:
        is_first = not isinstance(blocks[-1], Action)
        where, where_text = say("orders.where"), say("orders.where_text")
        blocks.append(Action(where, at.tracking_page, where_text, is_first))
    way = steps(say, fact.tracking_status)
    done = sum(step.is_done for step in way)
    asked = "orders.contact_reply_to" if at.reply_to else "orders.contact"
    return Content(
        subject=_numbered(fact, at, f"orders.{what}.subject", status=word),
        preheader=say("orders.preheader", status=capitalised(word), items=at.excerpt),
        heading=heading,
        blocks=blocks,
        footer=(
            say(asked, company=fact.company_name, reply_to=at.reply_to),
            say("orders.on_behalf", company=fact.company_name),
        ),
        sender=fact.company_name,
        kicker=say("orders.order", number=fact.order_number or fact.order_id),
        progress=say("orders.step", number=done, total=len(way)) if way else "",
        steps=way,
        leave=(say("orders.leave"), say("orders.leave_text")),
        leave_url=at.unsubscribe_url,
    )


def _rows(fact: OrderFact, at: Setting, word: str) -> list[Row]:
    say = at.say
    rows = [
        Row(say("orders.label.order"), str(fact.order_number or fact.order_id)),
        Row(say("orders.label.items"), fact.item_summary),
    ]
    if isinstance(fact, OrderRecorded):
        rows.append(Row(say("orders.label.to"), fact.address))
    rows.append(Row(say("orders.label.status"), word))
    parcel = _parcel(fact)
    if named := [parcel[name] for name in ("carrier", "tracking_number") if name in parcel]:
        rows.append(Row(say("orders.label.parcel"), ", ".join(named)))
    if "estimated_delivery" in parcel:
        rows.append(Row(say("orders.label.due"), say.day(parcel["estimated_delivery"])))
    return rows


def _parcel(fact: OrderFact) -> dict[str, Any]:
    """Return the known tracking fields that are shown at the order's status."""
    fields = parcel_fields(fact.tracking_status)
    return {name: value for name in fields if (value := getattr(fact, name))}


def _numbered(fact: OrderFact, at: Setting, key: str, **more: str) -> str:
    """Return a text, in the form with the order's number if it has one."""
    if fact.order_number:
        return at.say(
            f"{key}_numbered", number=fact.order_number, company=fact.company_name, **more
        )
    return at.say(key, company=fact.company_name, **more)
