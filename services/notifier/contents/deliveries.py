"""Emails to a business about messages without an effect and about refused addresses."""

from urllib.parse import urlencode

from services.notifier.contents.accounts import letter
from services.notifier.contents.content import Block, Content, Paragraph, Quote, Setting
from shared.bus.contract.events import OrderNotTaken, OrderRecipientsRefused


def not_taken(fact: OrderNotTaken, at: Setting) -> Content:
    """Return the email about an order or an update that was not recorded."""
    say, order = at.say, fact.order_number or fact.order_id
    # The log has no filter by event, and knows requests of shops only by their number when noted.
    is_found = fact.order_number and not fact.of_shop
    only = f"?{urlencode({'order_number': fact.order_number})}" if is_found else ""
    by = "number" if fact.order_number else "key"
    if fact.what == "update_given_up" and fact.of_shop:
        again = ("update_shop_again",) if at.portal_url else ()
        subject, keys = "subject_update", ("update_shop", "update_shop_how", *again)
    elif fact.what == "update_given_up":
        subject = "subject_update"
        keys = ("update_number" if fact.order_number else "update_id", "update_how")
    elif fact.what == "no_email_address":
        subject, keys = "subject_unaddressed", ("unaddressed", "unaddressed_how")
        only = "?note=no_email_address"
    else:
        subject, keys = f"subject_{by}", (by, f"{by}_how")
    texts = (say(f"deliveries.not_taken.{key}", order=order) for key in (*keys, "more"))
    return letter(
        fact,
        at,
        say(f"deliveries.not_taken.{subject}"),
        *map(Paragraph, texts),
        *at.way("deliveries.not_taken.open", f"/requests{only}", f"GET /webhooks/log/{only}"),
        at.paragraph("deliveries.not_taken.event", event=fact.event_id),
    )


def recipients_refused(fact: OrderRecipientsRefused, at: Setting) -> Content:
    """Return the email about customers' addresses that the mail server refused."""
    say = at.say
    blocks: list[Block] = [at.paragraph("deliveries.refused.news")]
    for one in fact.recipients:
        order = one.order_number or one.order_id
        refused = say("deliveries.refused.one", address=one.address, order=order)
        blocks += [Paragraph(refused), Quote(one.response)]
    if fact.total > len(fact.recipients):
        more = fact.total - len(fact.recipients)
        blocks.append(at.paragraph("deliveries.refused.more", count=more))
    blocks += [
        at.paragraph("deliveries.refused.next"),
        *at.way(
            "deliveries.refused.open",
            "/emails/refused",
            "GET /suppressions/?cause=refused",
            "DELETE /suppressions/<id>/",
        ),
        at.paragraph("deliveries.refused.seldom"),
    ]
    return letter(fact, at, say("deliveries.refused.subject"), *blocks)
