"""Deliveries of WooCommerce and Shopify as they come, at a real ingress."""

import base64
import json
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import text

from services.ingress.webhook.signature_text import CURES
from tests.integration.arrange import PATIENCE, take, until
from tests.integration.ingress.conftest import ORDER, exchange
from tests.unit.ingress.platforms import orders

SHOP_SECRET = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
BILLING = orders.woocommerce()["billing"]


@dataclass
class Shop:
    """A shop of an approved business, and what its platform signs with."""

    sender: Any
    platform: str
    key: str
    headers: dict[str, str]

    @property
    def path(self):
        return f"/webhooks/{self.sender.account_id}/{self.platform}/"

    def deliver(self, order, topic, *, key=None, path=None, **changes):
        """Make a delivery; None takes a header away."""
        body = order if isinstance(order, bytes) else orders.raw(order)
        headers = self.signed(body, topic, key) | changes
        headers = {name: value for name, value in headers.items() if value is not None}
        return self.sender.api.http.post(path or self.path, content=body, headers=headers)

    def signed(self, body, topic, key=None):
        signature = orders.signature(key or self.key, body)
        named = {"woocommerce": "X-WC-Webhook-", "shopify": "X-Shopify-"}[self.platform]
        named_signature = "Signature" if self.platform == "woocommerce" else "Hmac-Sha256"
        return self.headers | {f"{named}Topic": topic, f"{named}{named_signature}": signature}

    def log(self, **query):
        """Its entries in the request log, the newest first."""
        headers = self.sender.bearer
        answer = self.sender.api.http.get("/webhooks/log/", headers=headers, params=query).json()
        return [entry for entry in answer["results"] if entry["scheme"] == self.platform]


def woocommerce(sender):
    headers = {
        "Content-Type": "application/json",
        "User-Agent": "WooCommerce/9.4 Hookshot (WordPress/6.7)",
        "X-WC-Webhook-Source": "https://kettles.example/",
        "X-WC-Webhook-Resource": "order",
        "X-WC-Webhook-ID": "1",
        "X-WC-Webhook-Delivery-ID": uuid4().hex,
    }
    return Shop(sender, "woocommerce", sender.secret, headers)


def shopify(sender, secret=SHOP_SECRET, shop=""):
    answer = give(sender, secret, shop=shop)
    assert answer.status_code == 200, answer.text
    headers = {
        "Content-Type": "application/json",
        "X-Shopify-Shop-Domain": "kettles.myshopify.com",
        "X-Shopify-API-Version": "2026-10",
        "X-Shopify-Webhook-Id": str(uuid4()),
        "X-Shopify-Event-Id": str(uuid4()),
    }
    return Shop(sender, "shopify", secret, headers)


def give(sender, secret, **more):
    return sender.api.http.put(
        "/webhook/secret/shopify/", headers=sender.bearer, json={"secret": secret, **more}
    )


def woo_order(**changes):
    return orders.recent(orders.woocommerce, **changes)


def shopify_order(**changes):
    return orders.recent(orders.shopify, **changes)


PLATFORMS = {
    "woocommerce": (woocommerce, woo_order, "order.created", "order.updated"),
    "shopify": (shopify, shopify_order, "orders/create", "orders/updated"),
}


@pytest.fixture(params=PLATFORMS)
def named(request):
    return request.param


@pytest.fixture
def shop(sender, named):
    return PLATFORMS[named][0](sender)


@pytest.fixture
def order(named):
    return PLATFORMS[named][1]


@pytest.fixture
def created(named):
    return PLATFORMS[named][2]


@pytest.fixture
def updated(named):
    return PLATFORMS[named][3]


def taken(shop, *delivery, **changes):
    """Delivered until every worker knows the secret: they hear of it by an event, or a poll."""
    return until(
        lambda: (answer := shop.deliver(*delivery, **changes)).status_code < 400 and answer,
        "the delivery is taken",
    )


def refused(shop, order, topic, status, code):
    """Delivered until it is refused, as each worker will that has heard why."""

    def answer():
        found = shop.deliver(order, topic)
        return found.status_code >= 400 and (found.status_code, found.json()["code"])

    assert until(answer, "it is refused") == (status, code)


