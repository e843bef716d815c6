"""While somebody has a queue in hand nobody else sees into it; no page says that it is empty."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from kombu import Connection

from services.ops.broker.hold import hold
from shared.bus.contract import topology
from tests.integration.arrange import PATIENCE, account, order_created, publish_raw
from tests.integration.ops.cli.test_cli import fellow
from tests.integration.ops.console.pages.test_masked_pages import signed_in
from tests.integration.ops.console.running import running_console
from tests.integration.ops.dead_letters.test_dead_letters import bury

INTAKE, RUNG = topology.ORDERS_INTAKE, topology.RETRY_DELAYS[-1]
MISSING = "Somebody else is at work"
NOT_ALL = "Not all could be looked at"
UNKNOWN = "Somebody is at work in"


@pytest.fixture
def service():
    return "ops"


@pytest.mark.timeout(400)
def test_what_is_in_other_hands_is_not_said_to_be_nowhere(
    settings, amqp_url, database_url, tmp_path, db
):
    business = account(db, status="approved")
    (message,) = bury(amqp_url, order_created(business.id))
    publish_raw(amqp_url, RUNG.name, INTAKE.name, b"{}", type="order.created", message_id="a")
    letter = f"/dead/{INTAKE.name}/letter?id={message.message_id}"
    says = {
        f"/dead/{INTAKE.name}": (200, MISSING),
        f"/dead/{INTAKE.name}/reasons": (200, MISSING),
        letter: (503, UNKNOWN),
        "/ladder": (200, MISSING),
        f"/accounts/{business.id}?everywhere=yes": (200, NOT_ALL),
        f"/orders/{message.correlation_id}?everywhere=yes": (503, NOT_ALL),
        "/find?q=zoe@shop.example": (200, "may be missing here"),
    }
    with (
        running_console(tmp_path, amqp_url, database_url) as (url, _),
        signed_in(url, db, "act") as client,
    ):
        client.timeout = PATIENCE
        with (
            ThreadPoolExecutor(9) as elsewhere,
            Connection(amqp_url) as bus,
            hold(bus, INTAKE.dead) as held,
            Connection(amqp_url) as another,
            hold(another, RUNG.name),
        ):
            assert len(held.take(10)) == 1
            # All at once: each waits for its turn, for as long as it has patience.
            commands = [
                elsewhere.submit(fellow, settings, "dead", *command)
                for command in (["show", INTAKE.name, message.message_id], ["waiting"])
            ]
            answers = elsewhere.map(client.get, says)
            for (page, (status, words)), answer in zip(says.items(), answers, strict=True):
                assert (answer.status_code, words in answer.text) == (status, True), page
            for command in commands:
                _, out, said = command.result()
                assert UNKNOWN in said or MISSING in said, (out, said)
        assert client.get(letter).status_code == 200
        assert MISSING not in client.get("/ladder").text
