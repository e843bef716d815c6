"""Putting back ahead of its time what waits on the retry ladder."""

import pytest
from kombu import Connection

from services.ops.audit.actions import Actor
from services.ops.dead_letters import retry_queue
from shared.bus.contract import topology
from shared.bus.contract.events import decode
from shared.db.models import OutboxMessage
from shared.db.session import make_engine
from shared.security.service_accounts import login
from stack.servers.credentials import as_service
from tests.integration.arrange import depth, headers, publish_raw, take, until


@pytest.fixture
def service():
    return "ops"


def test_what_waits_for_one_queue_goes_back_and_the_rest_waits_on(settings, amqp_url, db):
    for rung, queue, id_ in (
        ("retry.1h", "orders.intake", "a"),
        ("retry.1h", "kyc.decisions", "b"),
        ("retry.10m", "orders.intake", "c"),
    ):
        # By its own service, whom the broker vouches for; c by nobody who is known.
        owner = queue.partition(".")[0]
        by = {"user_id": login(owner)} if id_ != "c" else {"user_id": None}
        publish_raw(
            as_service(amqp_url, owner), rung, queue, b"{}", message_id=id_, type="order.created",
            application_headers={"x-attempt": 3, "x-reason": "Retry: x", "x-user-id": "ada",
                                 "x-happened": True, "x-replay": "again"}, **by,
        )  # fmt: skip
    books = make_engine(settings)
    with Connection(settings.amqp_url) as bus:
        assert {
            (w.rung, w.queue, w.message_id, w.attempts) for w in retry_queue.waiting(bus).messages
        } == {
            ("retry.1h", "orders.intake", "a", 3),
            ("retry.1h", "kyc.decisions", "b", 3),
            ("retry.10m", "orders.intake", "c", 3),
        }
        done = retry_queue.retry_now(bus, books, topology.ORDERS_INTAKE, Actor("ada", "desk"))
        assert (done.done, done.passed) == (2, 1)
        assert [w.message_id for w in retry_queue.waiting(bus).messages] == ["b"]
    books.dispose()
    back = [take(amqp_url, "orders.intake") for _ in range(2)]
    assert {message.properties["message_id"] for message in back} == {"a", "c"}
    # It is the same ladder: the attempts count on.
    assert {headers(message)["x-attempt"] for message in back} == {3}
    users = {m.properties["message_id"]: headers(m).get("x-user-id") for m in back}
    assert users == {"a": "ada", "c": None}
    # An email that is out is not sent again, and a replay stays one; nobody vouches for c's.
    for name, said in (("x-happened", True), ("x-replay", "again")):
        found = {m.properties["message_id"]: headers(m).get(name) for m in back}
        assert found == {"a": said, "c": None}
    vouched = {m.properties["message_id"]: m.properties.get("user_id") for m in back}
    assert vouched == {"a": login("ops"), "c": None}
    assert depth(amqp_url, "orders.intake") == 0
    facts = [decode(row.type, row.body) for row in db.query(OutboxMessage)]
    assert sorted(fact.messages for fact in facts) == [1, 1]


def test_looking_does_not_end_the_wait(settings, amqp_url):
    """To RabbitMQ 4 each look is a delivery, of which it allows 20 where a queue has no limit."""
    publish_raw(amqp_url, "retry.1h", "orders.intake", b"{}", message_id="a", delivery_mode=2)

    def seen(bus):
        return [message.message_id for message in retry_queue.waiting(bus).messages]

    with Connection(settings.amqp_url) as bus:
        for look in range(25):
            until(lambda: seen(bus) == ["a"], f"it waits behind {look} looks")
    assert depth(amqp_url, "orders.intake") == 0
