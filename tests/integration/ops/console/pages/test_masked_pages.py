"""Who sees persons at the console, on every page that there is: by walking through them all."""

import html
import re
from contextlib import contextmanager
from datetime import UTC, datetime
from urllib.parse import quote, urlsplit

import httpx
import pytest
from sqlalchemy import create_engine, delete, select, text
from sqlalchemy.orm import Session

from services.ops.console.app import PAGES
from services.ops.console.web.mount import FORM, SESSION
from services.ops.users import users
from services.ops.users.rights import Right
from shared.bus.contract.events import OpsDataViewed, decode
from shared.db.models import (
    AuditEntry,
    EmailDelivery,
    KycApplication,
    OpsTrouble,
    Order,
    OrderStatusHistory,
    OutboxMessage,
    WebhookRequest,
)
from shared.ids import new_id
from shared.security.audit_chain import GENESIS
from shared.web.tokens import form_token
from tests.integration.arrange import PATIENCE, account, depth, publish_raw, until
from tests.integration.of_a_file import database_url
from tests.integration.ops.console.running import console, service

PASSWORD = "correct horse battery"
EMAIL = "zoe@shop.example"
PERSON = (
    EMAIL,
    "Zoë Ade",
    "a red kettle",
    "12 Marina Road",
    "leave it at the gate",
    "https://track.carrier.example/JD0146",
    "gift for a birthday",
)
BUSINESS = ("it@kettle.example", "7 Broad Street", "Bola Contact", "Tayo Keyed", "RC-7777")
CLIENT = "203.0.113.7"
MARKS = re.compile("|".join(map(re.escape, (*PERSON, *BUSINESS, CLIENT, quote(EMAIL, safe="")))))
BODY = f'{{"customer_details": {{"name": "Zoë Ade", "email": "{EMAIL}"}}}}'.encode()
# Of what is done or begun; they show nobody.
PASSING = {
    "/jobs/{job_id}",
    "/jobs/{job_id}/progress",
    "/accounts/{account_id}/outcomes/{message_id}",
    "/kyc/outcomes/{message_id}",
    "/sign-in",
    "/sign-in/code",
}
SHOWN = [p for p in PAGES if p.method == "GET" and p.path not in PASSING]


__all__ = ["console", "database_url", "service"]


@pytest.fixture
def amqp_url(module_amqp_url):
    """With what lies there, for all of these tests."""
    return module_amqp_url


@pytest.fixture(scope="module")
def everybody(module_amqp_url, module_database_url):
    """A person in every place that has any."""
    made = create_engine(module_database_url)
    with Session(made, expire_on_commit=False) as db:
        fill(db, module_amqp_url)
    made.dispose()


def fill(db, amqp_url):
    business = account(db, status="pending", email=BUSINESS[0], company_name="Kettle & Co")
    account(db, status="approved", email="two@kettle.example", company_name="Kettle Two")
    application = db.scalar(select(KycApplication).where(KycApplication.account_id == business.id))
    application.business_address = BUSINESS[1]
    application.contact_person_details = '{"name": "Bola Contact", "Tayo Keyed": "x"}'
    application.business_registration_number = BUSINESS[3]
    now = datetime.now(UTC)
    for id_ in (new_id(), new_id()):
        db.add(
            Order(
                id=id_,
                account_id=business.id,
                customer_name=PERSON[1],
                customer_email=EMAIL,
                customer_phone="",
                item_summary=PERSON[2],
                address=PERSON[3],
                tracking_status="PENDING",
                status_at=now,
                status_event_id=id_,
                accepted_at=now,
                order_number="A-1001",
                sent_metadata={"gift": PERSON[6]},
                tracking={"tracking_url": PERSON[5]},
            )
        )
        db.flush()
        db.add(
            OrderStatusHistory(
                event_id=id_,
                order_id=id_,
                tracking_status="PENDING",
                note=PERSON[4],
                at=now,
                applied=True,
                tracking={"tracking_url": PERSON[5]},
            )
        )
        db.add(
            EmailDelivery(
                id=new_id(),
                fact_id=new_id(),
                subject_id=str(id_),
                template="order_received",
                recipient=EMAIL,
                message_id="<x@order-fellow.example>",
                state="undeliverable",
                response=f"550 <{EMAIL}>: no such user",
            )
        )
    db.execute(text("SELECT keep_webhook_request_partitions(7)"))
    db.add(
        WebhookRequest(
            at=now,
            account_id=business.id,
            accepted=True,
            code="accepted",
            event_type="order.created",
            order_id=id_,
            idempotency_key=f"order of {EMAIL}",
            scheme="x-api-key",
            latency_us=900,
            client_address=CLIENT,
        )
    )
    db.add(
        AuditEntry(
            sequence=1,
            event_id=new_id(),
            type="account.signed_in",
            happened_at=now,
            actor=BUSINESS[0],
            address=CLIENT,
            correlation_id="",
            data=f'{{"email": "{BUSINESS[0]}", "note": "{BUSINESS[1]}"}}',
            previous_hash=GENESIS,
            hash=GENESIS,
        )
    )
    db.execute(
        text(
            "INSERT INTO outbox (message_id, exchange, routing_key, type, correlation_id, source,"
            " time, body, attempts, next_try_at, parked_at, reason)"
            " VALUES (:id, 'gone', 'x', 'order.created', '', 'tests', now(), :body, 1,"
            " now() + interval '1 day', now(), :reason)"
        ),
        {"id": new_id(), "body": BODY, "reason": f"it says {EMAIL}"},
    )
    db.add(OpsTrouble(key="x: y", level="warning", about="x", text="It is so.", began_at=now,
                      seen_at=now, ended_at=now))  # fmt: skip
    for queue in ("orders.intake",):
        publish_raw(
            amqp_url,
            "dead",
            queue,
            BODY,
            message_id="letter",
            type="order.created",
            delivery_mode=2,
            application_headers={"x-reason": f"Refused: {EMAIL}", "x-reasons": [f"550 {EMAIL}"]},
        )
    until(lambda: depth(amqp_url, "orders.intake.dead"), "it lies there")
    publish_raw(
        amqp_url,
        "retry.1h",
        "orders.intake",
        BODY,
        delivery_mode=2,
        application_headers={"x-reason": f"Refused: {EMAIL}"},
    )
    db.commit()


