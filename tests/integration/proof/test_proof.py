"""The standing proof on a whole system: it proves, and where a part is still it says which step."""

import os
import signal
import time
from contextlib import closing, contextmanager
from datetime import UTC, datetime

import httpx
import pytest
from kombu import Connection
from prometheus_client import REGISTRY
from rich.console import Console
from sqlalchemy import create_engine, select, update
from sqlalchemy.orm import Session

from services.ops.audit.actions import Actor
from services.ops.commands import decisions, kyc_applications
from services.ops.commands.giving import give
from services.ops.commands.kyc_applications import Filter, Status
from services.ops.console.pages.overview import tiles
from services.ops.monitoring import order_flow
from services.ops.monitoring.alerts import troubles
from services.ops.monitoring.customer_flow import CustomerCounters
from services.ops.monitoring.sampler import Sampler
from services.ops.monitoring.snapshot import Snapshot
from services.proof.__main__ import Prover
from services.proof.business import Business, UnprovedError
from services.proof.proving import SCHEMES, heartbeat_state, prove
from services.proof.sink import Sink
from shared.config.settings import Settings
from shared.db.models import Account, EmailDelivery, KycApplication, Order
from shared.synthetic import is_synthetic
from shared.telemetry import heartbeat
from stack.mailbox import MailServer
from stack.servers.credentials import as_service
from stack.servers.ports import Address, Port
from stack.supervisor import Supervisor
from stack.system import start_services
from tests.integration.arrange import PATIENCE, depth, get, until
from tests.zygote.forks import spawn

STILL = 1.0
"""Seconds for what cannot come, since a part is still; what comes has all the time it needs."""
PARTS = {"orders": "recorded", "relay": "emailed", "notifier": "emailed"}


class Brief:
    """A sink at which no email is waited for as long as usual."""

    def __init__(self, sink):
        self._sink = sink

    def wait(self, recipient, _):
        return self._sink.wait(recipient, STILL)


class Running:
    """A system, its proof's business approved."""

    def __init__(self, supervisor, url, database_url, amqp_url, mail, sink):
        self.supervisor, self.amqp_url, self.mail, self.sink = supervisor, amqp_url, mail, sink
        self.engine = create_engine(database_url)
        self.url = url
        self.http = httpx.Client(base_url=f"{url}/api/v1", timeout=PATIENCE)
        self.business = Business(self.http, sink, "a password")

    def prove(self, scheme, seconds=PATIENCE, sink=None):
        """The step at which an order ended; nothing when it came through."""
        try:
            prove(scheme, self.http, self.business, sink or self.sink, seconds)
        except UnprovedError as error:
            return error.step
        return ""

    def prove_in_vain(self, scheme, step):
        """The step at which an order ended that cannot get beyond `step`."""
        seconds = STILL if step == "recorded" else PATIENCE
        return self.prove(scheme, seconds, Brief(self.sink))

    @contextmanager
    def still(self, name):
        group = self.supervisor.pid(name)
        os.killpg(group, signal.SIGSTOP)
        try:
            yield
        finally:
            os.killpg(group, signal.SIGCONT)


@pytest.fixture(scope="module")
def running(module_amqp_url, module_database_url, tmp_path_factory):
    folder = tmp_path_factory.mktemp("system")
    mail, sink, port = MailServer(folder / "mailbox"), Sink("127.0.0.1", 0), Port()
    mail.start()
    sink.start()
    supervisor = Supervisor({}, folder / "logs", Console(quiet=True), spawn=spawn)
    common = {
        "SMTP_PORT": str(mail.port),
        "PROOF_SINK": f"127.0.0.1:{sink.port}",
        "WEB_CONCURRENCY": "1",
    }
    names = {"ingress", "orders", "kyc", "secrets", "notifier", "relay"}
    try:
        start_services(
            supervisor,
            lambda name: (
                common
                | {
                    "AMQP_URL": as_service(module_amqp_url, name),
                    "DATABASE_URL": as_service(module_database_url, name),
                    "PORT": port,
                }
            ),
            {"ingress": port},
            names,
        )
        url = str(Address(port))
        until(lambda: is_ready(url), "the ingress is ready")
        found = Running(supervisor, url, module_database_url, module_amqp_url, mail, sink)
        # As any other it registers, proves its address and applies; then somebody decides.
        assert until(lambda: found.prove("x-api-key"), "it has applied") == "approval"
        with Connection(module_amqp_url) as connection:
            give(
                connection,
                found.engine,
                decisions.make("approve", found.business.email, ""),
                Actor("tests", ""),
            )
        until(lambda: found.prove("x-api-key") == "", "the first order came through")
        yield found
        found.engine.dispose()
    finally:
        supervisor.stop()
        mail.stop()
        sink.stop()


def is_ready(url):
    return get(f"{url}/readyz").status_code == 200


def test_the_alert_allows_two_rounds_after_a_start():
    """The time of a proof from before it is not known: 0 would be an outage of 56 years."""
    began = time.time()
    Prover(Settings(), None)
    for scheme in SCHEMES:
        name, labels = "fellow_proof_timestamp_seconds", {"scheme": scheme}
        assert REGISTRY.get_sample_value(name, labels) >= began


