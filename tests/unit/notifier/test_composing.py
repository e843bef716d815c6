"""Every fact that calls for an email, in words."""

import re
from html import escape, unescape
from html.parser import HTMLParser
from urllib.parse import urlsplit
from uuid import UUID

import msgspec
import pytest
from msgspec import UNSET

from services.notifier.composing import CONTENTS, compose
from services.portal.app import PAGES
from shared.bus.contract.errors import Permanent
from shared.bus.contract.events import (
    EVENT_TYPES,
    AccountVerified,
    CodePurpose,
    RefusedRecipient,
    SecretRotated,
    decode,
    encode,
)
from shared.security import tracking
from shared.security.unsubscribe_tokens import unsubscribe_tokens
from tests.integration.arrange import received
from tests.unit.notifier.facts import CODE, CUSTOMER, FACTS, UNTIL

SILENT = {"account.verified", "account.sign_in_failed", "webhook.file_sent"}


class Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.open = []
        self.seen = set()

    def handle_starttag(self, tag, attrs):
        self.seen.add(tag)
        if tag not in {"meta", "br", "hr"}:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def email_of(template, **changes):
    fact = msgspec.structs.replace(FACTS[template], **changes)
    return compose(received(fact))


@pytest.mark.parametrize("template", FACTS)
def test_a_fact_becomes_an_email(template):
    email = email_of(template)
    assert email.template == template
    to_customer = template.startswith("order_")
    assert email.recipient == ("zoe@shop.example" if to_customer else "owner@kettle.example")
    named = FACTS[template].company_name  # nobody's, before the address is proved
    assert email.recipient_name == (CUSTOMER if to_customer else named)
    assert email.subject
    assert "\n" not in email.subject
    assert named in email.text
    for left_over in ("{{", "{%", "None", "<p", "\n\n\n"):
        assert left_over not in email.text, left_over
    assert not email.text.startswith("\n")
    tags = Tags()
    tags.feed(email.html)
    assert tags.open == []
    assert escape(named, quote=False) in email.html


@pytest.mark.parametrize("template", FACTS)
def test_texts_of_others_are_escaped_in_html(template):
    email = email_of(template)
    tags = Tags()
    tags.feed(email.html)
    assert not tags.seen & {"b", "i", "number", "stock", "script"}
    assert not tags.seen - {
        *("html", "head", "meta", "title", "style", "body", "div", "table", "tr", "td", "h1"),
        *("p", "strong", "pre", "br", "blockquote", "a"),
    }


def test_both_parts_contain_the_same_values():
    for template, words in {
        "one_time_code": CODE,
        "kyc_rejected": "The <number> is not known.",
        "kyc_revoked": "Complaints.",
        "secret_rotated": "1 March 2099, 14:05 UTC",
        "secret_expiring": "1 March 2099, 14:05 UTC",
        "order_received": "Marina Road",
        "order_status": "out for delivery",
        "order_cancelled": "Out of <stock>",
    }.items():
        email = email_of(template)
        assert words in email.text, template
        assert escape(words, quote=False) in email.html, template


def test_causes_of_a_rotation_have_different_texts():
    causes = SecretRotated.__annotations__["cause"].__args__
    texts = {email_of("secret_rotated", cause=cause).text for cause in causes}
    assert len(texts) >= 3


def test_only_a_secret_in_use_has_an_urgent_warning():
    in_use = email_of("secret_expiring", share_of_last_day=0.251, last_used_at=UNTIL)
    last = email_of("secret_expiring", share_of_last_day=0.001, last_used_at=UNTIL, is_last=True)
    once = email_of("secret_expiring", last_used_at=UNTIL)
    never = email_of("secret_expiring")
    assert "still in use" in in_use.subject
    assert "25% of your requests" in in_use.text
    assert last.subject.startswith("Last warning: your old webhook secret is still in use")
    assert "Less than 1% of your requests" in last.text
    assert "Less than 1%" in last.html
    for quiet in (once, never):
        assert quiet.subject == "Your old webhook secret is about to expire"
        assert "there is nothing to do" in quiet.text
        assert "there is nothing to do" in quiet.html
    assert "its last use was on 1 March 2099" in once.text
    assert "no request that is signed with it" in never.text


def test_every_fact_of_interest_has_an_email():
    assert {name for name, _ in CONTENTS.values()} == set(FACTS)
    facts = {t for t, struct in EVENT_TYPES.items() if struct.EXCHANGE == "events"}
    facts = {t for t in facts if not t.startswith(("email.", "ops."))} - SILENT
    assert facts == {struct.TYPE for struct in CONTENTS}


@pytest.mark.parametrize("address", ["\n", "a@b.example\r\nRCPT TO:<c@d.example>", "a b@c.example"])
@pytest.mark.parametrize("name", FACTS)
def test_an_invalid_address_never_reaches_smtp(name, address):
    body = msgspec.json.decode(encode(FACTS[name]))
    member = "customer_email" if "customer_email" in body else "email"
    with pytest.raises(msgspec.ValidationError, match=member):
        decode(FACTS[name].TYPE, msgspec.json.encode(body | {member: address}))