def test_an_order_is_accepted_once_however_often_it_comes(shop, order, created, published):
    answers = [taken(shop, order(), created) for _ in range(3)]
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.json()["order_id"] for answer in answers}) == 1
    other = taken(shop, order(id=99), created)
    assert other.json()["order_id"] != answers[0].json()["order_id"]
    # Each delivery is a message; of one order they have one id, and count once.
    assert published.since() == 4


def test_a_recorded_delivery_is_one_order_whatever_is_written_beside_it(sender, published):
    """Neither source nor topic is signed."""
    shop = woocommerce(sender)
    ids = set()
    for number in range(3):
        for topic in ("order.created", "order.updated"):
            source = {"X-WC-Webhook-Source": f"https://{number}.example/"}
            answer = taken(shop, woo_order(status="completed"), topic, **source)
            ids.add(answer.json()["order_id"])
    assert len(ids) == 1
    messages = []
    while (message := take(sender.api.amqp_url, "orders.intake")) is not None:
        if json.loads(message.body)["order_id"] in ids:
            messages.append(message.properties["message_id"])
    # Its creation and its state: each with an id of its own, and counted once.
    assert (len(messages), len(set(messages))) == (6, 2)


def test_the_signing_form_of_the_secret_may_be_pasted_too(sender):
    shop = woocommerce(sender)
    answer = shop.deliver(woo_order(), "order.created", key=sender.signing_secret)
    assert answer.status_code == 201


@pytest.mark.parametrize("change", ["key", "body", "twice"])
def test_a_wrong_signature(shop, order, created, published, change):
    taken(shop, order(), created)
    before = published.since()
    body = orders.raw(order())
    headers = shop.signed(body, created, "another" if change == "key" else None)
    lines = [f"{name}: {value}".encode() for name, value in headers.items()]
    if change == "body":
        body = body.replace(b"68.90", b"00.01")
    if change == "twice":
        lines += [line for line in lines if b"Hmac" in line or b"Signature" in line]
    length = b"Content-Length: %d" % len(body)
    status, said = exchange(shop.sender.api, length, *lines, body=body, path=shop.path)
    assert (status, said["error"]) == (401, "Invalid signature")
    assert published.since() == before


def test_the_url_of_another_platform_and_of_ours(shop, order, created, published):
    taken(shop, order(), created)
    before = published.since()
    other = "shopify" if shop.platform == "woocommerce" else "woocommerce"
    for end in (other, "orders"):
        answer = shop.deliver(order(), created, path=f"/webhooks/{shop.sender.account_id}/{end}/")
        assert answer.status_code == 401
        assert answer.json()["error"] == "Missing authentication headers"
        assert any(f"account_id}}/{shop.platform}/" in fault for fault in answer.json()["faults"])
    assert published.since() == before


def test_missing_headers_are_named(shop, order, created):
    topic = next(name for name in shop.signed(b"", created) if name.endswith("Topic"))
    answer = shop.deliver(order(), created, **{topic: None})
    assert answer.status_code == 401
    assert answer.json()["faults"] == [f"{topic} is missing or empty."]


@pytest.mark.parametrize("account", ["nobody", "unknown"])
def test_nobodys_account_is_as_unknown_as_a_wrong_signature(shop, order, created, account):
    account_id = uuid4() if account == "unknown" else "x"
    answer = shop.deliver(order(), created, path=f"/webhooks/{account_id}/{shop.platform}/")
    assert (answer.status_code, answer.json()["error"]) == (401, "Invalid signature")
    assert answer.json()["faults"] == [CURES[shop.platform]]
    # And the holder of the secret is told no more.
    assert shop.deliver(order(), created, key="another").content == answer.content


def test_a_change_that_is_no_news_is_noted_and_may_place_an_order_that_waits(
    shop, order, updated, published
):
    answer = taken(shop, order(), updated)
    assert (answer.status_code, answer.json()["note"]) == (200, "no_change")
    entry = until(shop.log, "the log has it")[0]
    assert (entry["outcome"], entry["note"]) == ("accepted", "no_change")
    assert (entry["event_type"], bool(entry["order_id"])) == ("order.placed", True)
    assert published.since() == 1


def test_an_order_that_nobody_placed_is_accepted_and_noted(sender, published):
    shop = woocommerce(sender)
    answer = taken(shop, woo_order(status="pending"), "order.created")
    assert (answer.status_code, answer.json()["note"]) == (200, "not_placed")
    entry = until(shop.log, "the log has it")[0]
    assert (entry["note"], entry["event_type"]) == ("not_placed", "order.not_placed")
    assert published.since() == 1
    answer = shop.deliver(woo_order(status="failed"), "order.updated")
    assert answer.json()["note"] == "no_change"
    assert published.since() == 1


