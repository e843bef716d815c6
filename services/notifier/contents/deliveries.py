"""What a business is told of what came to nothing: orders not taken, addresses refused."""

from services.notifier.contents.accounts import letter
from services.notifier.contents.content import Block, Command, Content, Paragraph, Quote, Setting
from shared.bus.contract.events import OrderNotTaken, OrderRecipientsRefused


def not_taken(fact: OrderNotTaken, at: Setting) -> Content:
    """An order or an update was not taken."""
    say, order = at.say, fact.order_number or fact.order_id
    log = "/webhooks/log/"
    by = "number" if fact.order_number else "key"
    if fact.what == "update_given_up" and fact.of_shop:
        subject, said = "subject_update", ("update_shop", "update_shop_how")
    elif fact.what == "update_given_up":
        subject = "subject_update"
        said = ("update_number" if fact.order_number else "update_id", "update_how")
    elif fact.what == "no_email_address":
        subject, said = "subject_unaddressed", ("unaddressed", "unaddressed_how")
        log += "?note=no_email_address"
    else:
        subject, said = f"subject_{by}", (by, f"{by}_how")
    texts = (say(f"deliveries.not_taken.{key}", order=order) for key in (*said, "more"))
    return letter(
        fact,
        at,
        say(f"deliveries.not_taken.{subject}"),
        *map(Paragraph, texts),
        Command((f"GET {at.api(log)}",)),
        at.paragraph("deliveries.not_taken.event", event=fact.event_id),
    )


def recipients_refused(fact: OrderRecipientsRefused, at: Setting) -> Content:
    """Addresses of customers do not take mail."""
    say = at.say
    blocks: list[Block] = [at.paragraph("deliveries.refused.news")]
    for one in fact.recipients:
        order = say("deliveries.refused.one", address=one.address, order=one.order_id)
        blocks += [Paragraph(order), Quote(one.response)]
    if fact.total > len(fact.recipients):
        more = fact.total - len(fact.recipients)
        blocks.append(at.paragraph("deliveries.refused.more", count=more))
    blocks += [
        at.paragraph("deliveries.refused.next"),
        Command(
            (
                f"GET {at.api('/suppressions/?cause=refused')}",
                f"DELETE {at.api('/suppressions/<id>/')}",
            )
        ),
        at.paragraph("deliveries.refused.seldom"),
    ]
    return letter(fact, at, say("deliveries.refused.subject"), *blocks)