def test_a_fact_without_an_email():
    fact = AccountVerified(account_id=FACTS["kyc_received"].account_id, company_name="K", email="e")
    assert compose(received(fact)) is None


def test_a_codes_email_is_the_same_whatever_the_registration_says():
    """An unproved address gets no text of the person who asked for the code."""
    for purpose in CodePurpose.__args__:
        words = "Free money at https://evil.example"
        emails = [email_of("one_time_code", purpose=purpose, company_name=n) for n in ("", words)]
        assert len({(email.subject, email.text, email.html) for email in emails}) == 1


def test_a_code_sealed_for_another_is_refused():
    other = FACTS["kyc_received"].account_id
    with pytest.raises(Permanent, match="cannot be opened"):
        email_of("one_time_code", code_id=other)


@pytest.mark.parametrize("template", FACTS)
def test_only_emails_to_customers_can_be_unsubscribed(template):
    email = email_of(template)
    link = re.search(r"http\S+/api/v1/unsubscribe/\?token=([\w-]+)", email.text)
    assert bool(link) == template.startswith("order_")
    if link is None:
        assert not email.unsubscribe_url
        return
    assert link[0] in email.html
    leaver = unsubscribe_tokens().read(link[1])
    assert (leaver.account_id, leaver.order_id) == (email.account_id, email.order_id)
    assert leaver.hashed in unsubscribe_tokens().hashes(email.account_id, email.recipient)
    # What confirms an order goes to who has left, too: no program is to offer to stop it.
    assert email.unsubscribe_url == ("" if template == "order_received" else link[0])


@pytest.mark.parametrize("template", FACTS)
def test_a_customers_email_leads_to_the_order_where_there_is_such_a_page(template, configure):
    configure(tracking_url="https://portal.example/track/")
    email = email_of(template)
    if not template.startswith("order_"):
        assert "portal.example/track" not in email.text + email.html
        return
    link = f"https://portal.example/track/{tracking.token_for(FACTS[template].order_id)}"
    assert f"Where it is: {link}\n\n--\n" in email.text
    assert f'href="{link}"' in email.html
    later = email_of(template, tracking_link=1)
    link = f"https://portal.example/track/{tracking.token_for(FACTS[template].order_id, 1)}"
    assert f"Where it is: {link}\n" in later.text
    configure(tracking_url="")
    assert "Where it is" not in email_of(template).text
    assert "See where your order is" not in email_of(template).html


@pytest.mark.parametrize("template", FACTS)
def test_where_there_is_a_portal_people_are_led_to_its_pages(template, configure):
    configure(tracking_url="https://portal.example/track")
    email = email_of(template)
    urls = re.findall(r"https?://[^\s\"<>]+", f"{email.text} {email.html}")
    assert [url for url in urls if "/api/v1/" in url and "unsubscribe" not in url] == []
    opened = {page.path for page in PAGES if page.method == "GET"}
    led = {
        urlsplit(url.rstrip(".")).path for url in urls if url.startswith("https://portal.example/")
    }
    assert {path for path in led if not path.startswith("/track/")} <= opened


def test_orders_without_an_address_are_looked_for_by_that():
    told = email_of("not_taken", what="no_email_address", order_number="A-1")
    assert "/api/v1/webhooks/log/?note=no_email_address\n" in told.text
    assert "/api/v1/webhooks/log/\n" in email_of("not_taken").text


@pytest.mark.parametrize("what", ["update_given_up", "key_reused"])
def test_an_order_that_was_not_taken_is_looked_for_by_its_number(what, configure):
    told = email_of("not_taken", what=what, order_number="A 1&2")
    assert "/api/v1/webhooks/log/?order_number=A+1%262\n" in told.text
    configure(tracking_url="https://portal.example/track")
    told = email_of("not_taken", what=what, order_number="A 1&2")
    assert 'href="https://portal.example/requests?order_number=A+1%262"' in told.html


def test_an_address_that_was_refused_is_of_an_order_by_its_number():
    one = {"address": "zoe@shop.example", "order_id": UUID(int=4), "response": "550"}
    for number, named in (("A-1001", "A-1001"), (UNSET, str(UUID(int=4)))):
        refused = RefusedRecipient(**one, order_number=number)
        assert f"(order {named})" in email_of("recipients_refused", recipients=(refused,)).text


def test_where_there_is_no_portal_people_are_told_the_api(configure):
    configure(tracking_url="https://shop.example/orders")
    assert "/api/v1/users/password/reset-code/" in email_of("signed_in").text


def test_texts_of_others_have_automatic_direction():
    html = email_of("order_received", item_summary="2 × قلم، 3 × دفتر").html
    assert re.search(r'<td [^>]*dir="auto"[^>]*>2 × قلم', unescape(html))
