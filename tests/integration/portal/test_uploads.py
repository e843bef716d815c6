"""A file of orders in the portal: judged, sent as a program sends it, and its failed rows back."""

import csv
import html
import io
import json
import re
import time

import pytest
from sqlalchemy import select

from services.portal.pages.uploads.judging import MOST_BYTES, MOST_ROWS
from shared.bus.contract.events import WebhookFileSent
from shared.db.models import Account, WebhookPolicy
from tests.integration.arrange import facts, sign, take, until
from tests.integration.portal.test_walk import approved, secret_of

HEAD = "name,email,item_summary,address\n"


def rows(*names):
    return HEAD + "".join(f'{name},{name}@shop.example,"a, b",here\n' for name in names)


def bodies(stage):
    """The orders that were published, by message id, and how many messages there were."""
    found, count = {}, 0
    while (message := take(stage.api.amqp_url, "orders.intake")) is not None:
        found[message.properties["message_id"]] = json.loads(message.body)
        count += 1
    return found, count


@pytest.fixture(scope="module")
def business(stage):
    browser, email = approved(stage)
    secret_of(browser)
    return browser, email


@pytest.fixture
def browser(stage, business):
    bodies(stage)
    return business[0]


def choose(browser, content, name="orders.csv"):
    browser.get("/upload")
    given = content if isinstance(content, bytes) else content.encode()
    return browser.send("/upload", files={"file": (name, given)})


def send(browser):
    """Press until it has ended, as somebody without scripts does."""
    browser.send("/upload")
    while "data-ended" not in browser.page:
        assert 'role="alert"' not in browser.page, browser.page
        browser.send("/upload")


def test_a_file_is_looked_at_then_sent_and_twice_is_once(stage, browser):
    content = rows("Ada", "=Ben", "Ada")
    choose(browser, content)
    assert browser.texts("button")[-1] == "Send 3 orders: up to 3 emails go out"
    assert bodies(stage) == ({}, 0)
    preview = browser.page
    send(browser)
    assert "3 of 3 were accepted" in browser.page
    first, count = bodies(stage)
    assert (len(first), count) == (3, 3)
    assert {one["customer_details"]["name"] for one in first.values()} == {"Ada", "=Ben"}
    # The same page again, and the same file again: the same messages.
    browser.page = preview
    send(browser)
    choose(browser, content)
    send(browser)
    again, count = bodies(stage)
    assert count == 6
    assert again == first
    with stage.api.session() as session:
        told = facts(session, WebhookFileSent.TYPE)
        email = business_of(browser)
        assert len({fact.sha256 for fact in told if fact.email == email}) == 1


def business_of(browser):
    return re.search(r'title="[^"]*, ([^",]+)"', browser.page)[1]


def test_all_faults_of_a_row_at_once_in_the_webhooks_own_words(stage, browser):
    content = HEAD.replace(",", ";") + "Ada;ada@shop.example;x;here\r\n;no address;;\r\n"
    choose(browser, content)
    assert "1 of 2 rows" in browser.page
    secret = secret_of(browser)
    body = json.dumps({"customer_details": {"email": "no address"}}).encode()
    answer = stage.api.http.post("/webhooks/orders/", content=body, headers=sign(secret, body))
    choose(browser, content)
    faults = answer.json()["faults"]
    assert len(faults) >= 3
    shown = html.unescape(browser.page)
    assert [fault for fault in faults if fault not in shown] == []
    send(browser)
    assert "1 of 1 were accepted" in browser.page
    back = browser.send("/upload/failed")
    named, row = csv.reader(io.StringIO(back.removeprefix("\ufeff")), delimiter=";")
    assert row[:2] == ["", "no address"]
    assert named[-3:] == ["code", "error", "idempotency_key"]
    assert all(fault in row[-2] for fault in faults)


def test_what_comes_back_is_mended_and_sent_under_its_key(stage, browser):
    choose(browser, rows("Ada") + ",b@shop.example,+1,here\n", "b.csv")
    send(browser)
    back = browser.send("/upload/failed")
    assert "'+1" in back
    mended = back.replace("\n,b@", "\nBen,b@")
    choose(browser, mended, "b.failed.csv")
    send(browser)
    assert "1 of 1 were accepted" in browser.page
    sent, _ = bodies(stage)
    assert {one["item_summary"] for one in sent.values()} == {"a, b", "+1"}


