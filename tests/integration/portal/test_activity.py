"""What happened to an account, in its portal: its own alone, in words, in its time zone."""

import html
import re

from sqlalchemy import select

from services.audit.api import SHOWN
from services.audit.handlers import write
from services.audit.parsing import Fact
from services.portal.pages.activity import CHANGES, WORDS, what
from shared.bus.contract.events import (
    AccountChanged,
    AccountSignInFailed,
    KycRejected,
    OpsCommandPublished,
    SecretRotated,
    decode,
    encode,
)
from shared.db.models import Account, OutboxMessage
from shared.ids import new_id
from tests.integration.arrange import received
from tests.integration.portal.conftest import PASSWORD

OPERATOR = "olivia@fellow.example"


def told(stage, email, *more):
    """As the relay and the audit service do: what the API told of the account, and more."""
    with stage.api.session() as session, session.begin():
        account = session.scalar(select(Account).where(Account.email == email))
        about = {
            "account_id": account.id,
            "company_name": account.company_name,
            "email": account.email,
        }
        rows = session.scalars(
            select(OutboxMessage)
            .where(OutboxMessage.correlation_id == str(account.id))
            .where(OutboxMessage.type != "account.otp_requested")
            .order_by(OutboxMessage.sequence)
        )
        events = [decode(row.type, row.body) for row in rows]
        events += [event(about) for event in more]
        for event in events:
            fact = Fact("who", "where", encode(event).decode())
            write(session, [received(event, correlation_id=str(account.id), data=fact)])


def rejected(about):
    return KycRejected(
        **about, application_id=new_id(), decided_by=OPERATOR, reason="<b>Number</b> unknown."
    )


def blocked(about):
    return AccountChanged(**about, what="blocked", by=OPERATOR, reason="Complaints.")


def commanded(about):
    return OpsCommandPublished(
        by=OPERATOR, address="10.0.0.1", command="kyc.decide", message_id=new_id(), reason="secret"
    )


def guessed(about):
    return AccountSignInFailed(
        email=about["email"], account_id=about["account_id"], address="198.51.100.9"
    )


def test_what_happened_is_told_newest_first_and_names_no_operator(stage):
    browser, email = stage.registered()
    assert "Nothing yet" in browser.get("/activity")
    told(stage, email, guessed, rejected, commanded, blocked)
    browser.get("/activity")
    said = [html.unescape(text) for text in browser.texts("td")]
    whats = said[::2]
    assert [text.split(" ")[0:2] for text in whats] == [
        ["Account", "blocked"],
        ["KYC", "application"],
        ["A", "sign-in"],
        ["Signed", "in"],
        ["Email", "address"],
    ]
    assert "by Order Fellow" in whats[0]
    assert "Complaints." in whats[0]
    assert "<b>Number</b> unknown." in whats[1]
    assert "&lt;b&gt;Number" in browser.page
    assert "by you or someone else" in whats[2]
    assert said[5] == "198.51.100.9"
    for hidden in (OPERATOR, "10.0.0.1", "kyc.decide"):
        assert hidden not in browser.page


def test_another_business_sees_nothing_of_it(stage):
    _, email = stage.registered()
    told(stage, email)
    other, _ = stage.registered()
    assert "Nothing yet" in other.get("/activity")


def test_it_is_paged_without_gaps_or_repeats(stage):
    browser, email = stage.registered()

    def named(number):
        return lambda about: AccountChanged(
            **about, what="display_name_changed", value=f"name-{number:03}"
        )

    told(stage, email, *(named(number) for number in range(120)))
    seen = re.findall(r"name-\d{3}", browser.get("/activity"))
    assert len(seen) == 50
    while link := re.search(r'href="(/activity\?[^"]+)">Older', browser.page):
        seen += re.findall(r"name-\d{3}", browser.get(html.unescape(link[1])))
    assert seen == [f"name-{number:03}" for number in reversed(range(120))]
    for cursor in ("x", "-1", "9" * 19, "²"):
        browser.get(f"/activity?cursor={cursor}")
        assert browser.status == 400


def test_times_are_the_readers(stage):
    browser, email = stage.registered()
    told(stage, email)
    browser.get("/activity")
    in_utc = browser.texts("time")
    assert "Times are in UTC" in html.unescape(browser.page)
    browser.get("/emails")
    browser.send("/emails", language="en", time_zone="Asia/Kolkata")
    browser.send("/emails")
    browser.get("/activity")
    assert "Times are in Asia/Kolkata" in browser.page
    there = browser.texts("time")
    assert len(there) == len(in_utc)
    assert there != in_utc
    # What machines read is the same.
    assert re.search(r'datetime="[^"]+\+00:00"', browser.page)


def test_who_is_signed_out_sees_nothing(stage):
    browser, _ = stage.registered()
    browser.get("/activity")
    browser.send("/sign-out")
    browser.get("/activity")
    assert browser.texts("button") == ["Sign in"]
    answer = stage.api.http.get("/activity/")
    assert answer.status_code == 401
    assert PASSWORD not in browser.page


def test_every_kind_has_words():
    assert set(WORDS) == set(SHOWN) - {AccountChanged.TYPE}
    changes = AccountChanged.__annotations__["what"].__args__
    assert set(CHANGES) == set(changes)
    entry = {"type": SecretRotated.TYPE, "details": {"is_test": True}, "by": "you"}
    assert what(entry) == "Webhook secret replaced (test mode)"
    assert what({"type": "of.tomorrow", "details": {}, "by": "you"}) == "of.tomorrow"
