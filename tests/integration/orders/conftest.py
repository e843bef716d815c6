"""These handlers run here as services.orders signs in."""

import pytest


@pytest.fixture
def service() -> str:
    return "orders"
