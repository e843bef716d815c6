"""The benchmarks' own contenders, with few messages."""

import pytest

from bench import chains, growing
from bench.ground import ground
from bench.suites import recorder, relay
from bench.suites.by_name import endtoend

FEW = 200


@pytest.fixture(scope="module")
def places():
    """By name: databases that nothing was recorded in."""
    with ground() as on:
        yield {"": on} | {name: on.beside(name) for name in ("grown", "chain")}


@pytest.fixture(scope="module")
def on(places):
    return places[""]


def test_the_recorder_records_what_was_put_into_its_queue(on):
    found = recorder.record(on, FEW, ORDER_BATCH_SIZE="20")
    assert (on.count("orders"), found.keys()) == (FEW, {"orders/s"})


def test_the_recorder_goes_on_in_a_database_that_has_grown(places):
    grown = places["grown"]
    growing.add_accounts(grown, 50)
    growing.add_orders(grown, 500)
    recorder.record(grown, FEW, keep=True, ORDER_BATCH_SIZE="20")
    assert grown.count("orders") == 500 + FEW


@pytest.mark.parametrize("relaying", [relay._ours, relay._one_by_one])
def test_the_relay_empties_the_outbox(on, monkeypatch, relaying):
    monkeypatch.setattr(relay, "ROWS", FEW)
    monkeypatch.setattr(relay, "FEW", FEW)
    assert relaying(on).keys() == {"rows/s"}
    assert (on.count("outbox"), on.depth(relay.QUEUE)) == (0, FEW)


def test_a_whole_chain_mails_each_order_once(places, monkeypatch):
    monkeypatch.setattr(endtoend, "SECONDS", 2.0)
    with chains.ours(places["chain"]) as chain:
        found = endtoend._try(chain, 50.0)
        assert (chain.accepted, chain.count("orders")) == (100, 100)
        assert chain.count("email_deliveries") == 100
    assert "email" not in found.problem
    assert found.cpu > 0
