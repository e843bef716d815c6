"""The whole story over HTTP, AMQP and the mailbox, as its users live it."""

import json
import re
import uuid
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import httpx
import pika
import pytest
from kombu import Connection
from sqlalchemy import create_engine, select, text

from services.ops.journal import reading
from shared.bus.contract import topology
from shared.db.models import Base
from stack.mailbox import Maildir, text_of
from tests.integration.arrange import PATIENCE, get, sign, until

ORDERS, CONNECTIONS = 1000, 20
PASSWORD = "correct horse battery"
EXPIRED = "Webhook secret expired. New secret generated. Please update your configuration."
SENTENCES = {
    "Missing authentication headers",
    "Invalid API key",
    "Invalid signature",
    EXPIRED,
    "KYC approval required",
}


@dataclass
class Business:
    """One business, and all it knows."""

    running: object
    email: str = field(default_factory=lambda: f"it-{uuid.uuid4().hex[:10]}@kettle.example")

    def __post_init__(self):
        self.http = httpx.Client(base_url=f"{self.running.api_url}/api/v1", timeout=PATIENCE)
        self.mailbox = Maildir(self.running.mailbox)

    def mails(self, subject=""):
        return [
            text_of(mail)
            for mail in self.mailbox.emails()
            if self.email in mail["To"] and subject in mail["Subject"]
        ]

    def mail(self, subject):
        return until(lambda: self.mails(subject), f"an email '{subject}'")[-1]

    def register(self):
        body = {"company_name": "Kettle & Co", "email": self.email, "password": PASSWORD}
        answer = self.http.post("/users/auth/register/", json=body)
        assert answer.status_code == 201, answer.text
        self.id = answer.json()["id"]
        code = re.search(r"\b\d{6}\b", self.mail("code"))[0]
        answer = self.http.post("/users/verify-otp/", json={"email": self.email, "otp": code})
        assert answer.status_code == 200, answer.text
        answer = self.http.post(
            "/users/auth/login/", json={"email": self.email, "password": PASSWORD}
        )
        assert answer.status_code == 200, answer.text
        self.tokens = answer.json()["access"], answer.json()["refresh"]
        self.http.headers["Authorization"] = f"Bearer {self.tokens[0]}"
        return self

    def submit(self):
        facts = {
            "business_registration_number": f"RC-{self.id[-8:]}",
            "business_address": "1 Broad St",
            "contact_person_details": "Ada Eze",
        }
        answer = self.http.post("/kyc/", json=facts)
        assert answer.json()["status"] == "pending", answer.text
        self.mail("KYC")
        return self

    def decide(self, decision, **more):
        """As an operator with a stock AMQP client: bare JSON."""
        parameters = pika.URLParameters(self.running.amqp_url)
        with pika.BlockingConnection(parameters) as connection:
            body = json.dumps({"decision": decision, "email": self.email, **more})
            connection.channel().basic_publish("commands", "kyc.decide", body.encode())
        return self

    def fetch(self):
        answer = self.http.get("/webhook/secret/")
        return answer.json()["secret_key"] if answer.status_code == 200 else None

    def secret(self):
        return until(self.fetch, "a secret")

    def send(self, secret, body, client=None, **headers):
        raw = json.dumps(body).encode()
        return (client or self.http).post(
            "/webhooks/orders/", content=raw, headers=sign(secret, raw) | headers
        )

    def orders(self):
        found, cursor = [], None
        while True:
            query = {"limit": 200} | ({"cursor": cursor} if cursor else {})
            page = self.http.get("/orders/", params=query).json()
            found += page["results"]
            cursor = page["next"]
            if cursor is None:
                return found


def order(number=0, run=""):
    return {
        "customer_details": {
            "name": f"Customer {number}",
            "email": f"customer{number}{run}@shop.example",
            "phone": "+234",
        },
        "item_summary": "2 × blue kettle",
        "address": "12 Marina Road\nLagos",
        "tracking_status": "PENDING",
    }


@pytest.fixture(scope="module")
def business(running):
    """An approved business."""
    return Business(running).register().submit().decide("approve")


