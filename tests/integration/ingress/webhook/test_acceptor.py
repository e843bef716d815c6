"""What happens to an order when the broker, the database or both are away."""

import asyncio
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import delete, select

from services.ingress.webhook.acceptor import UNCERTAIN, Acceptor
from shared.bus.contract.message import message_for
from shared.bus.publish.confirms import ConfirmTimeoutError
from shared.db.models import OutboxMessage
from shared.http.errors import ApiError
from stack.folders import ROOT
from stack.servers.credentials import as_service
from tests.integration.arrange import (
    PATIENCE,
    by_each_worker,
    declare,
    depth,
    order_created,
    take,
    until,
)
from tests.integration.conftest import running_ingress
from tests.integration.gate import Gate
from tests.integration.ingress.conftest import all_say, approved, known, ready
from tests.zygote.forks import spawn


@pytest.fixture
def gated(behind_gates):
    """The same for one test, which begins with open gates and nothing under way."""
    api, *gates = behind_gates
    yield behind_gates
    for gate in gates:
        gate.open()
    until(lambda: ready(api) and all_say(api, "ready"), "ready again")
    queued(api)
    with api.session() as session, session.begin():
        session.execute(delete(OutboxMessage))


def waiting(api):
    with api.session() as session:
        rows = session.scalars(
            select(OutboxMessage.message_id).where(OutboxMessage.exchange == "intake")
        )
        return {str(id_) for id_ in rows}


def readiness(api):
    return api.http.get(f"{api.url}/readyz")


def relay(api):
    """The relay as a process."""
    return spawn(
        (sys.executable, "-m", "services.relay"),
        environment=os.environ | {"AMQP_URL": api.amqp_url, "DATABASE_URL": api.database_url},
        log=Path(os.devnull),
        directory=ROOT,
    )


def queued(api):
    found = []
    while (message := take(api.amqp_url, "orders.intake")) is not None:
        found.append(message.properties["message_id"])
    return found


def stored_of(sender):
    """The ids of a sender's messages in outbox and queue; an earlier test's may arrive late."""
    api, account = sender.api, str(sender.account_id).encode()
    with api.session() as session:
        rows = session.execute(select(OutboxMessage.message_id, OutboxMessage.body)).all()
    found = {str(id_) for id_, body in rows if account in bytes(body) and b"customer" in body}
    while (message := take(api.amqp_url, "orders.intake")) is not None:
        if account in message.body:
            found.add(message.properties["message_id"])
    return found


def test_a_broker_that_is_cut_off(gated):
    api, bus, _ = gated
    sender = known(api)
    bus.cut()
    answers = [sender.send() for _ in range(30)]
    assert {a.status_code for a in answers} == {201}
    ids = {a.json()["order_id"] for a in answers}
    assert waiting(api) == ids
    until(lambda: all_say(api, "degraded"), "every worker says so")
    assert readiness(api).status_code == 200
    bus.open()
    process = relay(api)
    try:
        until(lambda: depth(api.amqp_url, "orders.intake") == 30, "the relay has published")
        until(lambda: not waiting(api), "and deleted")
    finally:
        process.terminate()
        assert process.wait(PATIENCE) == 0
    assert set(queued(api)) == ids
    until(lambda: ready(api), "ready again")
    order_id = sender.send().json()["order_id"]
    assert queued(api) == [order_id]


def test_a_broker_that_does_not_confirm(gated):
    api, bus, _ = gated
    sender = known(api)
    bus.stall()
    answer = sender.send()
    assert answer.status_code == 201
    assert waiting(api) == {answer.json()["order_id"]}
    bus.open()
    # What the stalled connection held back comes too: a double under the same id.
    until(lambda: set(queued(api)) <= {answer.json()["order_id"]}, "nothing else")


def test_an_alarm_of_the_broker(gated, broker):
    api, _, _ = gated
    sender = known(api)
    watermark = broker.evaluate("vm_memory_monitor:get_vm_memory_high_watermark()")
    broker.control("set_vm_memory_high_watermark", "absolute", "1")
    try:
        accepted = [sender.send() for _ in range(5)]
        until(lambda: accepted.append(sender.send()) or len(waiting(api)) >= 3, "by the outbox")
        assert {a.status_code for a in accepted} == {201}
    finally:
        broker.control("set_vm_memory_high_watermark", watermark)
    until(lambda: ready(api), "ready again")
    process = relay(api)
    try:
        until(lambda: not waiting(api), "the relay has published")
    finally:
        process.terminate()
        process.wait(PATIENCE)
    assert set(queued(api)) == {a.json()["order_id"] for a in accepted}


def test_with_both_away_nothing_is_promised(gated):
    api, bus, database = gated
    sender = known(api)
    bus.cut()
    database.cut()
    answers = [sender.send() for _ in range(5)]
    for answer in answers:
        assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
        assert int(answer.headers["retry-after"]) >= 1
    # What a worker has just found is given to its next probes too.
    until(lambda: all_say(api, "not ready"), "every worker says so")
    assert readiness(api).status_code == 503
    database.open()
    until(lambda: sender.send().status_code == 201, "by the outbox again")
    bus.open()
    until(lambda: ready(api), "ready again")
    assert sender.send().status_code == 201


