"""A network that is slow, that loses, and that ends connections in the middle of a frame."""

import pytest


@pytest.fixture(autouse=True)
def network_is_good(stand, whole):
    yield
    stand.bus.open()
    stand.books.open()


@pytest.fixture(autouse=True)
def seeded(stand):
    stand.bus.rng = stand.books.rng = stand.rng


def test_everything_takes_longer(stand):
    """20 ms each way to both servers, as between two regions."""
    with stand.load(rate=60) as load:
        stand.go_on(1)
        stand.bus.lag = stand.books.lag = 0.02
        stand.go_on(6)
        stand.bus.open()
        stand.books.open()
    balance = stand.settle(load)
    balance.accepted_all()
    assert balance.doubled == 0


@pytest.mark.parametrize("way", ["bus", "books"])
def test_what_passes_is_lost_now_and_then(stand, way):
    """One piece in a hundred ends its connection half way through, frames and statements torn."""
    gate = getattr(stand, way)
    with stand.load(rate=60) as load:
        stand.go_on(1)
        gate.loss = 0.01
        stand.go_on(8)
        stand.go_on_until(lambda: gate.losses > 0, "a piece is lost")
        gate.open()
    # With the database torn away under a commit nobody knows whether it took place.
    stand.settle(load).accepted_all()


def test_slow_and_lossy_at_once(stand):
    with stand.load(rate=30) as load:
        stand.go_on(1)
        stand.bus.lag = stand.books.lag = 0.01
        stand.bus.loss = stand.books.loss = 0.005
        stand.go_on(8)
        stand.bus.open()
        stand.books.open()
    balance = stand.settle(load)
    # Both may be away in the same moment; then the sender is told so, and sends again.
    assert set(balance.answers) <= {201, 503}
    assert balance.accepted > len(load.sent) // 2