@pytest.mark.parametrize("topic", ["product.updated", "orders/delete", "order.deleted", "x"])
def test_another_topic_is_answered_200_so_that_nothing_is_given_up(shop, topic, published):
    answer = taken(shop, b'{"id": 727}', topic)
    assert (answer.status_code, answer.json()["note"]) == (200, "topic_not_taken")
    assert published.since() == 0
    entry = until(lambda: shop.log(note="topic_not_taken"), "the log has it")[0]
    assert entry["fault"].startswith(f"`{topic}` is not read here.")


def test_what_woocommerce_sends_in_place_of_an_order_is_named_where_its_business_looks(sender):
    shop = woocommerce(sender)
    refused = {"code": "woocommerce_rest_cannot_view", "message": "x", "data": {"status": 401}}
    gone = refused | {"code": "woocommerce_rest_shop_order_invalid_id", "data": {"status": 404}}
    answer = until(
        lambda: (found := shop.deliver(refused, "order.updated")).status_code != 401 and found,
        "the secret is known",
    )
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_body")
    assert shop.deliver(gone, "order.updated").json()["note"] == "order_gone"
    assert shop.deliver(woo_order(status=[]), "order.updated").status_code == 400
    entries = until(lambda: len(found := shop.log()) == 3 and found, "the log has all")
    told = {(entry["note"], entry["fault"]) for entry in entries}
    assert told == {
        (None, answer.json()["faults"][0]),
        (None, "$.status must be text, and is a list."),
        ("order_gone", None),
    }


@pytest.mark.parametrize("topic", ["customers/redact", "customers/data_request", "shop/redact"])
def test_a_request_about_a_persons_data_is_no_delivery_of_no_interest(sender, published, topic):
    """For Shopify it is dealt with by the 200."""
    shop = shopify(sender)
    answer = taken(shop, b'{"shop_id": 1, "customer": {"email": "zoe@shop.example"}}', topic)
    assert (answer.status_code, answer.json()["note"]) == (200, "privacy_request")
    until(shop.log, "the log has it")
    assert [entry["note"] for entry in shop.log(note="privacy_request")] == ["privacy_request"]
    assert published.since() == 0


def test_an_order_that_nobody_can_be_told_of_is_accepted_and_noted(shop, order, created, published):
    number = "A\\N"
    changes = {"email": None, "contact_email": None, "billing": BILLING | {"email": ""}}
    answer = taken(shop, order(number=number, name=number, **changes), created)
    assert (answer.status_code, answer.json()["note"]) == (200, "no_email_address")
    entry = until(shop.log, "the log has it")[0]
    assert (entry["note"], entry["event_type"]) == ("no_email_address", "order.unaddressed")
    assert published.since() == 1
    # Which one it was: it is in no book.
    assert entry["order_number"] == number
    assert taken(shop, order(id=99), created).status_code == 201
    until(lambda: len(shop.log(outcome="accepted")) == 2, "the log has both")
    for query in (
        {"note": "no_email_address"},
        {"order_number": number},
        {"event_type": "order.unaddressed", "order_number": f" {number} "},
    ):
        assert [found["order_number"] for found in shop.log(**query)] == [number]
    assert shop.log(note="old_order") == shop.log(order_number="727-0") == []


def test_an_imported_order_of_years_ago_is_answered_200_and_noted(shop, order, created, published):
    at = {"date_created_gmt": "2021-05-04T08:00:00", "processed_at": "2021-05-04T08:00:00Z"}
    answer = taken(shop, order(**at), created)
    assert (answer.status_code, answer.json()["note"]) == (200, "old_order")
    assert until(shop.log, "the log has it")[0]["note"] == "old_order"
    assert published.since() == 0


def test_a_test_notification_mails_nobody(sender, published):
    shop = shopify(sender)
    answer = taken(shop, shopify_order(), "orders/create", **{"X-Shopify-Test": "true"})
    assert (answer.status_code, answer.json()["note"]) == (200, "test")
    assert published.since() == 0