def test_a_thousand_orders_each_recorded_and_told_once(running, business):
    secret = business.secret()
    run = uuid.uuid4().hex[:6]

    def send(numbers):
        with httpx.Client(base_url=f"{running.api_url}/api/v1", timeout=PATIENCE) as client:
            return [business.send(secret, order(n, run), client) for n in numbers]

    with ThreadPoolExecutor(CONNECTIONS) as threads:
        shares = [range(start, ORDERS, CONNECTIONS) for start in range(CONNECTIONS)]
        answers = [answer for share in threads.map(send, shares) for answer in share]
    assert Counter(a.status_code for a in answers) == {201: ORDERS}
    ids = {a.json()["order_id"] for a in answers}
    assert len(ids) == ORDERS

    def recorded_now():
        return [o for o in business.orders() if run in o["customer_details"]["email"]]

    until(lambda: len(recorded_now()) >= ORDERS, "all recorded")
    recorded = recorded_now()
    assert len(recorded) == ORDERS
    assert {o["id"] for o in recorded} == ids

    def customers():
        return [
            address
            for mail in business.mailbox.emails()
            for address in re.findall(r"customer\d+\w+@shop\.example", mail["To"])
            if run in address
        ]

    until(lambda: len(customers()) >= ORDERS, "all told")
    assert Counter(customers()) == {f"customer{n}{run}@shop.example": 1 for n in range(ORDERS)}
    (mail,) = [m for m in business.mailbox.emails() if f"customer7{run}@" in m["To"]]
    by_email = {o["customer_details"]["email"]: o["id"] for o in recorded}
    assert by_email[f"customer7{run}@shop.example"] in text_of(mail)


def test_every_sentence_where_it_should_be(running, business):
    newcomer = Business(running).register()
    heard = [newcomer.http.get("/webhook/secret/").json()]
    assert heard[0]["message"] == (
        "You must complete and have your KYC approved to access webhook functionality."
    )
    secret = business.secret()
    heard += [
        business.http.post("/webhooks/orders/", json=order()).json(),
        business.send(secret, order(), **{"X-API-Key": "whsk_other"}).json(),
        business.send(secret, order(), **{"X-Webhook-Signature": "0" * 64}).json(),
    ]
    expire(running, business)
    answer = until(lambda: told_of_expiry(business, secret), "the expiry is in force")
    heard.append(answer.json())
    assert {h["error"] for h in heard} == SENTENCES
    assert len({h["code"] for h in heard}) == len(SENTENCES)
    new = business.secret()
    assert new != secret
    until(lambda: business.send(new, order()).status_code == 201, "the new secret works")
    assert business.send(secret, order()).json()["error"] == EXPIRED


def expire(running, business):
    """Move the clock of a business's secrets."""
    engine = create_engine(running.database_url)
    with engine.begin() as connection:
        connection.execute(
            text("UPDATE webhook_secrets SET expires_at = :at WHERE account_id = :id"),
            {"at": datetime.now(UTC) - timedelta(seconds=1), "id": business.id},
        )
    engine.dispose()


def told_of_expiry(business, secret):
    answer = business.send(secret, order())
    return answer if answer.json().get("error") == EXPIRED else None


def test_the_schedule_alone_renews_what_has_expired(running):
    business = Business(running).register().submit().decide("approve")
    secret = business.secret()
    expire(running, business)
    # Nobody asks for anything: the mail comes by itself.
    business.mail("new webhook secret")
    new = business.secret()
    assert new != secret
    until(lambda: business.send(new, order()).status_code == 201, "the new secret works")
    assert told_of_expiry(business, secret)