def test_json_lines_come_back_as_json_lines(stage, browser):
    good = {"customer_details": {"name": "Ada", "email": "a@b.example"}, "item_summary": "x",
            "address": "y", "order_number": "A-1"}  # fmt: skip
    update = {"type": "order.cancelled", "order_number": "A-1"}
    lines = [good, update, good | {"item_summary": "other"}, {"item_summary": 1}]
    choose(browser, "\n".join(json.dumps(line) for line in lines) + "\n[", "orders.jsonl")
    assert "Send 1 order and 1 update: up to 2 emails go out" in browser.page
    assert "Line 1 has another order of its number or key." in browser.page
    send(browser)
    back = [json.loads(line) for line in browser.send("/upload/failed").splitlines()]
    assert [line["line"] for line in back] == [3, 4, 5]
    assert {line["code"] for line in back} == {"invalid_body"}
    assert len(bodies(stage)[0]) == 2


@pytest.mark.parametrize(
    ("name", "content", "word"),
    [
        ("a.csv", "name\nZoë\n".encode("latin-1"), "save it as CSV UTF-8"),
        ("a.csv", b"naem\nx\n", "unknown columns: naem"),
        ("a.csv", b"", "Choose a file first"),
        ("a.csv", b"name\n", "there is no order in it"),
        ("a.csv", b"name\n" + b"x\n" * (MOST_ROWS + 1), "split it"),
        ("a.jsonl", b"x" * (MOST_BYTES + 1), "split it"),
    ],
)
def test_a_file_that_cannot_be_sent_is_refused_in_words(browser, name, content, word):
    choose(browser, content, name)
    assert browser.status == 400
    assert word in html.unescape(browser.page)
    assert "data-ended" not in browser.page


def test_what_is_larger_than_any_form_is_refused(browser):
    choose(browser, b"x" * 2_000_000)
    assert browser.status == 413


def test_what_nobody_would_take_offers_nothing_to_press(browser):
    choose(browser, HEAD + ",,,x\n")
    assert "0 of 1 rows" in browser.page
    assert not [said for said in browser.texts("button") if said.startswith("Send")]


def test_a_limit_of_the_account_is_waited_for_and_a_block_is_said(stage, business, browser):
    with stage.api.session() as session, session.begin():
        account = session.scalar(select(Account).where(Account.email == business[1]))
        session.add(
            WebhookPolicy(account_id=account.id, rate_per_second=1, standard_webhooks_only=True)
        )
    choose(browser, rows("A", "B", "C", "D"))
    send(browser)
    assert "4 of 4 were accepted" in browser.page
    with stage.api.session() as session, session.begin():
        session.get(WebhookPolicy, account.id).allowed_networks = ["203.0.113.0/24"]
    choose(browser, rows(*"EFGHIJKLMN"))
    time.sleep(3)  # the worker hears of the list within a second
    browser.send("/upload")
    while 'role="alert"' not in browser.page:
        assert "data-ended" not in browser.page, "the allowlist did not hold"
        browser.send("/upload")
    assert "allowlist" in browser.page
    assert "hx-trigger" not in browser.page
    with stage.api.session() as session, session.begin():
        session.get(WebhookPolicy, account.id).allowed_networks = []
    until_sent(browser)
    assert "10 of 10 were accepted" in browser.page


def until_sent(browser):
    def look():
        browser.send("/upload")
        return "data-ended" in browser.page

    until(look, "it is sent")


def test_another_business_has_nothing_of_what_a_page_carries(stage, browser):
    choose(browser, rows("Ada"))
    carried = re.search(r'name="upload" value="([^"]+)"', browser.page)[1]
    other, _ = stage.registered()
    other.get("/kyc")
    token = re.search(r'name="form_token" value="([^"]+)"', other.page)[1]
    for given in (carried, carried[:-4], "", "é"):
        data = {"form_token": token, "sure": "yes", "upload": given}
        for path in ("/upload", "/upload/failed"):
            answer = other.http.post(path, data=data)
            assert answer.status_code == 400, answer.text
    assert bodies(stage) == ({}, 0)


def test_who_is_not_approved_uploads_nothing(stage):
    other, _ = stage.registered()
    other.get("/upload")
    assert "when we have approved your business" in other.page
    token = re.search(r'name="form_token" value="([^"]+)"', other.page)[1]
    files = {"file": ("a.csv", rows("Ada").encode())}
    other._took(other.http.post("/upload", data={"form_token": token}, files=files))
    other.send("/upload")
    assert "KYC" in other.page
    assert bodies(stage) == ({}, 0)


def test_a_form_with_a_file_needs_the_token_of_its_browser(browser):
    files = {"file": ("a.csv", rows("Ada").encode())}
    for token in ("", "0" * 64):
        answer = browser.http.post("/upload", data={"form_token": token}, files=files)
        assert answer.status_code == 403
    answer = browser.http.post(
        "/upload", content=b"x", headers={"Content-Type": "multipart/form-data"}
    )
    assert answer.status_code == 400
