"""A batch of the journal holds what was published, and nothing that only says so."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from shared.bus.contract import journal, topology
from shared.bus.contract.delivery import Incoming
from shared.bus.contract.message import message_for
from tests.integration.arrange import order_created
from tests.unit.notifier.facts import FACTS


def arrived(message):
    properties = {"type": message.type, "message_id": message.message_id}
    return Incoming(message.body, properties, {}, message.exchange)


def unpack(incoming):
    return list(journal.unpack(incoming, "key"))


@given(st.lists(st.none() | st.text(max_size=40), max_size=5))
def test_what_goes_in_comes_out(traces):
    sent = [
        message_for(order_created(), source="tests", correlation_id="story", traceparent=trace)
        for trace in traces
    ]
    packed = journal.batch([journal.event(one) for one in sent], "tests", "journal")
    unpacked = [incoming for incoming, _ in unpack(arrived(packed))]
    assert [one.body for one in unpacked] == [one.body for one in sent]
    assert [one.headers for one in unpacked] == [one.headers() for one in sent]
    assert [str(one.message_id) for one in unpacked] == [one.message_id for one in sent]
    assert {one.exchange for one in unpacked} <= {"intake"}


@pytest.mark.parametrize("name", sorted(FACTS))
@pytest.mark.parametrize("lane", ["", topology.BULK])
def test_a_fact_comes_out_with_its_exchange_and_key(name, lane):
    fact = message_for(FACTS[name], source="tests", correlation_id="story")
    fact = structs.replace(fact, routing_key=lane + fact.type)
    place = journal.place(fact.exchange, fact.routing_key)
    if fact.type == "account.otp_requested" and not lane:
        assert place == ""
        return
    assert place == "journal.facts"
    ((one, key),) = unpack(arrived(journal.batch([journal.event(fact)], "relay", place)))
    assert (one.exchange, key, one.body) == (topology.EVENTS, fact.routing_key, fact.body)


def test_it_is_a_cloudevents_batch():
    made = message_for(order_created(), source="tests", correlation_id="story")
    (event,) = json.loads(journal.batch([journal.event(made)], "tests", "journal").body)
    # CloudEvents 1.0.2, 3.1: what is required.
    assert {"specversion", "id", "source", "type"} <= event.keys()
    assert event["data"] == json.loads(made.body)


def test_another_message_stays_as_it_is():
    command = Incoming(b"{}", {"type": "kyc.decide"}, {}, "commands")
    assert unpack(command) == [(command, "key")]


def test_it_cannot_claim_another_exchange():
    event = {"specversion": "1.0", "id": "1", "source": "x", "type": "kyc.approved"}
    event |= {"time": "2026-01-01T00:00:00+00:00", "subject": "s", "exchange": "events", "data": {}}
    forged = json.dumps([event]).encode()
    for exchange in ("journal", ""):
        ((one, _),) = unpack(Incoming(forged, {"type": journal.TYPE}, {}, exchange))
        assert one.exchange == "intake"


@pytest.mark.parametrize("body", [b"{}", b"", b"[", b"[1]", b"\xff", b'[{"id": 1}]'])
def test_what_is_no_batch_stays_as_it_is_and_is_for_no_queue(body):
    broken = Incoming(body, {"type": journal.TYPE}, {}, "journal")
    assert unpack(broken) == [(broken, "key")]
    bound = {b.exchange for queue in topology.WORK_QUEUES for b in queue.bindings}
    assert broken.exchange not in bound
