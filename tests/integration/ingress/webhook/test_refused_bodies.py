"""What a sender of a wrong body is answered: all that is wrong, in words, at the first try."""

import json
import re

import pytest

from shared.bus.contract.events import decode
from tests.integration.arrange import take
from tests.integration.ingress.conftest import ORDER

CUSTOMER = ORDER["customer_details"]
STATUSES = "PENDING, IN_TRANSIT, OUT_FOR_DELIVERY, DELIVERED or CANCELLED"


def written(api):
    """The events that the orders' queue has, which is empty afterwards."""
    found = []
    while (message := take(api.amqp_url, "orders.intake")) is not None:
        found.append(decode(message.properties["type"], message.body))
    return found


WRONG = {
    "nothing": ({}, ["$.customer_details.name", "$.customer_details.email", "$.address"]),
    "other names": (
        {"customerDetails": CUSTOMER, "itemSummary": "kettle", "Address": "5 Road"},
        ["`customerDetails` is there", "`itemSummary` is there", "`Address` is there"],
    ),
    "all at once": (
        {"customer_details": {"name": "a\tb", "email": "zoe"}, "item_summary": "", "address": 5},
        ["has a tab", "an address that we can mail", "is empty", "is the number 5"],
    ),
    "a status of theirs": (ORDER | {"tracking_status": "shipped"}, [STATUSES, "'shipped'"]),
    "a list": ([ORDER], ["one event a request"]),
    "JSON in JSON": (json.dumps(ORDER), ["must be a JSON object"]),
    "a type of theirs": (ORDER | {"type": "order.shipped"}, ["order.created, order.status_ch"]),
    "an order id of theirs": (
        {"type": "order.cancelled", "order_id": "1042"},
        ["$.order_id must be a UUID", "goes into `order_number`", "and is '1042'"],
    ),
    "half an emoji": (
        json.dumps(ORDER | {"item_summary": "kettle \ud83d"}).encode(),
        ["$.item_summary has half a character (U+D83D)"],
    ),
    "seconds for a time": (
        {"type": "order.created", "timestamp": 1700000000, "data": ORDER},
        ["$.timestamp must be a time with a zone"],
    ),
    "Python's own form": (str(ORDER).encode(), ["json.dumps"]),
    "a form": (b"name=Zoe&email=zoe%40shop.example", ["fields of a form"]),
    "nothing at all": (b"", ["The body is empty."]),
    "UTF-16": (json.dumps(ORDER).encode("utf-16"), ["UTF-16"]),
    "Latin-1": (
        json.dumps(ORDER, ensure_ascii=False).encode("latin-1"),
        ["$.customer_details.name is not UTF-8", "Latin-1"],
    ),
    "Shopify": ({"line_items": [], "financial_status": "paid"}, ["an order of Shopify"]),
    "WooCommerce": ({"line_items": [], "billing": {}, "order_key": "w"}, ["of WooCommerce"]),
    "Magento": ({"increment_id": "5", "items": [], "grand_total": 5}, ["an order of Magento"]),
    "Stripe": (
        {"object": "event", "livemode": True, "api_version": "1", "data": {}, "type": "x"},
        ["an event of Stripe"],
    ),
    "a CloudEvent": (
        {"specversion": "1.0", "id": "1", "source": "/s", "type": "shop.order", "data": {}},
        ["a CloudEvent"],
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_body_is_told_all_that_is_wrong_and_no_pattern(sender, published, what):
    body, said = WRONG[what]
    for answer in (sender.send(body), sender.standard(body) if not _is_odd(body) else None):
        if answer is None:
            continue
        given = answer.json()
        assert (answer.status_code, given["code"]) == (400, "invalid_body")
        text = " ".join(given["faults"])
        assert [part for part in said if part not in text] == []
        assert all(fault in given["error"] for fault in given["faults"])
        assert not re.search(r"\^\[|\\x|\(\?|regex", given["error"])
    assert published.since() == 0


def _is_odd(body):
    """Whether Standard Webhooks' own library, which takes text, cannot sign it."""
    try:
        return isinstance(body, bytes) and not body.decode()
    except UnicodeDecodeError:
        return True


@pytest.mark.parametrize(
    ("body", "found"),
    [
        (ORDER | {"lines": [{"type": "gift"}], "timestamp": 1700000000}, {}),
        (ORDER | {"lines": {"type": "order.cancelled"}, "data": {"a": 1}}, {}),
        (ORDER | {"customer_details": CUSTOMER | {"phone": None}}, {"phone": ""}),
        (ORDER | {"tracking_status": None, "type": None}, {}),
        (
            ORDER | {"customer_details": {"name": " Zoë\n", "email": " zoe@münchen.example\n"}},
            {"name": "Zoë", "email": "zoe@xn--mnchen-3ya.example"},
        ),
        (b"\xef\xbb\xbf" + json.dumps(ORDER).encode(), {}),
    ],
)
def test_what_has_one_meaning_is_taken(api, sender, body, found):
    written(api)
    answer = sender.send(body)
    assert answer.status_code == 201, answer.text
    (order,) = written(api)
    assert str(order.order_id) == answer.json()["order_id"]
    assert order.item_summary == ORDER["item_summary"]
    for name, value in found.items():
        assert getattr(order.customer_details, name) == value


@pytest.mark.parametrize(
    ("method", "path", "body", "said"),
    [
        ("POST", "/users/auth/register/", {"email": "x"}, ["$.company_name", "$.password"]),
        ("POST", "/users/verify-otp/", {"email": "a@b.example", "otp": "12 34"}, ["six digits"]),
        ("POST", "/kyc/", {"contact_person_details": 5}, ["$.business_address", "or an object"]),
        ("PUT", "/webhook/allowlist/", {"allowed_networks": "all"}, ["must be a list"]),
        ("POST", "/webhooks/test/", {"headers": {"X-API-Key": 5}}, ["$.headers.X-API-Key"]),
        ("GET", "/orders/?created_from=2026&limit=x", None, ["created_from must", "limit must"]),
        ("GET", "/orders/?created_to=1e3", None, ["created_to must be a time with a zone"]),
        ("GET", "/webhooks/log/?received_from=1700000000", None, ["received_from must be a time"]),
        ("GET", "/webhooks/log/?code=NO!", None, ["code must be"]),
        ("GET", "/orders/?customer_email=zoe", None, ["customer_email must be an address"]),
    ],
)
def test_every_other_route_says_it_the_same_way(api, sender, method, path, body, said):
    answer = api.http.request(method, path, json=body, headers=sender.bearer)
    given = answer.json()
    assert answer.status_code == 400
    assert given["code"] in ("invalid_body", "invalid_query")
    assert [part for part in said if part not in " ".join(given["faults"])] == []
    assert not re.search(r"\^\[|\\\\x|\(\?|regex", given["error"])


def test_a_code_and_an_address_are_trimmed_on_every_route(api):
    given = {"email": " nobody@münchen.example\n", "otp": " 123456 "}
    assert api.http.post("/users/verify-otp/", json=given).json()["code"] == "invalid_otp"


def test_an_order_is_found_by_its_customers_address_as_it_was_sent(api, sender):
    answer = api.http.get(
        "/orders/", params={"customer_email": "zoe@münchen.example"}, headers=sender.bearer
    )
    assert answer.status_code == 200, answer.text
