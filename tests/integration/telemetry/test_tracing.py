"""One order's trace, from the request to the email, as a collector gets it."""

import subprocess
import sys
import uuid

import pytest
from sqlalchemy import text

from tests.integration.arrange import PATIENCE, until
from tests.integration.ingress.conftest import ORDER
from tests.integration.telemetry.collector import collecting

WEBHOOK = "POST /api/v1/webhooks/orders"
# The way of an order, each span the child of the one before it.
WAY = [
    (WEBHOOK, "services.ingress"),
    ("publish order.created", "services.ingress"),
    ("process order.created", "services.orders"),
    ("publish order.recorded", "relay"),
    ("process order.recorded", "services.notifier"),
    ("send email", "services.notifier"),
]


@pytest.fixture(scope="module")
def collector():
    with collecting() as found:
        yield found


@pytest.fixture(scope="module")
def environment(collector):
    return {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_BSP_SCHEDULE_DELAY": "100"}


def whole(collector, trace_of):
    """The spans of the trace with this webhook, once its email and all that led to it is there."""

    def look():
        (webhook,) = [span for span in collector.named(WEBHOOK) if trace_of(span)] or [None]
        spans = collector.trace(webhook.trace) if webhook else []
        ids = {span.id for span in spans}
        complete = {name for name, _ in WAY} | {"batch services.notifier"}
        return (
            spans
            if complete <= {span.name for span in spans}
            and all(span.parent in ids for span in spans if span is not webhook)
            else None
        )

    return until(look, "the whole trace")


def ancestors(span, spans):
    by_id = {other.id: other for other in spans}
    names = []
    while span is not None:
        names.append((span.name, span.service))
        span = by_id.get(span.parent)
    return names[::-1]


def test_an_order_is_one_tree_from_the_request_to_the_email(line, collector):
    assert line.sender.send().status_code == 201
    spans = whole(collector, lambda span: span.attributes["http.response.status_code"] == "201")
    roots = [span for span in spans if not span.parent]
    assert [(root.name, root.service) for root in roots] == WAY[:1]
    (email,) = [span for span in spans if span.name == "send email"]
    assert ancestors(email, spans) == WAY
    statements = [span for span in spans if "db.query.text" in span.attributes]
    (inserted,) = [s for s in statements if "INSERT INTO orders" in s.attributes["db.query.text"]]
    assert ancestors(inserted, spans) == [
        *WAY[:3],
        ("batch services.orders", "services.orders"),
        ("INSERT", "services.orders"),
    ]
    (told,) = [s for s in statements if "INTO email_deliveries" in s.attributes["db.query.text"]]
    assert ("batch services.notifier", "services.notifier") in ancestors(told, spans)
    assert not any(span.failed for span in spans)


def test_a_request_with_a_trace_goes_on_in_it(line, collector):
    trace, parent = uuid.uuid4().hex, uuid.uuid4().hex[:16]
    answer = line.sender.send(traceparent=f"00-{trace}-{parent}-01")
    assert answer.status_code == 201
    spans = whole(collector, lambda span: span.trace == trace)
    (webhook,) = [span for span in spans if span.name == WEBHOOK]
    assert webhook.parent == parent


def test_the_spans_of_a_batch_and_of_its_messages_are_linked(line, collector):
    from concurrent.futures import ThreadPoolExecutor

    before = len(collector.named("process order.created"))
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda _: line.sender.send(), range(40)))
    until(lambda: len(collector.named("process order.created")) == before + 40, "all handled")
    shared = until(
        lambda: [s for s in collector.named("batch services.orders") if s.links],
        "a batch of several",
    )
    messages = {span.id: span for span in collector.named("process order.created")}
    for batch in shared:
        assert batch.parent in messages
        assert int(batch.attributes["messaging.batch.message_count"]) == len(batch.links) + 1
        for id_ in batch.links:
            assert messages[id_].links == {batch.id}
            assert messages[id_].trace != batch.trace


def test_what_a_route_writes_belongs_to_the_trace_of_its_request(line, collector):
    email = f"{uuid.uuid4().hex}@kettle.example"
    body = {"company_name": "Kettle & Co", "email": email, "password": "correct horse battery"}
    assert line.api.http.post("/users/auth/register/", json=body).status_code == 201

    def sent():
        (request,) = collector.named("POST /api/v1/users/auth/register") or [None]
        spans = collector.trace(request.trace) if request else []
        # Each process tells its spans by itself, in bundles.
        awaited = {"send email", "publish account.otp_requested"}
        return spans if awaited <= {span.name for span in spans} else None

    names = {span.name for span in until(sent, "the code is on its way")}
    assert {"INSERT", "publish account.otp_requested"} <= names


def test_a_refused_email_is_a_failed_span(line, collector):
    line.mail.handler.respond = lambda to: "550 no such user" if "nobody" in to else None
    nobody = {**ORDER["customer_details"], "email": "nobody@shop.example"}
    assert line.sender.send({**ORDER, "customer_details": nobody}).status_code == 201
    failed = until(
        lambda: [span for span in collector.named("send email") if span.failed], "it failed"
    )
    assert failed[0].attributes["error.type"] == "UndeliverableError"


def test_a_failing_statement_fails_its_span_and_its_message(line, collector):
    def allow(verb, role):
        with line.api.engine.begin() as connection:
            connection.execute(text(f"{verb} INSERT ON order_status_history {role} fellow_orders"))

    trace = uuid.uuid4().hex
    allow("REVOKE", "FROM")
    try:
        answer = line.sender.send(traceparent=f"00-{trace}-{uuid.uuid4().hex[:16]}-01")
        assert answer.status_code == 201

        def failed():
            found = {span.name: span for span in collector.trace(trace) if span.failed}
            return found if "process order.created" in found else None

        spans = until(failed, "it failed")
    finally:
        allow("GRANT", "TO")
    assert set(spans) == {"INSERT", "batch services.orders", "process order.created"}
    assert spans["INSERT"].attributes["error.type"] == "InsufficientPrivilege"
    assert "order_status_history" in spans["INSERT"].attributes["db.query.text"]


def test_no_span_holds_an_address_or_a_secret(line, collector):
    assert line.sender.send().status_code == 201
    until(lambda: collector.named("send email"), "something was sent")
    for word in ("@shop.example", "@kettle", line.sender.secret, "Zoë", "Marina", "blue"):
        assert word.encode() not in collector.raw, word


def test_probes_and_polls_make_no_traces(line, collector):
    line.api.http.get(f"{line.api.url}/readyz")
    assert line.sender.send().status_code == 201

    def queries():
        return [span for span in collector.spans if "db.query.text" in span.attributes]

    until(lambda: collector.named(WEBHOOK) and queries(), "something was sent and recorded")
    assert all(span.parent for span in queries())
    assert not any("readyz" in span.name or "metrics" in span.name for span in collector.spans)


def test_without_a_collector_nothing_of_it_is_imported():
    names = ("services.ingress.app", "services.notifier.__main__", "services.relay.__main__")
    program = "import sys; " + "; ".join(f"import {name}" for name in names)
    program += "; print([name for name in sys.modules if name.startswith('opentelemetry')])"
    ended = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    )
    assert ended.stdout.strip() == "[]"
