"""What a business sets in the portal beside its networks, and how it finds its way there."""

import re
from datetime import UTC, datetime

import pytest
from sqlalchemy import select

from services.portal.pages.first_request import LANGUAGES
from shared.db.models import Account, EmailSender, Suppression, WebhookPolicy, WebhookSecret
from shared.ids import new_id, order_of_number
from tests.integration.arrange import sign, until
from tests.integration.portal.conftest import PASSWORD
from tests.integration.portal.test_truth import an_order
from tests.integration.portal.test_walk import approved, secret_of

SHOPIFY = "0123456789abcdef0123456789abcdef"


@pytest.fixture(scope="module")
def business(stage):
    """Its browser, and its id."""
    browser, email = approved(stage)
    with stage.api.session() as session:
        return browser, session.scalar(select(Account.id).where(Account.email == email))


def chosen(stage, account_id):
    with stage.api.session() as session:
        found = session.get(EmailSender, account_id)
        return (found.display_name, found.reply_to) if found else ("", "")


def test_how_customers_see_it_and_where_their_answers_go(stage, business):
    browser, account_id = business
    answers = f"{new_id()}@help.example"
    browser.get("/emails/sender")
    browser.send("/emails/sender", display_name="Order Fellow", reply_to="")
    browser.send("/emails/sender")
    assert browser.status == 400
    assert "The name is refused" in browser.page
    browser.send("/emails/sender", display_name="Kettles of Lagos", reply_to=answers)
    assert "Change how your customers see you?" in browser.page
    assert chosen(stage, account_id) == ("", "")
    browser.send("/emails/sender")
    assert f"A code is on its way to {answers}" in browser.page
    # The name counts at once, the address when it is proved.
    assert chosen(stage, account_id) == ("Kettles of Lagos", "")
    browser.send("/emails/sender/code", code="000000")
    browser.send("/emails/sender/code")
    assert browser.status == 400
    browser.send("/emails/sender/code", code=stage.api.code_for(answers))
    assert answers in browser.page
    browser.send("/emails/sender/code")
    assert "Answers go there from now on." in browser.page
    assert chosen(stage, account_id) == ("Kettles of Lagos", answers)


def test_a_corrected_name_leaves_the_awaited_code_as_it_is(stage, business):
    browser, account_id = business
    answers = f"{new_id()}@help.example"
    before = chosen(stage, account_id)[1]
    browser.get("/emails/sender")
    browser.send("/emails/sender", display_name="Kettels", reply_to=answers)
    browser.send("/emails/sender")
    code = stage.api.code_for(answers)
    stale = browser.page
    browser.send("/emails/sender", display_name="Kettle Sons", reply_to=before)
    assert answers in browser.page
    browser.send("/emails/sender")
    assert chosen(stage, account_id) == ("Kettle Sons", before)
    browser.send("/emails/sender/code", code=code)
    browser.send("/emails/sender/code")
    assert chosen(stage, account_id) == ("Kettle Sons", answers)

    # The form of a second tab, where no code is awaited any longer.
    browser.page = stale
    browser.send("/emails/sender/code", code=code)
    assert (browser.status, "No code is awaited" in browser.page) == (409, True)
    browser.page = stale
    browser.send("/emails/sender/code", code=code, sure="yes")
    assert browser.status == 400
    assert "The code is wrong" in browser.page
    assert "<title>Error: " in browser.page


def test_what_somebody_else_has_saved_meanwhile_is_not_lost(stage, business):
    browser, account_id = business

    def saved():
        with stage.api.session() as session:
            policy, sender = session.get(WebhookPolicy, account_id), chosen(stage, account_id)
            return policy.allowed_networks if policy else [], sender[0]

    def save(action, page, **fields):
        browser.page = page
        browser.send(action, **fields)
        asked = browser.page
        browser.send(action)
        return asked

    networks = "/settings/allowlist"
    save(networks, browser.get("/settings"), networks="192.0.2.0/24\r\n198.51.100.0/24")
    mine = browser.get("/settings")
    save(networks, mine, networks="192.0.2.0/24\r\n198.51.100.0/24\r\n203.0.113.0/24")
    asked = save(networks, mine, networks="198.51.100.0/24\r\n127.0.0.0/8")
    assert saved()[0] == ["198.51.100.0/24", "203.0.113.0/24", "127.0.0.0/8"]
    assert re.findall(r"<dt>(New|Left out)</dt><dd>([^<]+)</dd>", asked) == [
        ("New", "127.0.0.0/8"),
        ("Left out", "192.0.2.0/24"),
    ]
    save(networks, browser.get("/settings"), networks="")
    assert saved()[0] == []
    mine = browser.get("/emails/sender")
    name = re.search(r'name="was_display_name" value="([^"]*)"', mine)[1]
    save("/emails/sender", mine, display_name="Kettles", reply_to="")
    save("/emails/sender", mine, display_name=name, reply_to=f"{new_id()}@help.example")
    assert saved()[1] == "Kettles"
    save("/emails/sender", browser.get("/emails/sender"), display_name="", reply_to="")
    assert saved()[1] == ""


