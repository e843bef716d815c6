"""Every email in every language: complete, and with nothing of another one."""

import re
from datetime import UTC, date, datetime
from html import unescape
from uuid import UUID

import msgspec
import pytest

from services.ingress.platforms import order_events
from services.ingress.platforms.shopify import PLATFORM as SHOPIFY
from services.ingress.platforms.woocommerce import PLATFORM as WOOCOMMERCE
from services.notifier.composing import CONTENTS, HIDDEN, compose
from services.notifier.previews import to_business
from services.notifier.previews.examples import SAMPLES, preview
from services.notifier.senders import OURS, Sender
from shared.bus.contract.events import (
    AccountChanged,
    OrderCancellationRecorded,
    OrderCancelled,
    OrderNotTaken,
    OrderRecorded,
    OrderStatusRecorded,
    SecretRevoked,
    TrackingStatus,
    in_test,
)
from shared.ids import order_of_number
from shared.languages.language import CODES, DEFAULT, language
from tests.integration.arrange import received
from tests.unit.ingress.platforms import orders
from tests.unit.notifier.facts import ACCOUNT, COMPANY, FACTS, UNTIL
from tests.unit.notifier.test_composing import Tags

replace = msgspec.structs.replace
NOW = datetime(2026, 11, 2, 9, tzinfo=UTC)
OTHERS = [code for code in CODES if code != DEFAULT]
PARCEL = {
    "carrier": "Swift",
    "tracking_number": "JD0146",
    "tracking_url": "https://track.carrier.example/JD0146",
    "estimated_delivery": date(2026, 12, 3),
    "order_number": "A-1001",
}


def variants():
    """Every email in each of its forms, by a name."""
    facts = dict(FACTS)
    for what in AccountChanged.__annotations__["what"].__args__:
        facts[f"account_changed-{what}"] = replace(
            FACTS["account_changed"], what=what, address="192.0.2.7", value="ours"
        )
    for what in OrderNotTaken.__annotations__["what"].__args__:
        for number in ("A-1001", msgspec.UNSET):
            facts[f"not_taken-{what}-{number}"] = replace(
                FACTS["not_taken"], what=what, order_number=number
            )
    facts["not_taken-shop"] = replace(FACTS["not_taken"], order_number="A-1001", of_shop=True)
    for status in TrackingStatus:
        facts[f"order_status-{status}"] = replace(
            FACTS["order_status"], tracking_status=status, **PARCEL
        )
    for name in ("order_received", "order_status", "order_cancelled"):
        facts[f"{name}-numbered"] = replace(FACTS[name], order_number="A-1001")
        facts[f"{name}-test"] = in_test(FACTS[name], customer_email=ACCOUNT["email"])
    for cause in ("expired_use", "operator"):
        facts[f"secret_rotated-{cause}"] = replace(FACTS["secret_rotated"], cause=cause)
    for name in ("secret_issued", "secret_shown", "secret_rotated", "secret_expiring"):
        facts[f"{name}-test"] = replace(FACTS[name], is_test=True)
    for share, is_last in ((0.25, False), (0.001, True)):
        facts[f"secret_expiring-{share}"] = replace(
            FACTS["secret_expiring"], share_of_last_day=share, last_used_at=UNTIL, is_last=is_last
        )
    facts["secret_expiring-used"] = replace(FACTS["secret_expiring"], last_used_at=UNTIL)
    facts["secret_revoked-2"] = replace(
        FACTS["secret_revoked"], secret_ids=FACTS["secret_revoked"].secret_ids * 2
    )
    for kinds in (("live",), ("test",), ("key",), ("shopify",), ("live", "test")):
        for count in (1, 2):
            facts[f"secret_revoked-{'-'.join(kinds)}-{count}"] = replace(
                FACTS["secret_revoked"],
                kinds=kinds,
                secret_ids=(UUID(int=3),) * max(count, len(kinds)),
            )
    for cause in filter(None, SecretRevoked.__annotations__["cause"].__args__):
        facts[f"secret_revoked-{cause}"] = replace(
            FACTS["secret_revoked"], cause=cause, reason="You ended test mode."
        )
    given = FACTS["secret_given"]
    facts["secret_given-first"] = replace(given, shop="", previous_valid_until=None)
    facts["secret_given-revoked"] = replace(given, revoked_ids=(given.secret_id,))
    facts["allowlist-open"] = replace(FACTS["allowlist_changed"], allowed_networks=())
    facts["code-reset"] = replace(FACTS["one_time_code"], purpose="password_reset")
    return facts


VARIANTS = variants()


def email_in(code, fact, **more):
    return compose(received(fact), Sender(language=code, **more))


def seen(email):
    """What the reader of the HTML part can see, in one line."""
    html = re.sub(r"<style>.*?</style>", "", email.html, flags=re.DOTALL)
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", html)).split())


def whole(email):
    """All that its reader can see, in one line."""
    return " ".join(f"{email.subject} {email.text} {seen(email)}".split())