def ping(api, body, account_id, *lines):
    form = b"Content-Type: application/x-www-form-urlencoded"
    length = b"Content-Length: %d" % len(body)
    path = f"/webhooks/{account_id}/woocommerce/"
    return exchange(api, form, length, *lines, body=body, path=path)


def test_the_ping_of_woocommerce_is_answered_200_to_anybody_and_nothing_kept(sender, published):
    shop = woocommerce(sender)
    answers = [ping(sender.api, b"webhook_id=123", id_) for id_ in (sender.account_id, uuid4())]
    assert answers[0] == answers[1]
    assert answers[0][0] == 200
    # As the page has the URL, and as WordPress makes it of that: it is nobody's, whoever asks.
    for path in ("account_id", str(sender.account_id)[:18], str(sender.account_id) + "0"):
        status, told = ping(sender.api, b"webhook_id=123", path)
        assert (status, told["code"]) == (404, "not_found")
    assert published.since() == 0
    # What is logged is logged in its order.
    shop.deliver(woo_order(), "order.updated")
    assert [entry["note"] for entry in until(shop.log, "the log has it")] == ["no_change"]


@pytest.mark.parametrize(
    "body", [b"webhook_id=", b"webhook_id=1&x=2", b"a" * 64, b"{}", b"b" * 999]
)
def test_another_form_is_no_ping(sender, body):
    assert ping(sender.api, body, sender.account_id)[0] in (413, 415)


def test_wordpress_speaks_http_1_0(sender):
    """`wp_safe_remote_request` is told so by WooCommerce."""
    import socket

    shop = woocommerce(sender)
    body = orders.raw(woo_order())
    head = [f"POST /api/v1{shop.path} HTTP/1.0", "Host: x", f"Content-Length: {len(body)}"]
    head += [f"{name}: {value}" for name, value in shop.signed(body, "order.created").items()]
    host, port = sender.api.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=PATIENCE) as connection:
        connection.sendall("\r\n".join(head).encode() + b"\r\n\r\n" + body)
        answer = b""
        while chunk := connection.recv(65_536):
            answer += chunk
    assert b" 201 " in answer.split(b"\r\n", 1)[0]


STRANGE = [b"", b"null", b"[]", b'"x"', b"{}", b'{"id": "x"}', b"{" * 5_000, b"\xff\xfe"]


@pytest.mark.parametrize("body", STRANGE)
def test_strange_bodies_are_refused_in_words(shop, created, body):
    answer = until(
        lambda: (found := shop.deliver(body, created)).status_code != 401 and found, "known"
    )
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_body")
    # WooCommerce drops the answer, and Shopify shows none.
    entry = until(lambda: shop.log(code="invalid_body"), "the log has it")[0]
    assert answer.json()["faults"] == [entry["fault"]]


def test_an_order_of_hundreds_of_lines_is_taken_and_a_larger_body_is_not(shop, order, created):
    items = [{"name": "Kettle " * 20, "quantity": 1, "taxes": ["x" * 200] * 2} for _ in range(1500)]
    large = order(line_items=items)
    assert len(orders.raw(large)) > 600_000
    assert taken(shop, large, created).status_code == 201
    assert shop.deliver(order(note="x" * (1 << 20)), created).status_code == 413


def test_whoever_takes_standard_webhooks_only_takes_no_copies_of_these(shop, order, created):
    taken(shop, order(), created)
    http, bearer = shop.sender.api.http, shop.sender.bearer
    answer = http.put("/webhook/schemes/", headers=bearer, json={"standard_webhooks_only": True})
    assert answer.status_code == 200
    refused(shop, order(), created, 403, "scheme_not_allowed")


def test_the_allowlist_counts(shop, order, created):
    taken(shop, order(), created)
    http, bearer = shop.sender.api.http, shop.sender.bearer
    http.put("/webhook/allowlist/", headers=bearer, json={"allowed_networks": ["192.0.2.0/24"]})
    refused(shop, order(), created, 403, "address_not_allowed")


def test_a_revoked_business_is_refused(shop, order, created):
    taken(shop, order(), created)
    with shop.sender.api.session() as session:
        session.execute(
            text("UPDATE kyc_applications SET status = 'revoked' WHERE account_id = :id"),
            {"id": shop.sender.account_id},
        )
        session.commit()
    refused(shop, order(), created, 401, "invalid_signature")