@pytest.mark.parametrize("scheme", SCHEMES)
def test_an_order_goes_the_whole_way_and_reaches_nobody(running, scheme):
    assert running.prove(scheme) == ""
    with Session(running.engine) as session:
        recipients = session.scalars(select(Order.customer_email)).all()
        of = select(EmailDelivery.recipient)
        sent = until(lambda: session.scalars(of).all(), "the emails are written down")
    assert any(recipient.startswith(f"{scheme}-") for recipient in recipients)
    assert all(map(is_synthetic, recipients))
    assert all(map(is_synthetic, sent))
    # The mail server was asked whether it takes our sender, and never told of a recipient.
    assert running.mail.maildir.emails() == []


@pytest.mark.parametrize("part", PARTS)
def test_a_part_that_is_still_is_known_by_the_step_that_fails(running, part):
    with running.still(part):
        assert running.prove_in_vain("x-api-key", PARTS[part]) == PARTS[part]
    assert running.prove("x-api-key") == ""


def test_a_mail_server_that_is_away_leaves_it_unproved(running):
    running.mail.stop()
    assert running.prove_in_vain("standard-webhooks", "emailed") == "emailed"
    running.mail.start()
    assert running.prove("standard-webhooks") == ""


def test_an_ingress_that_is_still_is_known_too(running):
    with running.still("ingress"):
        running.http.timeout = STILL
        assert running.prove("x-api-key") in ("sign in", "accepted")
        running.http.timeout = PATIENCE
    until(lambda: running.prove("x-api-key") == "", "it is back")


def test_emails_that_nobody_waits_for_any_more_hold_up_and_kill_nothing(running):
    running.sink.stop()
    assert running.prove_in_vain("x-api-key", "emailed") == "emailed"

    def undeliverable():
        with Session(running.engine) as session:
            query = select(EmailDelivery.response).where(EmailDelivery.state == "undeliverable")
            return session.scalars(query).all()

    until(undeliverable, "it is written down")
    assert "the sink of the standing proof is away" in undeliverable()[0]
    assert depth(running.amqp_url, "notifier.orders.dead") == 0
    host, port = running.sink._server.server_address
    running.sink = running.business._sink = Sink(host, port)
    running.sink.start()
    assert running.prove("x-api-key") == ""


def test_nothing_of_it_is_counted_among_the_figures_of_others(running):
    assert running.prove("x-api-key") == ""
    page = get(f"{running.url}/metrics").text
    counted = [line for line in page.splitlines() if line.startswith("fellow_webhook_requests")]
    assert counted == []
    others = CustomerCounters()
    with Session(running.engine) as session:
        assert order_flow.latency(session).orders == 0
        # On the desk it is seen, where alone it can be decided on.
        assert len(kyc_applications.applications(session, Filter(Status.APPROVED))) == 1

    def is_nothing():
        with Session(running.engine) as session:
            found = others.of(session, order_flow.counters(session))
            return order_flow.counters(session).recorded > 0 and found.recorded <= 0

    until(is_nothing, "its own are taken out of what PostgreSQL has counted")


def test_it_says_how_it_stands(
    running, configure, module_database_url, module_amqp_url, monkeypatch
):
    configure(database_url=module_database_url)
    # A late job of its process is no scheme; tests before this one may have left some.
    monkeypatch.setattr(heartbeat, "_problems", lambda: {heartbeat.JOURNAL: "late"})
    config = Settings(proof_url=running.url, database_url="postgresql+psycopg2://x:other@h/x")
    prover = Prover(config, running.sink)
    heartbeat_writer = heartbeat.HeartbeatWriter("services.proof", prover.standing)

    def told():
        with Session(running.engine) as session, session.begin():
            heartbeat_writer.beat(session)
        with closing(Sampler(module_amqp_url, running.engine)) as sampler:
            sample = sampler.take()
            snapshot = Snapshot(sample, {}, [], None)
            (tile,) = [
                tile for tile in tiles(snapshot, [snapshot]) if tile.title == "Standing proof"
            ]
            return [t.text for t in troubles([sample]) if t.about == "proof"], tile

    # Of another password, it is another business, which nobody has approved.
    prover.round()
    (text_,), tile = told()
    assert "decide on it on the KYC desk" in text_
    assert tile.more == "not proved yet"
    prover._business = running.business
    prover.round()
    found, tile = told()
    assert found == []
    assert (tile.unit, tile.is_well) == ("ago", True)
    error = UnprovedError("recorded", "order 7 was accepted and not recorded")
    prover.standing["x-api-key"] = heartbeat_state(datetime.now(UTC), error)
    (text_,), tile = told()
    assert text_.startswith("No order by x-api-key has gone the whole way since ")
    assert text_.endswith("order 7 was accepted and not recorded")
    assert (tile.more, tile.is_well) == ("not proved since", False)


def test_it_applies_again_where_it_was_refused(running):
    """Last: it ends the approval that the others need."""
    its = select(Account.id).where(Account.email == running.business.email)
    newest = select(KycApplication.id).where(KycApplication.account_id.in_(its))
    newest = newest.order_by(KycApplication.submitted_at.desc()).limit(1)
    for status in ("revoked", "rejected", "incomplete"):
        with Session(running.engine) as session, session.begin():
            of = KycApplication.id == session.scalar(newest)
            session.execute(update(KycApplication).where(of).values(status=status))
        with pytest.raises(UnprovedError, match="its business is pending"):
            running.business.secret()
