"""What every process's page says after orders have passed through it."""

import os
import re
import subprocess
import sys
import time
from functools import partial

import httpx
import pytest

from tests.integration.arrange import PATIENCE, get, publish_raw, until
from tests.integration.ingress.conftest import ORDER

GOOD, UNKNOWN = 3, "018f0000-0000-7000-8000-000000000000"


@pytest.fixture(scope="module")
def passed(line):
    """Orders that went well, one whose customer is refused, an update of none, and nonsense."""
    line.mail.handler.respond = lambda to: "550 no such user" if "nobody" in to else None
    for _ in range(GOOD):
        assert line.sender.send().status_code == 201
    nobody = {**ORDER["customer_details"], "email": "nobody@shop.example"}
    assert line.sender.send({**ORDER, "customer_details": nobody}).status_code == 201
    update = {"type": "order.status_changed", "order_id": UNKNOWN, "tracking_status": "DELIVERED"}
    assert line.sender.send(update).status_code == 201
    publish_raw(line.api.amqp_url, "intake", "order.created", b"{", type="order.created")
    emails = ("notifier", "fellow_emails_total")
    until(lambda: line.metric(*emails, outcome="refused") == 1, "one email is refused")
    until(lambda: line.metric(*emails, outcome="sent") >= GOOD, "the others are sent")
    return line


def test_a_consumer_counts_what_is_done_retried_and_dead(passed):
    queue = {"queue": "orders.intake"}

    def counted():
        """All of one look: the update of no order comes back again and again meanwhile."""
        said = passed.page("orders")
        retried = said("fellow_messages_retried_total", **queue)
        rungs = [
            said("fellow_messages_retried_total", rung=rung, **queue)
            for rung in ("retry.5s", "retry.30s")
        ]
        batches = said("fellow_batch_seconds_count", **queue)
        return (
            said("fellow_messages_handled_total", **queue) == GOOD + 1
            and said("fellow_messages_dead_total", **queue) == 1
            and retried >= 1
            and 1 <= sum(rungs) <= retried
            and said("fellow_batch_messages_sum", **queue) == GOOD + 2 + retried
            and 1 <= batches <= GOOD + 2 + retried
            and said("fellow_message_age_seconds_count", **queue) == batches
            and said("fellow_messages_unacknowledged", **queue) == 0
            and said("fellow_batch_in_hand_seconds", **queue) == 0
        )

    until(counted, "each message is counted where it belongs, and none is in hand")


def test_a_job_tells_when_it_last_went_well(passed):
    job = {"task": "prune services.orders"}
    done = partial(passed.metric, "orders", "fellow_job_runs_total", outcome="done", **job)
    until(lambda: done() >= 1, "it is done")
    assert passed.metric("orders", "fellow_job_last_success_timestamp_seconds", **job) > 0


def test_the_relay_counts_what_it_published_and_what_waits(passed):
    # The orders' facts, the secret's, and that an email was refused.
    until(lambda: passed.metric("relay", "fellow_outbox_published_total") >= GOOD + 3, "published")

    def nothing_waits():
        said = passed.page("relay")
        return said("fellow_outbox_messages") == said("fellow_outbox_oldest_seconds") == 0

    until(nothing_waits, "nothing waits")
    confirms = "fellow_publish_confirm_seconds_count"
    assert passed.metric("relay", confirms, publisher="relay") > 0


def test_the_notifier_counts_by_template_and_outcome(passed):
    def emails(template, outcome):
        return passed.metric("notifier", "fellow_emails_total", template=template, outcome=outcome)

    until(lambda: emails("order_received", "sent") == GOOD, "sent")
    assert emails("order_received", "refused") == 1
    until(lambda: emails("secret_issued", "sent") == 1, "the business was told")
    timed = partial(passed.metric, "notifier", "fellow_smtp_seconds_count")
    until(lambda: timed() == GOOD + 2, "each is timed")


