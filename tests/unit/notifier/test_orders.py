"""Emails about an order: its number and its tracking data."""

import re
from datetime import date
from html import escape
from html.parser import HTMLParser

import msgspec
import pytest

from services.notifier.composing import compose
from services.notifier.senders import Sender
from shared.bus.contract.events import FINAL_STATUSES, TrackingStatus
from shared.languages.language import CODES
from tests.integration.arrange import received
from tests.unit.notifier.facts import FACTS
from tests.unit.notifier.test_composing import Tags, email_of

OF_ORDERS = ("order_received", "order_status", "order_cancelled")
URL = "https://track.carrier.example/?id=JD0146&lang=en"
PARCEL = {
    "carrier": "Swift <b>&</b> Co",
    "tracking_number": "JD0146",
    "tracking_url": URL,
    "estimated_delivery": date(2026, 12, 3),
}
NUMBER = "A-1001 <i>&</i>"


class Links(HTMLParser):
    """Where an email leads, but for the way out of all of them."""

    def __init__(self, html):
        super().__init__()
        self.found = []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        if tag == "a" and "/unsubscribe/" not in dict(attrs)["href"]:
            self.found.append(dict(attrs)["href"])


@pytest.mark.parametrize("template", OF_ORDERS)
def test_the_number_stands_where_the_id_stood(template):
    email, plain = email_of(template, order_number=NUMBER), email_of(template)
    id_ = str(FACTS[template].order_id)
    assert f" {NUMBER}" in email.subject
    assert f"Order:   {NUMBER}\n" in email.text
    assert escape(NUMBER) in email.html
    assert id_ not in email.subject + email.text + email.html
    assert f"Order:   {id_}\n" in plain.text
    assert id_ in plain.html
    assert plain.subject == email.subject.replace(f" {NUMBER}", "")


@pytest.mark.parametrize("template", ["order_received", "order_status"])
def test_a_parcel_can_be_followed(template):
    email = email_of(template, **PARCEL)
    assert "Parcel:  Swift <b>&</b> Co, JD0146\nDue:     3 December 2026\n" in email.text
    assert f"\n\nTrack your parcel: {URL}\n\n--\n" in email.text
    assert Links(email.html).found == [URL]
    assert "3 December 2026" in email.html
    tags = Tags()
    tags.feed(email.html)
    assert tags.open == []
    assert not tags.seen & {"b", "i"}


@pytest.mark.parametrize("template", ["order_received", "order_status"])
@pytest.mark.parametrize("field", PARCEL)
def test_any_of_it_may_be_missing(template, field):
    email = email_of(template, **{name: PARCEL[name] for name in PARCEL if name != field})
    for part in (email.text, email.html):
        assert "None" not in part
        assert "UNSET" not in part
    assert "\n\n\n" not in email.text
    assert "\n\n--\n" in email.text


def test_a_delivered_order_has_no_estimated_day():
    told = email_of("order_status", tracking_status=TrackingStatus.DELIVERED, **PARCEL)
    assert "Due" not in told.text + told.html
    assert Links(told.html).found == [URL]


def test_a_cancelled_order_has_no_parcel():
    told = email_of("order_cancelled", **PARCEL)
    assert not Links(told.html).found
    assert "track" not in (told.text + told.html).lower()


@pytest.mark.parametrize("status", sorted(FINAL_STATUSES))
def test_an_order_with_a_final_status_shows_no_estimated_day(status):
    told = email_of("order_received", tracking_status=status, **PARCEL)
    assert "Due" not in told.text + told.html
    assert bool(Links(told.html).found) == (status is TrackingStatus.DELIVERED)
    assert ("JD0146" in told.text) == (status is TrackingStatus.DELIVERED)


PROMISES = {"en": "we will ", "fr": "nous vous écrirons "}


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("status", TrackingStatus)
@pytest.mark.parametrize("template", OF_ORDERS[:2])
def test_no_email_promises_another(template, status, code):
    """Shops stop at `completed`, orders arrive when they are final, and customers unsubscribe."""
    fact = msgspec.structs.replace(FACTS[template], tracking_status=status)
    told = compose(received(fact), Sender(language=code))
    assert PROMISES[code] not in told.text.lower()


@pytest.mark.parametrize("what", ["update_given_up", "key_reused"])
def test_a_business_reads_its_own_number(what):
    fact, id_ = FACTS["not_taken"], str(FACTS["not_taken"].order_id)
    numbered = email_of("not_taken", what=what, order_number=NUMBER)
    plain = email_of("not_taken", what=what)
    assert fact.order_id != fact.event_id
    assert NUMBER in numbered.text
    assert escape(NUMBER) in numbered.html
    assert "number" in numbered.text
    assert id_ not in numbered.text
    assert id_ in plain.text
    for email in (numbered, plain):
        assert "\n\nThere may be more today" in email.text


def test_a_shop_is_told_of_its_number_there_and_of_what_it_can_do(configure):
    configure(tracking_url="https://portal.example/track")
    told = email_of("not_taken", what="update_given_up", order_number="#1001", of_shop=True)
    assert "#1001" in told.text
    assert "before you added the webhook" in told.text
    assert "When a webhook was off" in told.text
    text = re.sub(r"https?://\S+", "", told.text)
    for ours in ("order_number", "order_id", str(FACTS["not_taken"].order_id)):
        assert ours not in text
