"""Emails about orders bear the name that their business chose; nothing else does."""

from msgspec.structs import replace

from shared.bus.contract.events import AccountSignInFailed
from shared.db.models import EmailSender
from stack.mailbox import text_of
from tests.integration.arrange import account, depth
from tests.integration.notifier.test_leaving import mailed, recorded, told
from tests.integration.notifier.test_refused_addresses import business, config
from tests.integration.notifier.test_sending import tell
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


def test_emails_are_in_the_language_and_the_time_of_their_account(
    config, db, business, mailbox, engine, amqp_url
):
    other = account(db, status="approved")
    db.add(EmailSender(account_id=business.id, language="fr", time_zone="Africa/Lagos"))
    # As after a return to a version without them.
    db.add(EmailSender(account_id=other.id, language="tlh", time_zone="Mars/Olympus"))
    db.commit()
    _, order = recorded(db, business)
    _, strange = recorded(db, other, "bola@shop.example")
    # A fact of nobody's account, in the same queue.
    tell(amqp_url, AccountSignInFailed(email="", account_id=None, address="192.0.2.7"))
    mailed(
        config,
        engine,
        amqp_url,
        told("order_received", order),
        told("order_status", strange),
        replace(FACTS["secret_issued"], account_id=business.id, email="owner@shop.example"),
    )
    emails = {str(email["To"].addresses[0].addr_spec): email for email in mailbox.maildir.emails()}
    assert "a bien reçu votre commande" in emails["zoe@shop.example"]["Subject"]
    assert emails["owner@shop.example"]["Subject"] == "Votre secret de webhook est prêt"
    assert "1 mars 2099 à 15:05 UTC+1" in text_of(emails["owner@shop.example"])
    assert "Your order" in emails["bola@shop.example"]["Subject"]
    assert len(emails) == 3
    assert [depth(amqp_url, name) for name in ("notifier.urgent", "retry.5s")] == [0, 0]