def test_the_ingress_counts_confirms_and_its_other_routes(passed):
    confirms = "fellow_publish_confirm_seconds_count"
    confirmed = partial(passed.metric, "ingress", confirms, publisher="ingress")
    # Each order's and its journal's, of which those close together are sampled.
    assert 0 < until(confirmed, "both workers' are told") <= 2 * (GOOD + 2)
    for path, status in (("/orders/", 200), (f"/orders/{UNKNOWN}/", 404), ("/kyc/", 401)):
        headers = {} if status == 401 else passed.sender.bearer
        assert passed.api.http.get(path, headers=headers).status_code == status
    for route, status in (("/orders/", 200), ("/orders/{order_id}/", 404), ("/kyc/", 401)):
        labels = {"method": "GET", "route": route}

        def counted(labels=labels, status=str(status)):
            said = passed.page("ingress")
            return (
                said("fellow_http_requests_total", status=status, **labels),
                said("fellow_http_request_seconds_count", **labels),
            )

        # A worker tells another's figures a second later.
        until(lambda counted=counted: counted() == (1, 1), f"{route} is counted")


def test_no_page_names_an_address_or_an_id(passed):
    for page in passed.pages.values():
        text = get(page).text
        for word in ("@", UNKNOWN, str(passed.sender.account_id), passed.sender.secret):
            assert word not in text


def test_a_port_that_is_taken_is_said_and_nothing_starts(passed):
    port = passed.pages["orders"].split(":")[2].split("/")[0]
    for module in ("services.orders", "services.relay"):
        ended = subprocess.run(
            [sys.executable, "-m", module],
            env=os.environ | {"METRICS_PORT": port},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert ended.returncode == 2
        assert f"METRICS_PORT={port} cannot be listened on" in ended.stderr


@pytest.mark.parametrize(
    ("module", "tasks"),
    [
        (
            "services.secrets",
            {"schedule", "reseal", "prune services.secrets", "heartbeat", "rehearse"},
        ),
        ("services.relay", {"heartbeat"}),
        (
            "services.ops.console",
            {"retention dead_letters", "reseal second factors", "sessions", "offers"},
        ),
    ],
)
def test_a_job_that_never_went_well_is_on_the_page(unused_port, module, tasks):
    """Else an alert has nothing to go by after a restart."""
    port, nowhere, began = unused_port(), unused_port(), time.time()
    process = subprocess.Popen(
        [sys.executable, "-m", module],
        env=os.environ
        | {
            "METRICS_PORT": str(port),
            "OPS_PORT": str(unused_port()),
            "AMQP_URL": f"amqp://nobody:x@127.0.0.1:{nowhere}/",
            "DATABASE_URL": f"postgresql+psycopg2://nobody@127.0.0.1:{nowhere}/none",
        },
    )
    try:
        found = until(lambda: failed(port) == tasks and page(port), "all have failed once")
    finally:
        process.terminate()
        process.wait()
    for task in tasks:
        # One that has never gone well counts from when it was begun.
        name = f'fellow_job_last_success_timestamp_seconds{{task="{task}"}} '
        (line,) = [line for line in found.splitlines() if line.startswith(name)]
        assert began <= float(line.removeprefix(name)) <= time.time()
        assert f'fellow_job_period_seconds{{task="{task}"}} ' in found


def failed(port):
    return set(
        re.findall(r'^fellow_job_runs_total{outcome="failed",task="(.*)"}', page(port), re.M)
    )


def page(port):
    try:
        return get(f"http://127.0.0.1:{port}/metrics").text
    except httpx.TransportError:
        return ""


def test_the_outbox_says_nothing_while_the_database_is_away(unused_port):
    from sqlalchemy import create_engine

    from services.relay.metrics import OutboxCollector

    away = create_engine(f"postgresql+psycopg2://nobody@127.0.0.1:{unused_port()}/none")
    assert list(OutboxCollector(away).collect()) == []