def test_an_expired_secret_of_ours_says_so_and_is_replaced(sender):
    shop = woocommerce(sender)
    taken(shop, woo_order(), "order.created")
    with sender.api.session() as session:
        session.execute(
            text("UPDATE webhook_secrets SET expires_at = now() WHERE account_id = :id"),
            {"id": sender.account_id},
        )
        session.commit()
    answer = until(
        lambda: (found := shop.deliver(woo_order(), "order.created")).status_code == 401 and found,
        "the expiry is in force",
    )
    assert answer.json()["code"] == "secret_expired"


# --- secrets that a platform makes ------------------------------------------------------------


def given(sender):
    return sender.api.http.get("/webhook/secret/shopify/", headers=sender.bearer).json()["results"]


def test_a_given_secret_is_sealed_never_shown_and_is_no_api_key(sender, published):
    shop = shopify(sender)
    taken(shop, shopify_order(), "orders/create")
    (entry,) = given(sender)
    assert SHOP_SECRET not in json.dumps(entry)
    assert entry["valid_until"] is None
    with sender.api.session() as session:
        row = session.execute(
            text(
                "SELECT sealed, key_hash, id FROM webhook_secrets "
                "WHERE platform = 'shopify' AND account_id = :id"
            ),
            {"id": sender.account_id},
        ).one()
    assert SHOP_SECRET.encode() not in bytes(row.sealed)
    before = published.since()
    for key in (SHOP_SECRET, bytes(row.key_hash).hex(), str(row.id), f"shopify:{row.id}"):
        answer = sender.send(ORDER, **{"X-API-Key": key})
        assert answer.json()["error"] == "Invalid API key"
    assert published.since() == before
    # Ours is what it was.
    shown = sender.api.http.get("/webhook/secret/", headers=sender.bearer).json()
    assert shown["secret_key"] == sender.secret
    assert shown["retiring"] == []


def test_another_one_takes_its_place_and_the_one_before_works_for_a_day(sender):
    old = shopify(sender)
    new = shopify(sender, "another-secret-of-shopify")
    assert taken(new, shopify_order(), "orders/create")
    assert old.deliver(shopify_order(), "orders/create").status_code == 201
    states = [entry["valid_until"] is None for entry in given(sender)]
    assert states == [True, False]
    # Said again, it is the same, and what was to end with it ends.
    assert give(sender, "another-secret-of-shopify").status_code == 200
    assert len(given(sender)) == 2
    give(sender, "another-secret-of-shopify", revoke_previous=True)
    assert len(given(sender)) == 1
    until(lambda: old.deliver(shopify_order(), "orders/create").status_code == 401, "it ended")
    assert new.deliver(shopify_order(), "orders/create").status_code == 201
    give(sender, "a-third-secret-of-shopify", revoke_previous=True)
    until(
        lambda: (
            {s.deliver(shopify_order(), "orders/create").status_code for s in (old, new)} == {401}
        ),
        "those before are refused",
    )
    assert len(given(sender)) == 1


def test_each_shop_has_its_own_and_removing_one_leaves_the_others(sender):
    one = shopify(sender, "the-secret-of-one-shop", shop="one.myshopify.com")
    other = shopify(sender, "the-secret-of-another", shop="other.myshopify.com")
    for shop in (one, other):
        assert taken(shop, shopify_order(), "orders/create").status_code == 201
    http, path = sender.api.http, "/webhook/secret/shopify/"
    removed = http.delete(path, headers=sender.bearer, params={"shop": "one.myshopify.com"})
    assert removed.status_code == 204
    until(lambda: one.deliver(shopify_order(), "orders/create").status_code == 401, "refused")
    assert other.deliver(shopify_order(), "orders/create").status_code == 201
    assert [entry["shop"] for entry in given(sender)] == ["other.myshopify.com"]
    again = http.delete(path, headers=sender.bearer, params={"shop": "one.myshopify.com"})
    assert (again.status_code, again.json()["code"]) == (404, "given_secret_not_found")