def test_who_is_not_mailed_is_listed_and_a_refused_address_mailed_again(stage, business):
    browser, account_id = business
    order = an_order(account_id)
    refused, left = (
        Suppression(
            account_id=account_id,
            cause=cause,
            address_hash=new_id().bytes,
            key_id=b"12345678",
            address=address,
            by_order_id=order.id,
            order_id=order.id if cause == "unsubscribed" else None,
            smtp_code=550 if cause == "refused" else None,
            response="No <such> user" if cause == "refused" else "",
        )
        for cause, address in (("refused", "gone@shop.example"), ("unsubscribed", "left@x.example"))
    )
    with stage.api.session() as session, session.begin():
        session.add_all([order, refused, left])
        session.flush()
        ids = refused.id, left.id
    page = browser.get("/emails/refused")
    for shown in ("gone@shop.example", "550 No &lt;such&gt; user", "left@x.example", "one order"):
        assert shown in page
    # Only they can come back.
    assert re.findall(r'action="/emails/refused/([^/]+)/lift"', page) == [str(ids[0])]
    assert "left@x.example" not in browser.get("/emails/refused?cause=refused")
    browser.send(f"/emails/refused/{ids[0]}/lift")
    assert "gone@shop.example" in browser.page
    browser.send(f"/emails/refused/{ids[0]}/lift")
    assert "mailed again from the next email on" in browser.page
    token = re.search(r'name="form_token" value="([^"]+)"', browser.page)[1]
    sent = {"form_token": token, "sure": "yes"}
    answer = browser.http.post(f"/emails/refused/{ids[1]}/lift", data=sent)
    assert "only they can come back" in answer.text
    with stage.api.session() as session:
        kept = session.scalars(select(Suppression.id).where(Suppression.account_id == account_id))
        assert kept.all() == [ids[1]]


def test_an_order_is_found_by_its_number(stage, business):
    browser, account_id = business
    with stage.api.session() as session, session.begin():
        for number in ("B-1", "B-2"):
            id_ = order_of_number(account_id, number)
            session.add(an_order(account_id, id=id_, order_number=number))
    page = browser.get("/orders?order_number=B-2")
    assert (">B-2<" in page, ">B-1<" in page) == (True, False)
    assert "No order matches" in browser.get("/orders?order_number=B-3")


def test_a_shop_is_set_up_and_its_secret_given(stage, business):
    browser, account_id = business
    page = browser.get("/shops")
    for platform in ("woocommerce", "shopify"):
        assert f"/api/v1/webhooks/{account_id}/{platform}/</code>" in page
    assert "Order fulfillment" in page
    given = {"given_secret": SHOPIFY, "shop": "kettles"}
    browser.send("/shops/shopify", **given, password="a wrong one")
    browser.send("/shops/shopify")
    assert (browser.status, "The password is wrong." in browser.page) == (403, True)
    assert re.search(r'id="shopify-password"[^>]* aria-invalid="true"', browser.page)
    assert "The secret of kettles" not in browser.get("/shops")
    browser.send("/shops/shopify", **given, password=PASSWORD)
    assert PASSWORD not in browser.page
    assert "Take what Shopify signs with this secret?" in browser.page
    assert SHOPIFY not in browser.page
    browser.send("/shops/shopify")
    assert "What Shopify signs with it is taken." in browser.page
    assert SHOPIFY not in browser.page
    assert "The secret of kettles" in browser.page
    with stage.api.session() as session:
        of_shopify = WebhookSecret.account_id == account_id, WebhookSecret.platform == "shopify"
        assert session.scalars(select(WebhookSecret.shop).where(*of_shopify)).all() == ["kettles"]
    trial = {"given_secret": SHOPIFY[::-1], "shop": "trial", "is_test": "yes"}
    browser.send("/shops/shopify", **trial, password=PASSWORD)
    assert "are tests: only you are mailed" in browser.page
    browser.send("/shops/shopify")
    assert "The secret of trial (a development shop: test orders)" in browser.page
    with stage.api.session() as session:
        shops = select(WebhookSecret.shop).where(*of_shopify, WebhookSecret.is_test)
        assert session.scalars(shops).all() == ["trial"]
    browser.send("/shops/shopify", given_secret="short", shop="kettles", password=PASSWORD)
    browser.send("/shops/shopify")
    assert browser.status == 400
    token = re.search(r'name="form_token" value="([^"]+)"', browser.page)[1]
    assert browser.http.post("/shops/etsy", data={"form_token": token}).status_code == 404


def test_the_secret_stands_in_the_lines_where_it_was_just_shown_and_nowhere_else(stage, business):
    browser, _ = business
    secret = secret_of(browser)
    assert f"export WEBHOOK_SECRET={secret}" in browser.page
    for page in (browser.page, browser.get("/first-request")):
        assert re.findall(r'data-snippet="([^"]+)"', page) == list(LANGUAGES)
    assert len(LANGUAGES) == 7
    assert secret not in browser.page


