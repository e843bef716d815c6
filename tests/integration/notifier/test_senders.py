"""Emails about orders bear the name that their business chose; nothing else does."""

from shared.db.models import EmailSender
from tests.integration.arrange import account
from tests.integration.notifier.test_leaving import mailed, recorded, told
from tests.integration.notifier.test_refused_addresses import business, config
from tests.unit.notifier.facts import FACTS

__all__ = ["business", "config"]


def test_a_chosen_name_and_address_are_that_businesss_own(
    config, db, business, mailbox, engine, amqp_url
):
    db.add(
        EmailSender(
            account_id=business.id, display_name="Käserei O'Neil", reply_to="help@kettle.example"
        )
    )
    db.commit()
    _, order = recorded(db, business)
    _, other = recorded(db, account(db, status="approved"), "bola@shop.example")
    mailed(
        config,
        engine,
        amqp_url,
        told("order_received", order),
        told("order_status", other),
        FACTS["signed_in"],
    )
    emails = {str(email["To"].addresses[0].addr_spec): email for email in mailbox.maildir.emails()}
    chosen = emails.pop("zoe@shop.example")
    (sender,) = chosen["From"].addresses
    assert sender.display_name == "Käserei O'Neil via Order Fellow"
    assert sender.addr_spec == "no-reply@order-fellow.example"
    assert str(chosen["Reply-To"]) == "help@kettle.example"
    assert len(emails) == 2
    for email in emails.values():
        assert email["From"].addresses[0].display_name == "Order Fellow"
        assert email["Reply-To"] is None
