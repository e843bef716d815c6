"""Samples of real servers, heartbeats of real processes, and `fellow doctor` on all of it."""

import json
import os
import sys
import time
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from kombu import Connection
from sqlalchemy import text

from services.notifier.__main__ import wire as notifying
from services.ops.broker.connection import ALARM, AlarmProbe
from services.ops.doctor import checks
from services.ops.monitoring import sampler as sampler_module
from services.ops.monitoring.alerts import troubles
from services.ops.monitoring.queue_stats import figures
from services.ops.monitoring.sampler import Sampler
from services.orders.__main__ import wire
from shared import service as service_module
from shared.bus.broker import declaration
from shared.bus.broker.queue_counts import NotKnownError
from shared.bus.contract import topology
from shared.bus.contract.events import TrackingStatus
from shared.bus.contract.message import message_for
from shared.bus.contract.permissions import RIGHTS
from shared.db.models import ServiceHeartbeat
from shared.db.session import make_engine, transaction
from shared.product import VERSION
from shared.security.service_accounts import login
from shared.telemetry import heartbeat
from stack.folders import ROOT
from stack.processes import stop
from stack.servers.credentials import as_service
from tests.integration.arrange import (
    consuming,
    depth,
    order_created,
    publish,
    publish_raw,
    status_changed,
    until,
)
from tests.integration.ops.cli.test_cli import fellow
from tests.zygote.forks import spawn


@pytest.fixture
def service():
    return "ops"


@pytest.fixture
def sampler(settings):
    engine = make_engine(settings)
    with closing(Sampler(settings.amqp_url, engine)) as made:
        yield made
    engine.dispose()


@contextmanager
def running(module, service, amqp_url, database_url):
    environment = os.environ | {
        "AMQP_URL": as_service(amqp_url, service),
        "DATABASE_URL": as_service(database_url, service),
    }
    process = spawn(
        (sys.executable, "-m", module),
        environment=environment,
        log=Path(os.devnull),
        directory=ROOT,
    )
    try:
        yield process
    finally:
        stop(process, 15)


def shown(sampler, name):
    return next(queue for queue in figures(sampler.samples) if queue.name == name)


def test_a_sample_is_what_the_broker_says(sampler, amqp_url):
    publish_raw(amqp_url, "intake", "order.created", b"x")
    publish_raw(
        amqp_url, "dead", "kyc.decisions", b"x",
        application_headers={"x-failed-at": "2026-11-24T10:00:00+00:00"},
    )  # fmt: skip
    sample = sampler.take()
    assert (sample.broker_error, sample.database_error, sample.alarm) == (None, None, None)
    for queue in topology.QUEUES:
        assert sample.counts[queue.name].ready == depth(amqp_url, queue.name)
    assert shown(sampler, "kyc.decisions").dead == 1
    assert shown(sampler, "kyc.decisions.dead").oldest_seconds > 0
    found = [trouble.text for trouble in troubles(sampler.samples)]
    assert "orders.intake has no consumer: 1 message waits" in found
    assert "services.orders was never heard of: start it" in found
    assert "1 dead letter in kyc.decisions" in found


@pytest.mark.usefixtures("retried_late")
def test_what_a_consumer_handles_is_in_its_heartbeat(
    configure, settings, amqp_url, database_url, sampler
):
    admin = configure(amqp_url=amqp_url, database_url=database_url)
    (subscription,) = wire(admin).subscriptions
    heartbeat_writer = heartbeat.HeartbeatWriter("services.orders")
    with consuming(admin, subscription) as consumers:
        beat = service_module.heartbeat_of(heartbeat_writer, consumers)
        orders = [order_created() for _ in range(20)]
        lost = status_changed(order_created(), TrackingStatus.DELIVERED)
        for event in (*orders, lost):
            publish(amqp_url, message_for(event, source="tests", correlation_id=event.order_id))
        until(lambda: consumers[0].handled == 21, "handled")
        with transaction() as session:
            beat(session)
        assert sampler.take().counts["orders.intake"].consumers == 1
    (found,) = sampler.take().beats
    assert (found.service, found.version) == ("services.orders", VERSION)
    figures_ = found.queues["orders.intake"]
    assert (figures_.handled, figures_.unacked) == (21, 0)
    # What failed is the broker's to count, also when the process that put it there is gone.
    counts = sampler.take().counts
    assert sum(counts[rung.name].ready for rung in topology.RETRY_DELAYS) == 1
    assert "1 message failed and will be tried again" in said_by(sampler)
    assert figures_.rate > 0
    assert datetime.now(UTC) - figures_.reached < timedelta(minutes=1)