def sentences(code):
    """Yield the pieces of each text between its placeholders that have at least three words."""
    for text in language(code).texts.values():
        for piece in re.split(r"\{\w+\}", text):
            if len(piece.split()) >= 3:
                yield piece.strip()


def of_shops():
    """Yield events of shops' orders that need every one of our phrases."""
    nobody = {"first_name": "", "last_name": "", "company": ""}
    billing = {"email": "zoe@shop.example"} | nobody
    lines = [{"name": f"Kettle {n} " * 20, "quantity": 1} for n in range(40)]
    bare = {"line_items": [], "billing": billing, "shipping": nobody}
    found = [
        (WOOCOMMERCE, orders.woocommerce(**bare)),
        (WOOCOMMERCE, orders.woocommerce(**bare | {"line_items": lines})),
        (WOOCOMMERCE, orders.woocommerce(status="refunded")),
    ]
    for reason in ("customer", "inventory", "declined"):
        at = {"cancelled_at": "2026-11-03T08:00:00Z", "cancel_reason": reason}
        found.append((SHOPIFY, orders.shopify(**at)))
    for platform, order in found:
        said = platform.read(msgspec.json.decode(orders.raw(order), type=platform.order), "")
        id_ = order_events.order_id(platform, UUID(int=1), said)
        topic = "change" if said.status else "new"
        yield order_events.event_of(platform, id_, topic, said, UUID(int=1), NOW).event


def told_of(event, **changes):
    """The fact that a recorder makes of it."""
    common = {
        "order_id": event.order_id,
        "account_id": event.account_id,
        "company_name": COMPANY,
        "customer_email": "zoe@shop.example",
        "order_number": event.order_number,
    } | changes
    if isinstance(event, OrderCancelled):
        common |= {"customer_name": "Zoë", "item_summary": "kettle"}
        cancelled = TrackingStatus.CANCELLED
        return OrderCancellationRecorded(**common, tracking_status=cancelled, reason=event.reason)
    return OrderRecorded(
        customer_name=event.customer_details.name,
        item_summary=event.item_summary,
        address=event.address,
        tracking_status=event.tracking_status,
        **common,
    )


OUR_WORDS = [
    "No postal address", "No items were named", "Total: 68.90 EUR", ", and more", "Customer",
    "The order was refunded.", "The customer cancelled.", "Items are out", "payment was declined",
]  # fmt: skip


@pytest.mark.parametrize("code", OTHERS)
def test_our_phrases_in_a_shops_order_are_translated(code):
    for event in of_shops():
        told, english = (whole(email_in(c, told_of(event))) for c in (code, DEFAULT))
        assert [words for words in OUR_WORDS if words in english]
        assert [words for words in OUR_WORDS if words in told] == []
        # A sender's own words are as they came.
        own = told_of(event, order_number="A-1", order_id=order_of_number(UUID(int=1), "A-1"))
        assert [words for words in OUR_WORDS if words in whole(email_in(code, own))]


def test_the_list_of_our_phrases_is_complete():
    told = " ".join(whole(email_in(DEFAULT, told_of(event))) for event in of_shops())
    assert [words for words in OUR_WORDS if words not in told] == []


@pytest.mark.parametrize("code", OTHERS)
@pytest.mark.parametrize("name", VARIANTS)
def test_nothing_of_english_is_left(name, code, configure):
    configure(tracking_url="https://portal.example/track/")
    told = whole(email_in(code, VARIANTS[name], reply_to="help@kettle.example"))
    assert [piece for piece in sentences(DEFAULT) if piece in told] == []


@pytest.mark.parametrize("name", VARIANTS)
def test_the_default_language_is_english(name):
    """And its emails contain the sentences that translations are checked against."""
    fact = VARIANTS[name]
    message = received(fact)
    email = compose(message)
    assert email == compose(message, OURS)
    assert any(piece in whole(email) for piece in sentences(DEFAULT))


@pytest.mark.parametrize("code", CODES)
def test_every_text_of_emails_is_used(code, configure):
    """None is dead, and none is forgotten in the test above."""
    asked = set()

    class Listening(type(language(code))):
        def __call__(self, key, **values):
            asked.add(key)
            return super().__call__(key, **values)

    say = Listening(code, language(code).texts)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("services.notifier.composing.language", lambda _: say)
        for tracking_url in ("https://portal.example/track/", ""):
            configure(tracking_url=tracking_url)
            for fact in VARIANTS.values():
                for reply_to in ("", "help@kettle.example"):
                    email_in(code, fact, reply_to=reply_to)
    of_emails = {key for key in say.texts if not key.startswith(("pages.", "common."))}
    assert of_emails - asked == set()