def test_with_both_silent_there_is_an_answer_all_the_same(gated):
    api, bus, database = gated
    sender = known(api)
    bus.stall()
    database.stall()
    answer = sender.send()
    assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")


def test_a_503_does_not_say_that_nothing_was_stored_and_names_the_cure(gated):
    api, bus, database = gated
    sender = known(api)
    key = {"Idempotency-Key": "order-7"}
    bus.stall()
    database.stall()
    answer = sender.send(**key)
    assert answer.status_code == 503
    assert "not known whether" in answer.json()["error"]
    assert "Idempotency-Key" in answer.json()["error"]
    bus.open()
    database.open()
    stored = set()
    until(lambda: stored.update(stored_of(sender)) or stored, "stored all the same")
    until(lambda: sender.send(**key).status_code == 201, "accepted")
    until(lambda: ready(api), "ready again")
    # One message, however often: the recorder knows it by its id.
    assert len(stored | stored_of(sender)) == 1


def test_without_the_database_orders_flow_and_a_new_key_waits(gated):
    api, _, database = gated
    sender = known(api)
    database.cut()
    assert {sender.send().status_code for _ in range(20)} == {201}
    unknown = sender.send(**{"X-API-Key": "whsk_never_seen"})
    assert (unknown.status_code, unknown.json()["code"]) == (503, "unavailable")
    login = api.http.post("/users/auth/login/", json={"email": "a@b.example", "password": "x" * 8})
    assert (login.status_code, login.json()["code"]) == (503, "database_unavailable")
    until(lambda: all_say(api, "degraded"), "every worker says so")
    database.open()
    until(lambda: sender.send(**{"X-API-Key": "whsk_never_seen"}).status_code == 401, "known again")
    assert len(queued(api)) == 20


def test_a_start_without_servers_heals(bare_amqp_url, database_url, tmp_path):
    with Gate(bare_amqp_url) as bus, Gate(database_url) as database:
        bus.cut()
        database.cut()
        with running_ingress(tmp_path, bus.url, database.url, wait_for="healthz") as api:
            assert readiness(api).status_code == 503
            database.open()
            until(lambda: readiness(api).status_code == 200, "orders may go to the outbox")
            bus.open()
            # Nothing is declared on this broker, and the ingress may not: the deployment's step.
            declare(bare_amqp_url)
            until(lambda: ready(api), "ready")
            assert approved(api).send().status_code == 201


def test_readiness_says_why_the_broker_refuses_and_orders_are_taken(
    amqp_url, database_url, tmp_path
):
    """A load balancer must not take it out: it accepts into the outbox."""
    wrong = as_service(amqp_url, "ingress").replace("@", "x@")
    with running_ingress(
        tmp_path, amqp_url, database_url, wait_for="healthz", AMQP_URL=wrong
    ) as api:
        until(lambda: "reasons" in readiness(api).json(), "a reason")
        until(lambda: all_say(api, "degraded"), "both workers have loaded the secrets")
        reasons = until(lambda: said_by_both(api), "both connections are refused")
        for reason in reasons.values():
            assert reason.startswith("refused: ")
            assert "Sign in with another password" in reason
        assert readiness(api).status_code == 200
        assert approved(api).send().status_code == 201

        def told():
            page = api.http.get(f"{api.url}/metrics").text
            parts = ("ingress", "ingress secret cache")
            return all(f'fellow_working{{part="{part}"}} 0.0' in page for part in parts)

        until(told, "both are among the figures")


def said_by_both(api):
    reasons = readiness(api).json()["reasons"]
    is_told = all(reason.startswith("refused") for reason in reasons.values())
    return reasons if is_told and len(reasons) == 2 else None


def test_a_secret_is_in_force_everywhere_also_without_the_bus(gated):
    api, bus, _ = gated
    bus.cut()
    sender = approved(api)

    def answers():
        return {each.status_code for each in by_each_worker(api.pid, sender.send)}

    until(lambda: answers() == {201}, "known")
    answer = api.http.post(
        "/webhook/secret/", json={"revoke_previous": True}, headers=sender.bearer
    )
    assert answer.status_code == 200
    until(lambda: answers() == {401}, "revoked")


def test_what_was_published_is_not_known_to_be_lost_when_nothing_more_may_wait():
    class Silent:
        async def send(self, _):
            raise ConfirmTimeoutError("no confirm")

    message = message_for(order_created(), source="tests", correlation_id="story")
    with ThreadPoolExecutor(1) as threads:
        acceptor = Acceptor(Silent(), threads, max_waiting=0)
        with pytest.raises(ApiError) as refused:
            asyncio.run(acceptor.accept(message))
    assert (refused.value.code, refused.value.error) == ("overloaded", UNCERTAIN)
