"""A batch of the journal holds what was published, and nothing that only says so."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from shared.bus.contract import journal, topology
from shared.bus.contract.delivery import RawDelivery
from shared.bus.contract.message import message_for
from tests.integration.arrange import order_created
from tests.unit.notifier.facts import FACTS

BATCHED_NOWHERE = {exchange.name for exchange in topology.EXCHANGES} - {"journal", "journal.facts"}


def arrived(message):
    properties = {"type": message.type, "message_id": message.message_id}
    return RawDelivery(message.body, properties, {}, message.exchange)


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
    command = RawDelivery(b"{}", {"type": "kyc.decide"}, {}, "commands")
    assert unpack(command) == [(command, "key")]


def test_it_cannot_claim_another_exchange():
    event = {"specversion": "1.0", "id": "1", "source": "x", "type": "kyc.approved"}
    event |= {"time": "2026-01-01T00:00:00+00:00", "subject": "s", "exchange": "events", "data": {}}
    forged = json.dumps([event]).encode()
    ((one, _),) = unpack(RawDelivery(forged, {"type": journal.TYPE}, {}, "journal"))
    assert one.exchange == "intake"


@pytest.mark.parametrize("exchange", ["", *sorted(BATCHED_NOWHERE)])
def test_a_batch_from_elsewhere_is_none(exchange):
    made = journal.batch(
        [journal.event(message_for(order_created(), source="x", correlation_id="y"))],
        "tests",
        "journal",
    )
    said = RawDelivery(made.body, {"type": journal.TYPE}, {}, exchange)
    assert unpack(said) == [(said, "key")]


@pytest.mark.parametrize("body", [b"{}", b"", b"[", b"[1]", b"\xff", b'[{"id": 1}]'])
def test_what_is_no_batch_stays_as_it_is_and_is_for_no_queue(body):
    broken = RawDelivery(body, {"type": journal.TYPE}, {}, "journal")
    assert unpack(broken) == [(broken, "key")]
    bound = {b.exchange for queue in topology.WORK_QUEUES for b in queue.bindings}
    assert broken.exchange not in bound


def with_body(body):
    made = message_for(order_created(), source="tests", correlation_id="story")
    return structs.replace(made, body=body)


FORGED = (
    b'{}},{"specversion":"1.0","id":"1","source":"x","type":"kyc.approved","time":"","subject":"s"'
    b',"data":{}'
)


@pytest.mark.parametrize(
    "body",
    [b"", b"nope", b"{} {}", b"{}]", b"{}}", FORGED, b"\xef\xbb\xbf{}", b"[" * 9999 + b"]" * 9999],
)
def test_what_is_not_one_value_is_no_part_of_a_batch(body):
    with pytest.raises(ValueError, match="not one JSON value"):
        journal.check(with_body(body))


@given(st.binary(max_size=30) | st.recursive(st.none(), st.lists).map(json.dumps).map(str.encode))
def test_whatever_passes_comes_out_alone_and_leaves_the_others_readable(body):
    try:
        journal.check(with_body(body))
    except ValueError:
        return
    sent = [with_body(b"{}"), with_body(body), with_body(b"{}")]
    packed = journal.batch([journal.event(one) for one in sent], "tests", "journal")
    unpacked = [one for one, _ in unpack(arrived(packed))]
    assert [one.properties["message_id"] for one in unpacked] == [one.message_id for one in sent]
    assert [one.body for one in unpacked] == [b"{}", body.strip(b" \t\r\n"), b"{}"]


def test_what_is_journalled_by_the_broker_may_be_anything():
    command = structs.replace(with_body(b"nope"), exchange="commands", routing_key="kyc.decide")
    journal.check(command)


@pytest.mark.parametrize("body", [b"[" * 100_000, b"[{}", b"\xff"])
def test_a_batch_that_cannot_be_read_is_told_from_other_messages(body):
    broken = RawDelivery(body, {"type": journal.TYPE}, {}, "journal.facts")
    ((one, _),) = unpack(broken)
    assert journal.is_unread(one)
    assert not journal.is_unread(RawDelivery(body, {"type": journal.TYPE}, {}, "commands"))