def said_by(sampler):
    return " ".join(trouble.text for trouble in troubles(sampler.samples))


@pytest.mark.parametrize(
    ("module", "role", "name"),
    [("services.relay", "relay", "relay"), ("services.audit", "audit", "services.audit")],
)
def test_a_process_says_that_it_is_alive(amqp_url, database_url, settings, db, module, role, name):
    with running(module, role, amqp_url, database_url):

        def heard():
            db.rollback()
            return [row.service for row in db.query(ServiceHeartbeat)]

        until(lambda: heard() == [name], "heard of")


def test_what_is_long_gone_is_forgotten(configure, amqp_url, database_url, settings, db):
    configure(amqp_url=amqp_url, database_url=database_url)
    for service in ("services.kyc", "services.orders"):
        with transaction() as session:
            heartbeat.HeartbeatWriter(service).beat(session)
    db.execute(
        text("UPDATE service_heartbeats SET seen_at = now() - interval '2 days', instance = 'old'")
    )
    db.commit()
    with transaction() as session:
        heartbeat.HeartbeatWriter("services.kyc").beat(session)
    found = {(row.service, row.instance == "old") for row in db.query(ServiceHeartbeat)}
    assert found == {("services.kyc", False), ("services.orders", True)}


@pytest.mark.parametrize(
    "ahead", [timedelta(days=2), -timedelta(hours=1)], ids=["two days ahead", "an hour behind"]
)
@pytest.mark.parametrize("whose", ["the process", "the reader"])
def test_whoever_has_a_wrong_clock_is_heard_of_and_hears(
    configure, amqp_url, database_url, settings, sampler, db, monkeypatch, ahead, whose
):
    class Wrong(datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime.now(tz) + ahead

    configure(amqp_url=amqp_url, database_url=database_url)
    with transaction() as session:
        heartbeat.HeartbeatWriter("services.kyc").beat(session)
    db.execute(text("UPDATE service_heartbeats SET instance = 'other'"))
    outbox = "INSERT INTO outbox (message_id, exchange, routing_key, type, correlation_id, source, "
    outbox += "time, body) VALUES (gen_random_uuid(), 'events', 'x', 'x', 'x', 'x', now(), '')"
    db.execute(text(outbox))
    db.commit()
    monkeypatch.setattr(heartbeat if whose == "the process" else sampler_module, "datetime", Wrong)
    with transaction() as session:
        heartbeat.HeartbeatWriter("services.kyc").beat(session)
    sample = sampler.take()
    assert {beat.instance == "other" for beat in sample.beats} == {True, False}
    for seen in (*(beat.seen_at for beat in sample.beats), sample.outbox_since):
        assert abs(sample.at - seen) < timedelta(minutes=5)
    assert "services.kyc has not been heard of" not in said_by(sampler)


def test_what_is_away_is_said_in_the_sample(settings, unused_port):
    with closing(Sampler(f"amqp://x:y@127.0.0.1:{unused_port()}/", None)) as sampler:
        sample = sampler.take()
    assert sample.broker_error
    assert troubles([sample])[0].about == "broker"


def test_one_queue_that_does_not_answer_is_not_the_broker(sampler, amqp_url, monkeypatch):
    publish_raw(amqp_url, "dead", "orders.intake", b"{}", delivery_mode=2)
    until(lambda: depth(amqp_url, "orders.intake.dead"), "it lies there")

    def busy(*_, **__):
        raise NotKnownError("orders.intake.dead does not answer: the broker is busy")

    with monkeypatch.context() as patched:
        patched.setattr(sampler_module, "hold", busy)
        sample = sampler.take()
    assert (sample.broker_error, sample.dead_since) == (None, {})
    assert sample.counts["orders.intake.dead"].ready == 1


def test_an_alarm_of_the_brokers_is_noticed_and_so_is_its_end(broker, settings):
    with closing(AlarmProbe(settings.amqp_url)) as probe:
        assert probe.check() is None
        limit = broker.evaluate("vm_memory_monitor:get_vm_memory_high_watermark()")
        broker.control("set_vm_memory_high_watermark", "0")
        try:
            until(lambda: probe.check() == ALARM, "noticed")
            assert probe.check() == ALARM
            with closing(AlarmProbe(settings.amqp_url)) as fresh:
                assert fresh.check() == ALARM
        finally:
            broker.control("set_vm_memory_high_watermark", limit)
        until(lambda: probe.check() is None, "over")


def test_sampling_costs_the_broker_little(sampler, settings, amqp_url):
    sampler.take()
    began = time.process_time()
    start = time.monotonic()
    for _ in range(50):
        assert sampler.take().broker_error is None
    print(f"a sample: {(time.monotonic() - start) / 50 * 1000:.1f} ms, "
          f"of which here {(time.process_time() - began) / 50 * 1000:.1f} ms")  # fmt: skip


def test_the_doctor_says_what_is_broken_and_what_to_do(settings, amqp_url, mailbox):
    mail = {"SMTP_PORT": str(mailbox.port)}
    code, out, err = fellow(settings, "doctor", "--json", **mail)
    assert (code, err) == (1, "")
    found = {check["about"]: check for check in json.loads(out)}
    for fine in ("broker", "topology", "database", "migrations", "mail", "database clock"):
        assert found[fine]["state"] == "fine", found[fine]
    assert found["keys"]["state"] == "look"
    assert found["services.orders"]["state"] == "broken"
    assert found["broker"]["found"].startswith("RabbitMQ ")


def test_the_doctor_sees_whose_commits_are_not_safe(settings, engine):
    here = f'IN DATABASE "{engine.url.database}"'
    with engine.begin() as connection:
        alter = f'ALTER ROLE "{login("orders")}" {here} SET synchronous_commit = off'
        connection.exec_driver_sql(alter)
    with engine.connect() as connection:
        found = checks._durability(connection)
    assert found.state == "look"
    assert f"synchronous_commit=off of {login('orders')}" in found.found


def test_the_doctor_sees_whose_statements_are_ended(settings, engine):
    """Those of the services: a limit for others is right, and so is one from which they are exempt.

    In one transaction that is rolled back: the roles are the whole server's.
    """
    here = f'IN DATABASE "{engine.url.database}"'
    with engine.connect() as connection:

        def found(*changes):
            for change in changes:
                connection.exec_driver_sql(change)
            check = checks._limits(connection)
            return check.state, check.found.partition(": ")[2]

        assert found()[0] == "fine"
        orders, notifier = login("orders"), login("notifier")
        others = f"ALTER ROLE {notifier} {here} SET lock_timeout = 0"
        mine = f"ALTER ROLE {orders} {here} SET statement_timeout = '20s'"
        reader = f"ALTER ROLE reader {here} SET statement_timeout = '5s'"
        assert found("CREATE ROLE reader", reader, others, mine) == (
            "look",
            f"statement_timeout=20s of {orders}",
        )
        everyone = f"ALTER DATABASE \"{engine.url.database}\" SET statement_timeout = '30s'"
        state, said = found(everyone, f"ALTER ROLE {orders} {here} SET statement_timeout = 0")
        assert (state, said.startswith("statement_timeout=30s of ")) == ("look", True)
        assert (orders in said, notifier in said) == (False, True)
        connection.rollback()


def test_the_doctor_judges_the_notifiers_mail_server_and_not_its_own(
    configure, settings, amqp_url, database_url, mailbox, unused_port
):
    admin = configure(amqp_url=amqp_url, database_url=database_url, smtp_port=str(mailbox.port))
    wiring = notifying(admin)
    heartbeat_writer = heartbeat.HeartbeatWriter("services.notifier", wiring.uses)
    with consuming(admin, *wiring.subscriptions) as consumers, transaction() as session:
        service_module.heartbeat_of(heartbeat_writer, consumers)(session)
    _, out, _ = fellow(settings, "doctor", "--json", SMTP_PORT=str(unused_port()))
    (mail,) = [check for check in json.loads(out) if check["about"] == "mail"]
    assert (mail["state"], mail["found"]) == (
        "fine", f"127.0.0.1:{mailbox.port} answers (as services.notifier is set)"
    )  # fmt: skip


def test_queues_that_are_missing_cost_no_channels(sampler, amqp_url):
    """The broker closes one at each; a connection has 2,047, and looks are taken for months."""
    with Connection(amqp_url) as connection:
        connection.default_channel.queue_delete("kyc.decisions")
        connection.default_channel.queue_delete("retry.5s")
    assert sampler.take().broker_error is None
    channels = sampler._connection.connection.channels
    open_before = len(channels)
    found = sampler.take()
    assert found.broker_error is None
    assert {queue.name for queue in topology.QUEUES} - set(found.counts) == {
        "kyc.decisions",
        "retry.5s",
    }
    assert len(channels) == open_before


def test_the_doctor_sees_drift(settings, amqp_url, database_url, unused_port):
    with Connection(amqp_url) as connection:
        channel = connection.default_channel
        channel.queue_delete("kyc.decisions")
        channel.queue_delete("retry.5s")
        channel.queue_declare("retry.5s", durable=True, auto_delete=False,
                              arguments={"x-queue-type": "quorum"})  # fmt: skip
    code, out, _ = fellow(settings, "doctor", "--json", SMTP_PORT=str(unused_port()))
    found = {check["about"]: check for check in json.loads(out)}
    assert code == 1
    assert found["topology"]["found"] == "missing: kyc.decisions"
    assert found["mail"]["state"] == "broken"
    owner = {"AMQP_URL": amqp_url, "DATABASE_URL": database_url}
    with Connection(amqp_url) as connection:
        declaration.declare_queue(connection.default_channel, topology.KYC_DECISIONS)
    code, out, _ = fellow(settings, "doctor", "--json", **owner)
    found = {check["about"]: check for check in json.loads(out)}
    assert "retry.5s" in found["topology"]["found"]


@pytest.mark.parametrize("user", sorted(RIGHTS))
def test_the_doctor_sees_what_its_user_may_see_and_says_the_rest_in_words(
    settings, amqp_url, user, unused_port
):
    """RabbitMQ 4.3 refuses a look at what there is no right on: this ended with a traceback."""
    mine = {"AMQP_URL": as_service(amqp_url, user), "SMTP_PORT": str(unused_port())}
    _, out, err = fellow(settings, "doctor", "--json", **mine)
    assert err == ""
    found = {check["about"]: check for check in json.loads(out)}
    assert found["broker"]["state"] == "fine"
    assert found["topology"]["state"] in ("fine", "look")
    if user == "ops":
        assert found["topology"]["state"] == "fine"
    # Whoever lacks a right is told so, which says nothing of the broker.
    assert found.get("queues", {"state": "look"})["state"] == "look"


def test_the_doctor_outlives_everything(settings, unused_port):
    away = {
        "AMQP_URL": f"amqp://guest:secret@127.0.0.1:{unused_port()}/",
        "DATABASE_URL": f"postgresql+psycopg2://x@127.0.0.1:{unused_port()}/x",
        "SMTP_PORT": str(unused_port()),
    }
    code, out, err = fellow(settings, "doctor", **away)
    assert code == 1
    assert out.count("broken") == 3
    assert "Traceback" not in err
    assert "secret" not in out
