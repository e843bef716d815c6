"""Emails about test orders: marked, counted nowhere, and with a bound of their own."""

import pytest
from msgspec.structs import replace

from services.notifier.bounds import Bounds
from services.notifier.composing import compose
from shared.bus.contract.events import in_test
from tests.integration.arrange import received
from tests.unit.notifier.facts import ACCOUNT, FACTS

OWNER = ACCOUNT["email"]
ORDERS = ("order_received", "order_status", "order_cancelled")


def live(template="order_received"):
    return compose(received(replace(FACTS[template], customer_email=OWNER)))


def of_a_test(template="order_received"):
    return compose(received(in_test(FACTS[template], customer_email=OWNER)))


@pytest.mark.parametrize("template", ORDERS)
def test_it_equals_the_email_of_a_live_order_but_for_its_mark(template):
    email, other = of_a_test(template), live(template)
    assert email.template == f"test_{other.template}"
    assert email.subject == f"TEST: {other.subject}"
    assert "This is a test order" in email.text
    assert "This is a test order" in email.html
    assert "This is a test order" not in other.text + other.html
    said, _, leaving = other.text.partition("\n--\n")
    assert [line for line in said.splitlines() if line not in email.text] == []
    assert "/unsubscribe/" in leaving
    assert "/unsubscribe/" not in email.text + email.html
    assert (email.recipient, email.recipient_name) == (OWNER, ACCOUNT["company_name"])
    assert (email.is_counted, other.is_counted) == (False, True)


def test_live_and_test_orders_have_separate_limits():
    bounds = Bounds(1)
    bounds.sent(of_a_test())
    assert bounds.refusal(of_a_test()) is not None
    assert bounds.refusal(live()) is None
    bounds = Bounds(1)
    bounds.sent(live())
    assert bounds.refusal(live()) is not None
    assert bounds.refusal(of_a_test()) is None


def test_a_plus_suffix_is_the_same_mailbox():
    bounds = Bounds(1)
    tagged = [replace(live(), recipient=f"Zoe{tag}@shop.example") for tag in ("+1", "+2", "")]
    bounds.sent(tagged[0])
    assert all(bounds.refusal(email) is not None for email in tagged)
    assert bounds.refusal(replace(live(), recipient="zoey@shop.example")) is None


@pytest.mark.parametrize("name", ["secret_issued", "secret_rotated", "secret_shown"])
def test_emails_about_a_test_secret_say_so(name):
    fact = FACTS[name]
    email = compose(received(replace(fact, is_test=True)))
    words = email.subject + email.text
    assert "test secret" in words
    assert "webhook secret" not in words + email.html
    other = compose(received(fact))
    assert "webhook secret" in other.subject + other.text
    assert "test" not in (other.subject + other.text).lower()
    if name != "secret_shown":
        assert "/webhook/test-secret/" in email.text
        assert "/webhook/secret/" in other.text