def test_the_list_of_requests_looks_out_for_newer_ones(stage, business):
    browser, _ = business
    secret, body = secret_of(browser), f'{{"made_at": "{datetime.now(UTC)}"}}'.encode()
    page = browser.get("/requests?outcome=refused")
    again = re.search(r'hx-get="(/requests/newest\?outcome=refused)" hx-trigger="every 5s"', page)[
        1
    ]
    stage.api.http.post("/webhooks/orders/", content=body, headers=sign(secret, body))
    until(lambda: "invalid_body" in browser.get(again), "it is in the list")
    assert "<html" not in browser.page
    link = re.search(r'href="(/requests/2[^"]+)"', browser.page)[1]
    browser.get(link)
    of = re.search(r'href="(/signature\?of=[^"]+)"', browser.page)[1]
    signed = sign(secret, body)
    headers = "\n".join(f"{name}: {value}" for name, value in signed.items())
    for sent, is_same in ((body.decode(), "yes"), ("{}", "no")):
        browser.get(of)
        assert "X-API-Key: \nX-Webhook-Signature: </textarea>" in browser.page
        browser.send("/signature", headers=headers, body=sent)
        assert f'data-same-body="{is_same}"' in browser.page
    browser.get("/signature?of=nonsense")
    assert browser.status == 404


def test_the_limits_are_those_that_hold(stage, business):
    browser, account_id = business
    shown = browser.get("/settings")
    assert "5\N{THIN SPACE}000 a second for each of 2 workers;" in shown
    with stage.api.session() as session, session.begin():
        session.merge(WebhookPolicy(account_id=account_id, rate_per_second=7))
    assert "7 a second for each of 2 workers, set for you by our operators" in browser.get(
        "/settings"
    )


@pytest.mark.parametrize(
    "path",
    ["/first-request", "/signature", "/shops", "/emails", "/emails/sender", "/emails/refused"],
)
def test_every_page_is_reached_by_links(business, path):
    browser, _ = business
    start = "/requests" if path in ("/first-request", "/signature") else "/settings"
    assert f'<a href="{start}"' in browser.get("/")
    assert f'<a href="{path}"' in browser.get(start)
    assert f'<a href="{path}" aria-current="page">' in browser.get(path)


TYPED = {
    "/kyc": (
        "/kyc",
        {
            "business_registration_number": "RC-7 & Sons",
            "business_address": "\n1 Broad St\r\nLagos",
            "contact_person_details": "Ada",
        },
        ('value="RC-7 &amp; Sons"', ">\n\n1 Broad St\nLagos</textarea>", ">\nAda</textarea>"),
    ),
    "/emails": (
        "/emails",
        {"language": "fr", "time_zone": "Africa/Lagos"},
        ('lang="fr" selected', 'value="Africa/Lagos" required'),
    ),
    "/emails/sender": (
        "/emails/sender",
        {"display_name": "Kettles of <b>", "reply_to": "help@kettle.example"},
        ('value="Kettles of &lt;b&gt;"', 'value="help@kettle.example"'),
    ),
    "/settings": (
        "/settings/allowlist",
        {"networks": "203.0.113.0/24\r\n198.51.100.7"},
        (">\n203.0.113.0/24\n198.51.100.7</textarea>",),
    ),
    "/shops": (
        "/shops/shopify",
        {"given_secret": SHOPIFY, "shop": "Lagos & Co", "is_test": "yes"},
        ('value="Lagos &amp; Co"', 'value="yes" checked'),
    ),
}


@pytest.fixture(scope="module")
def applicant(stage):
    """A browser that fills forms in, and keeps none."""
    return stage.registered()[0]


@pytest.mark.parametrize("path", TYPED)
def test_who_answers_no_is_back_at_the_form_with_what_was_typed(applicant, path):
    action, fields, kept = TYPED[path]
    applicant.get(path)
    title = applicant.texts("title")
    applicant.send(action, **fields)
    assert ('name="sure" value="no"' in applicant.page, applicant.status) == (True, 200)
    applicant.send(action, sure="no")
    assert (applicant.status, applicant.texts("title")) == (200, title)
    for value in kept:
        assert value in applicant.page, value
    assert SHOPIFY not in applicant.page
    assert SHOPIFY.encode().hex() not in applicant.page
    # Nothing was done, and whoever comes anew finds what is there.
    anew = applicant.get(path)
    for value in kept:
        assert value not in anew, value


@pytest.mark.parametrize(
    ("path", "action", "fields", "faulty"),
    [
        ("/emails", "/emails", {"language": "en", "time_zone": "Lagos"}, {"zone"}),
        ("/settings", "/settings/allowlist", {"networks": "not one"}, {"networks"}),
        ("/shops", "/shops/shopify", {"given_secret": "", "shop": "x"}, {"shopify-secret"}),
    ],
)
def test_what_is_wrong_is_bound_to_its_field(applicant, path, action, fields, faulty):
    applicant.get(path)
    assert "aria-invalid" not in applicant.page
    applicant.send(action, **fields)
    if applicant.status == 200:
        applicant.send(action)
    assert applicant.status == 400
    assert applicant.page.count('id="wrong"') == 1
    bound = re.findall(
        r'<\w+ id="([\w-]+)"[^>]* aria-describedby="wrong" aria-invalid="true"', applicant.page
    )
    assert set(bound) == faulty