@contextmanager
def signed_in(console, db, role):
    users.put(db, "ada", role, PASSWORD)
    db.commit()
    with httpx.Client(base_url=console, timeout=PATIENCE) as client:
        client.get("/sign-in")
        form = {"name": "ada", "password": PASSWORD, "form_token": form_token(client.cookies[FORM])}
        assert client.post("/sign-in", data=form).status_code == 303
        yield client


def form(client):
    """The field that every form has."""
    return {"form_token": form_token(client.cookies[SESSION])}


def walk(console, db, role):
    """Every page that somebody of a role is led to: its text, by route."""
    routes = {p.path: re.compile(re.sub(r"\{\w+\}", "[^/]+", p.path)) for p in SHOWN}
    found, ahead = {}, ["/", "/find?q=Kettle", f"/find?q={quote(EMAIL)}", "/audit.csv"]
    with signed_in(console, db, role) as client:
        seen = set()
        while ahead:
            url = ahead.pop(0)
            parts = urlsplit(url)
            kind = (parts.path, "" if parts.path == "/audit" else parts.query)
            if kind in seen or parts.path.startswith("/static"):
                continue
            seen.add(kind)
            answer = client.get(url)
            assert answer.status_code in (200, 303, 403, 404), (url, answer.text)
            route = next((r for r, p in routes.items() if p.fullmatch(parts.path)), None)
            # What they have typed in themselves is no news.
            shown = answer.text.replace(f"“{EMAIL}”", "")
            if route and answer.status_code == 200:
                found.setdefault(route, []).append(shown)
            ahead += map(html.unescape, re.findall(r'href="(/[^"]*)"', answer.text))
            if answer.status_code == 303:
                ahead.append(answer.headers["Location"])
    return found


@pytest.mark.parametrize("role", ["watch", "act", *Right])
def test_persons_are_in_the_clear_for_whom_the_page_says(console, db, everybody, role):
    rights = {"watch": set(), "act": set(Right)}.get(role) if role in ("watch", "act") else {role}
    db.execute(delete(OutboxMessage).where(OutboxMessage.type == OpsDataViewed.TYPE))
    found = walk(console, db, role)
    reached = {p.path for p in SHOWN if not isinstance(p.needs, Right) or p.needs in rights}
    assert set(found) == reached
    told = {
        decode(row.type, row.body).page
        for row in db.scalars(select(OutboxMessage).where(OutboxMessage.type == OpsDataViewed.TYPE))
    }
    for page in SHOWN:
        marks = {mark for shown in found.get(page.path, []) for mark in MARKS.findall(shown)}
        is_plain = bool(rights & set(page.plain))
        assert bool(marks) is is_plain, (page.path, marks)
        assert (f"GET {page.path}" in told) is is_plain, page.path


FIELDS = re.compile(
    r'<form (?:(?!method="post")[^>])*action="([^"]+)"[^>]*>(.*?)</form>', re.DOTALL
)
NAMED = re.compile(
    r'<(?:input|textarea)\b(?![^>]*type="(?:hidden|date|checkbox)")[^>]*name="(\w+)"'
)


def test_what_is_masked_is_not_found_out_whole_or_letter_by_letter(console, db, everybody):
    marks = (*PERSON, *BUSINESS, f"order of {EMAIL}")
    parts = [*marks, *(mark[: max(3, len(mark) - 2)] for mark in marks)]
    tried = set()
    with signed_in(console, db, "watch") as client:
        for path in ("/kyc", "/audit", "/dead/orders.intake", "/outbox", "/"):
            for action, inside in FIELDS.findall(client.get(path).text):
                # The search is on every page.
                for field in {f for f in NAMED.findall(inside) if (action, f) not in tried}:
                    tried.add((action, field))
                    none = client.get(action, params={field: "q-1-q"})
                    nothing = none.text
                    for part in parts:
                        answer = client.get(action, params={field: part})
                        found = answer.text
                        assert answer.status_code == none.status_code, (action, field, part)
                        assert found.count("<tr") == nothing.count("<tr"), (action, field, part)
                        assert found.count('class="card"') == nothing.count('class="card"')
    assert tried >= {
        ("/find", "q"),
        ("/kyc", "words"),
        ("/audit", "words"),
        ("/dead/orders.intake", "reason"),
    }