def test_orders_of_a_development_shop_are_tests(sender):
    real = shopify(sender, "the-secret-of-the-shop", shop="kettles.myshopify.com")
    trial = Shop(sender, "shopify", "the-secret-of-its-copy", real.headers)
    assert give(sender, trial.key, shop="dev.myshopify.com", is_test=True).status_code == 200
    ids = {
        shop.key: taken(shop, shopify_order(), "orders/create").json()["order_id"]
        for shop in (real, trial)
    }
    assert ids[real.key] != ids[trial.key]  # a test order has an id of its own
    for shop, type_ in ((real, "order.created"), (trial, "order.test_created")):
        body = orders.raw(shopify_order())
        headers = shop.signed(body, "orders/create")
        verdict = tried(shop, body, headers)
        assert verdict["body"]["type"] == type_
        assert ("with a test secret" in " ".join(verdict["findings"])) == (shop is trial)
        assert verdict["expected_signature"] == headers["X-Shopify-Hmac-Sha256"]
        # Under which of the two it would be right nobody knows.
        assert tried(shop, b"{}", headers)["expected_signature"] is None
    # A secret that signed for both would leave open which an order is.
    answer = give(sender, trial.key, shop="kettles.myshopify.com")
    assert (answer.status_code, answer.json()["code"]) == (409, "secret_of_both_modes")
    # The shop itself is opened: from then on its orders are real, under the secret that it has.
    assert give(sender, trial.key, shop="dev.myshopify.com").status_code == 200
    assert sorted((one["shop"], one["is_test"]) for one in given(sender)) == [
        ("dev.myshopify.com", False),
        ("kettles.myshopify.com", False),
    ]
    until(
        lambda: (
            trial.deliver(shopify_order(), "orders/create").json().get("order_id") == ids[real.key]
        ),
        "its orders are real",
    )


def test_a_secret_that_is_given_for_the_other_mode_ends_no_other(sender):
    """A shop is made a development shop by the secret that it had before."""
    before = shopify(sender, "the-secret-of-before")
    now = Shop(sender, "shopify", "the-secret-of-now", before.headers)
    assert give(sender, now.key).status_code == 200
    taken(now, shopify_order(), "orders/create")
    assert give(sender, before.key, is_test=True).status_code == 200
    assert sorted((one["is_test"], one["valid_until"] is None) for one in given(sender)) == [
        (False, False),
        (True, True),
    ]


def test_replacing_ours_leaves_theirs_and_a_given_one_needs_an_approval(sender):
    shop = shopify(sender)
    http = sender.api.http
    http.post("/webhook/secret/", headers=sender.bearer, json={"revoke_previous": True})
    assert taken(shop, shopify_order(), "orders/create").status_code == 201
    with sender.api.session() as session:
        session.execute(
            text("UPDATE kyc_applications SET status = 'revoked' WHERE account_id = :id"),
            {"id": sender.account_id},
        )
        session.commit()
    answer = give(sender, SHOP_SECRET)
    assert (answer.status_code, answer.json()["error"]) == (403, "KYC approval required")
    assert given(sender) == []


def test_what_no_platform_gives(sender):
    http, bearer = sender.api.http, sender.bearer
    for name in ("woocommerce", "x"):
        answer = http.put(f"/webhook/secret/{name}/", headers=bearer, json={"secret": SHOP_SECRET})
        assert (answer.status_code, answer.json()["code"]) == (404, "platform_unknown")
    assert give(sender, "short").status_code == 400
    assert give(sender, "with a space in its middle").status_code == 400


def tried(shop, body, headers):
    """What the test endpoint says."""
    asked = {"headers": headers, "body_base64": base64.b64encode(body).decode()}
    http, bearer = shop.sender.api.http, shop.sender.bearer
    return http.post("/webhooks/test/", json=asked, headers=bearer).json()


def test_the_test_endpoint_says_of_a_delivery_what_the_webhook_says(shop, order, created):
    body = orders.raw(order())
    assert taken(shop, body, created).status_code == 201
    right = shop.signed(body, created)
    empty = shop.signed(b"{}", created)
    cases = [
        (body, right),
        (body + b"\n", right),
        (b"{}", empty),
        (body, shop.signed(body, "products/update")),
        (body, {name: value for name, value in right.items() if not name.endswith("Topic")}),
        (body, right | {"Content-Type": "text/plain"}),
    ]
    for sent, headers in cases:
        verdict = tried(shop, sent, headers)
        real = shop.sender.api.http.post(shop.path, content=sent, headers=headers)
        assert verdict["scheme"] == shop.platform, verdict
        assert verdict["code"] == real.json().get("code"), verdict
        assert verdict["note"] == real.json().get("note"), verdict
        assert verdict["is_accepted"] == (real.status_code < 300)
    assert verdict["secret"]["state"] == "active"