def test_an_order_moves_and_its_customer_hears_of_it(business):
    run = uuid.uuid4().hex[:6]
    secret = business.secret()

    def said(body):
        answer = until(lambda: business.send(secret, body), "an answer")
        assert answer.status_code == 201, answer.text
        return answer.json()["order_id"]

    order_id = said(order(1, run))
    for status in ("IN TRANSIT", "OUT_FOR_DELIVERY"):
        said({"type": "order.status_changed", "order_id": order_id, "tracking_status": status})
    said({"type": "order.cancelled", "order_id": order_id, "reason": "Sold out."})

    def detail():
        found = business.http.get(f"/orders/{order_id}/")
        return found.json() if found.status_code == 200 else {"emails": []}

    until(lambda: len(detail()["emails"]) == 4, "four emails")
    assert [h["tracking_status"] for h in detail()["status_history"]] == [
        "PENDING",
        "IN_TRANSIT",
        "OUT_FOR_DELIVERY",
        "CANCELLED",
    ]
    subjects = [
        mail["Subject"] for mail in business.mailbox.emails() if f"customer1{run}@" in mail["To"]
    ]
    assert len(subjects) == 4
    assert sum("cancelled" in subject for subject in subjects) == 1


def test_another_accounts_order_is_404(running, business):
    secret = business.secret()
    order_id = business.send(secret, order()).json()["order_id"]
    until(lambda: business.http.get(f"/orders/{order_id}/").status_code == 200, "recorded")
    other = Business(running).register()
    answer = other.http.get(f"/orders/{order_id}/")
    assert (answer.status_code, answer.json()["code"]) == (404, "order_not_found")
    assert other.orders() == []


def test_rejected_mended_approved_revoked(running):
    business = Business(running).register().submit()
    business.decide("reject", reason="No such registration number.")
    assert "No such registration number." in business.mail("not approved")
    assert business.fetch() is None
    business.submit().decide("approve")
    secret = business.secret()
    until(lambda: business.send(secret, order()).status_code == 201, "it may send")
    business.decide("revoke", reason="Complaints.")
    until(lambda: business.send(secret, order()).status_code == 401, "the secret is no good")
    assert business.send(secret, order()).json()["error"] == "Invalid API key"
    assert "Complaints." in business.mail("revoked")
    assert business.http.get("/webhook/secret/").json()["error"] == "KYC approval required"


def test_no_email_holds_a_secret(business):
    secret = business.secret()
    mails = business.mailbox.emails()
    assert mails
    assert not any(secret.encode() in mail.as_bytes() for mail in mails)
    assert not any(b"whsk_" in mail.as_bytes() for mail in mails)


def test_nothing_that_was_written_holds_a_secret_a_password_or_a_token(running, business):
    """Every message of the journal and of every queue, every error, the metrics, the database."""
    secret, tokens = business.secret(), business.tokens
    business.send(secret, {"broken": secret})
    business.http.get("/orders/?cursor=" + secret)
    errors = [
        httpx.request(method, f"{running.api_url}{path}", headers=headers, timeout=PATIENCE).content
        for headers in ({"X-API-Key": secret}, {"Authorization": f"Bearer {tokens[1]}"})
        for path in ("/api/v1/webhooks/orders/", "/api/v1/nowhere/", "/api/v1/orders/")
        for method in ("POST", "GET")
    ]
    written = [*errors, get(f"{running.api_url}/metrics").content]
    with Connection(running.amqp_url) as source:
        since = datetime.now(UTC) - timedelta(days=1)
        for entry in reading.read(source, since, datetime.now(UTC) + timedelta(days=1)):
            written += [entry.incoming.body, repr(entry.incoming).encode()]
        for queue in topology.DEAD_QUEUES:
            with source.channel() as channel:
                while (letter := channel.basic_get(queue.name)) is not None:
                    written += [bytes(letter.body), repr(letter.properties).encode()]
    engine = create_engine(running.database_url)
    with engine.connect() as connection:
        for table in Base.metadata.tables.values():
            written += [repr(tuple(row)).encode() for row in connection.execute(select(table))]
    engine.dispose()
    everything = b"\n".join(written)
    assert len(written) > 100
    assert business.email.encode() in everything
    for canary in (secret, secret.removeprefix("whsk_"), PASSWORD, *tokens):
        assert canary.encode() not in everything, canary


def test_no_log_holds_a_secret_a_code_or_an_address(running, business):
    secret = business.secret()
    written = b"".join(path.read_bytes() for path in running.logs.iterdir())
    assert written
    for word in (secret, PASSWORD, "whsk_", business.email, "@shop.example"):
        assert word.encode() not in written, word