def test_the_end_of_test_mode_does_not_mention_the_live_secret():
    reason = "You ended test mode: these were test secrets."
    fact = replace(FACTS["secret_revoked"], kinds=("test",), cause="ended_test_mode", reason=reason)
    told = {code: email_in(code, fact) for code in ("en", "fr")}
    assert told["en"].subject == "Your test secret was revoked"
    assert "secret de test" in told["fr"].subject
    assert "You ended" not in whole(told["fr"])
    for email in told.values():
        assert "webhook" not in email.text.partition("\n--\n")[0]


@pytest.mark.parametrize(
    ("name", "pages"),
    {
        "signed_in": ("/password/lost", "/account"),
        "secret_shown": ("/password/lost", "/account"),
        "allowlist_changed": ("/password/lost", "/account"),
        "secret_given": ("/secret", "/password/lost"),
        "secret_key_removed": ("/password/lost",),
        "account_changed-password_changed": ("/password/lost", "/secret"),
        "secret_revoked": ("/secret",),
    }.items(),
)
def test_an_email_about_a_break_in_has_buttons(name, pages, configure):
    configure(tracking_url="https://portal.example/track/")
    html = email_in("en", VARIANTS[name]).html
    assert re.findall(r'href="https://portal.example([^"]+)"', html) == list(pages)


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("name", VARIANTS)
def test_both_parts_are_equal_and_well_formed(name, code):
    email = email_in(code, VARIANTS[name])
    tags = Tags()
    tags.feed(email.html)
    assert tags.open == []
    assert email.html.isascii()
    assert f'<html lang="{code}">' in email.html
    assert '<meta name="color-scheme" content="light dark">' in email.html
    assert "<img" not in email.html
    assert "\n\n\n" not in email.text
    said, shown = email.text.partition("\n--\n")[0], seen(email)
    words = {word.strip("[]:.,") for word in said.split() if "://" not in word} - {"x"}
    assert [word for word in words if word not in shown] == []


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("name", [name for name in VARIANTS if name.startswith("order_")])
def test_an_orders_email_begins_with_the_number_and_says_how_far_it_is(name, code):
    fact, email = VARIANTS[name], email_in(code, VARIANTS[name])
    say = language(code)
    number = str(fact.order_number or fact.order_id)
    assert number in email.text.splitlines()[0]
    preheader = unescape(re.search(r'opacity:0">([^<]*)</div>', email.html)[1])
    assert say.status(fact.tracking_status) in preheader.lower()
    way = [status for status in TrackingStatus if status != TrackingStatus.CANCELLED]
    marks = re.findall(r"\[(.)\] ", email.text)
    if fact.tracking_status == TrackingStatus.CANCELLED:
        assert marks == []
        return
    done = way.index(fact.tracking_status) + 1
    assert marks == ["x"] * done + [" "] * (4 - done)
    progress = say("orders.step", number=done, total=4)
    assert progress in email.text
    assert progress in unescape(email.html)


@pytest.mark.parametrize("code", CODES)
def test_the_business_is_named_and_can_be_reached(code):
    fact = FACTS["order_received"]
    for reply_to in ("", "help@kettle.example"):
        email = email_in(code, fact, reply_to=reply_to)
        for part in (email.text.partition("\n--\n")[2], unescape(email.html)):
            assert COMPANY in part
            assert ("help@kettle.example" in part) == bool(reply_to)


def test_a_business_is_written_to_in_its_language_and_time_under_our_name():
    kettle = Sender("Kettle", "help@kettle.example", "fr", "Africa/Lagos")
    email = compose(received(FACTS["secret_rotated"]), kettle)
    assert email.sender == OURS
    assert email.subject == "Vous avez un nouveau secret de webhook"
    assert "1 mars 2099 à 15:05 UTC+1" in email.text
    assert compose(received(FACTS["order_status"]), kettle).sender == kettle


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("name", SAMPLES)
def test_a_preview_is_the_email_itself_and_leads_nowhere(name, code, configure):
    configure(tracking_url="https://portal.example/track/")
    shown = preview(name, COMPANY, Sender(language=code))
    tags = Tags()
    tags.feed(shown.html)
    assert tags.open == []
    assert language(code)("pages.sample.name") in shown.text
    assert "token=" not in shown.html + shown.text
    assert "A-1001" in shown.text.splitlines()[0]
    assert not re.search(r"track/[\w-]", shown.html)


def test_every_email_there_is_has_a_preview():
    shown = {type(made(ACCOUNT, language("en"))) for made in to_business.SAMPLES.values()}
    to_customers = {OrderRecorded, OrderStatusRecorded, OrderCancellationRecorded}
    assert shown == {type_ for type_ in CONTENTS if not type_.IS_TEST} - to_customers


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("name", to_business.SAMPLES)
def test_a_preview_of_ours_to_a_business_is_the_email_itself(name, code, configure):
    configure()
    shown = preview(name, COMPANY, Sender(language=code))
    tags = Tags()
    tags.feed(shown.html)
    assert tags.open == []
    assert shown.subject.strip()
    assert COMPANY in shown.text or name == "one_time_code"
    assert (HIDDEN in shown.text) == (name == "one_time_code")
